//! API keys, on both databases.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::os::unix::fs::PermissionsExt;

use chrono::{DateTime, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::db::{audit_log, list_changes};
use ipwarden_core::keys::{self, Keys, Role};
use ipwarden_core::lists::Actor;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap()
}

fn actor() -> Actor {
    Actor { name: "cli:root".to_owned(), address: None }
}

#[tokio::test]
async fn a_key_counts_from_the_next_load_until_it_is_revoked() {
    every_store(async |store: Store| {
        let db = &store.db;
        let keys = Keys::load(db).await.unwrap();
        let (row, key, version) =
            keys::create(db, "shop".to_owned(), Role::User, actor(), now()).await.unwrap();
        assert_eq!(version, 1);
        assert_eq!(keys.verify(&key), None, "the snapshot is older than the key");
        keys.reload(db).await.unwrap();
        let identity = keys.verify(&key).unwrap();
        assert_eq!((&*identity.id, &*identity.name, identity.role), (&*row.id, "shop", Role::User));
        assert!(!format!("{row:?}").contains(&key[17..]), "the secret is nowhere in the row");

        // A wrong secret, a wrong id, and everything that is no key.
        let flipped = |at: usize| {
            let mut wrong = key.clone().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            String::from_utf8(wrong).unwrap()
        };
        for wrong in [flipped(5), flipped(17), flipped(68), String::new(), format!("{key} ")] {
            assert_eq!(keys.verify(&wrong), None, "{wrong}");
        }

        let revoke = |id: String| keys::revoke(db, id, actor(), now());
        assert_eq!(revoke(row.id.clone()).await.unwrap(), Some(2));
        assert_eq!(revoke(row.id.clone()).await.unwrap(), None);
        assert_eq!(revoke("nobody".to_owned()).await.unwrap(), None);
        keys.reload(db).await.unwrap();
        assert_eq!(keys.verify(&key), None);
        let changes = db.run(|conn| list_changes::since(conn, 0, 10).boxed()).await.unwrap();
        let told: Vec<_> = changes.iter().map(|change| (&*change.list, &*change.op)).collect();
        assert_eq!(told, [("keys", "set"), ("keys", "removed")]);
        let audit = db.run(|conn| audit_log::page(conn, None, 10).boxed()).await.unwrap();
        assert_eq!(audit.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn replicas_that_start_at_once_make_one_admin_key() {
    every_store(async |store: Store| {
        let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
        let starts: Vec<_> = dirs
            .iter()
            .map(|dir| {
                let (db, dir) = (store.db.clone(), dir.path().to_owned());
                tokio::spawn(async move { keys::first_admin_key(&db, &dir, now()).await.unwrap() })
            })
            .collect();
        let mut made = Vec::new();
        for start in starts {
            made.extend(start.await.unwrap());
        }
        let [path] = &made[..] else { panic!("{made:?}") };
        let files: usize = dirs.iter().map(|dir| dir.path().read_dir().unwrap().count()).sum();
        assert_eq!(files, 1, "who was second leaves nothing");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let key = std::fs::read_to_string(path).unwrap();
        let keys = Keys::load(&store.db).await.unwrap();
        let (id, role) = keys.verify(key.trim()).map(|it| (it.id, it.role)).unwrap();
        assert_eq!(role, Role::Admin);

        // As a kill right behind the commit leaves it.
        std::fs::rename(path, path.with_added_extension(id.to_string())).unwrap();
        let dir = path.parent().unwrap();
        let finished = keys::first_admin_key(&store.db, dir, now()).await.unwrap();
        assert_eq!(finished.as_ref(), Some(path));
        assert_eq!(std::fs::read_to_string(path).unwrap(), key);

        // Never a second time, even when the first one is revoked.
        keys::revoke(&store.db, id.to_string(), actor(), now()).await.unwrap();
        let again = keys::first_admin_key(&store.db, dirs[0].path(), now()).await.unwrap();
        assert_eq!(again, None);
    })
    .await;
}

#[tokio::test]
async fn without_a_place_for_its_file_no_admin_key_is_made() {
    every_store(async |store: Store| {
        let nowhere = store.dir.path().join("missing");
        let error = keys::first_admin_key(&store.db, &nowhere, now()).await.unwrap_err();
        assert!(error.to_string().contains("missing/admin.key"), "{error}");
        assert!(Keys::load(&store.db).await.unwrap().is_empty());
    })
    .await;
}

#[test]
fn a_role_includes_those_below_it_and_a_bouncer_none() {
    for (index, role) in Role::ALL.into_iter().enumerate() {
        assert_eq!(role.as_str().parse(), Ok(role));
        for (other_index, other) in Role::ALL.into_iter().enumerate() {
            let is_bouncer = role == Role::Bouncer || other == Role::Bouncer;
            let expected = if is_bouncer { role == other } else { index >= other_index };
            assert_eq!(role.includes(other), expected, "{role} {other}");
        }
    }
    assert!("Admin".parse::<Role>().is_err());
}
