//! Bouncers and their keys, on both databases.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::bouncers::{self, AddError};
use ipwarden_core::db::bouncers::{self as rows, Pulled, Who};
use ipwarden_core::db::{Db, audit_log};
use ipwarden_core::keys::{Keys, Role};
use ipwarden_core::lists::Actor;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap()
}

fn actor() -> Actor {
    Actor { name: "cli:root".to_owned(), address: None }
}

fn who(key_id: &str, address: &str) -> Who {
    Who {
        key_id: key_id.to_owned(),
        address: address.parse().unwrap(),
        kind: Some("a-bouncer".to_owned()),
        version: Some("v1.2".to_owned()),
    }
}

async fn seen(db: &Db, who: Who, at: DateTime<Utc>) {
    db.run(move |conn| async move { rows::seen(conn, who, at).await }.boxed()).await.unwrap();
}

#[tokio::test]
async fn a_bouncer_has_a_name_of_its_own_and_a_key_that_counts_until_it_is_deleted() {
    every_store(async |store: Store| {
        let db = &store.db;
        let add = |name: &str| bouncers::add(db, name.to_owned(), actor(), now());
        let (row, key, _) = add("edge").await.unwrap();
        assert!(matches!(add("edge").await, Err(AddError::Taken(name)) if name == "edge"));
        let keys = Keys::load(db).await.unwrap();
        assert_eq!(keys.verify(&key).unwrap().role, Role::Bouncer);
        assert!(keys.any_of(Role::Bouncer));

        let delete = |name: &str| bouncers::delete(db, name.to_owned(), actor(), now());
        assert!(delete("nobody").await.unwrap().0.is_empty());
        let (ended, version) = delete("edge").await.unwrap();
        assert_eq!((&*ended[0].id, version.is_some()), (&*row.id, true));
        keys.reload(db).await.unwrap();
        assert_eq!((keys.verify(&key), keys.any_of(Role::Bouncer)), (None, false));
        // The name is free again.
        let (again, ..) = add("edge").await.unwrap();
        assert!(!delete(&again.id).await.unwrap().0.is_empty(), "by its id as well");
        let audit = db.run(|conn| audit_log::page(conn, None, 10).boxed()).await.unwrap();
        let actions: Vec<_> = audit.iter().map(|line| &*line.action).collect();
        assert_eq!(actions, ["revoke-key", "create-key", "revoke-key", "create-key"]);
    })
    .await;
}

#[tokio::test]
async fn each_address_that_a_key_is_used_from_is_a_bouncer_with_a_cursor_of_its_own() {
    every_store(async |store: Store| {
        let db = &store.db;
        let (row, ..) = bouncers::add(db, "edge".to_owned(), actor(), now()).await.unwrap();
        let unused = bouncers::list(db).await.unwrap();
        assert_eq!((unused.len(), unused[0].address, unused[0].last_pull), (1, None, None));

        let later = now() + TimeDelta::seconds(9);
        seen(db, who(&row.id, "192.0.2.1"), now()).await;
        seen(db, who(&row.id, "2001:db8::1"), now()).await;
        seen(db, Who { version: None, ..who(&row.id, "192.0.2.1") }, later).await;
        let id = row.id.clone();
        let (v4, v6) = db
            .run(move |conn| {
                async move {
                    let who = who(&id, "192.0.2.1");
                    let everything = Pulled { list_version: 7, at: now(), everything: true };
                    rows::pulled(conn, &who, everything).await?;
                    let more = Pulled {
                        list_version: 9,
                        at: now() + TimeDelta::days(1),
                        everything: false,
                    };
                    rows::pulled(conn, &who, more).await?;
                    rows::applies(conn, &who, 42).await?;
                    let v4 = rows::find(conn, &id, who.address).await?.unwrap();
                    let v6 = rows::find(conn, &id, "2001:db8::1".parse().unwrap()).await?.unwrap();
                    Ok((v4, v6))
                }
                .boxed()
            })
            .await
            .unwrap();
        assert_eq!(
            (v4.list_version, v4.announced_at, v4.applied),
            (Some(9), Some(now()), Some(42))
        );
        assert_eq!((v4.first_seen, v4.last_pull, v4.version), (now(), later, None));
        assert_eq!((v6.list_version, v6.announced_at, v6.applied), (None, None, None));

        let listed = bouncers::list(db).await.unwrap();
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().all(|one| one.name == "edge" && one.id == row.id));
        bouncers::delete(db, "edge".to_owned(), actor(), now()).await.unwrap();
        let left = db.run(|conn| rows::all(conn).boxed()).await.unwrap();
        assert_eq!(left, []);
    })
    .await;
}
