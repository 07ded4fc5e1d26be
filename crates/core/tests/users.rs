//! People and their sessions, on both databases.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ipwarden_core::db::{Conn, Db, DbError, audit_log, list_changes};
use ipwarden_core::keys::Role;
use ipwarden_core::lists::{self, Actor};
use ipwarden_core::sessions::{Audience, LASTS, Sessions};
use ipwarden_core::signing::Signer;
use ipwarden_core::users::{self, Passwords, Users};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap()
}

fn actor() -> Actor {
    Actor { name: "cli:root".to_owned(), address: None }
}

/// A change of people as everybody makes one.
async fn change<T: Send + 'static>(
    db: &Db,
    body: impl for<'c> FnOnce(&'c mut Conn, DateTime<Utc>) -> BoxFuture<'c, Result<T, DbError>>
    + Send
    + 'static,
) -> T {
    db.transaction(move |conn| {
        async move {
            let at = lists::lock(conn, now()).await?;
            body(conn, at).await
        }
        .boxed()
    })
    .await
    .unwrap()
}

async fn add(db: &Db, name: &'static str, role: Role) -> bool {
    let hash = Passwords::default().hash("correct horse battery".to_owned()).await.unwrap();
    change(db, move |conn, at| {
        async move { users::add_in(conn, name, role, hash, &actor(), at).await }.boxed()
    })
    .await
    .is_some()
}

struct Replica {
    users: Arc<Users>,
    sessions: Sessions,
}

impl Replica {
    async fn of(db: &Db) -> Replica {
        let (users, signer) = (Arc::<Users>::default(), Arc::<Signer>::default());
        users.reload(db).await.unwrap();
        signer.load(db, now()).await.unwrap();
        Replica { sessions: Sessions::new(signer, users.clone()), users }
    }
}

#[tokio::test]
async fn a_session_counts_on_every_replica_until_its_person_signs_out() {
    every_store(async |store: Store| {
        let db = &store.db;
        assert!(add(db, "anna", Role::Operator).await);
        assert!(!add(db, "anna", Role::Admin).await, "the name is taken");
        assert!(add(db, "ben.b@example.org", Role::Reader).await);
        let (one, other) = (Replica::of(db).await, Replica::of(db).await);
        let anna = one.users.find("anna").unwrap();
        assert_eq!((anna.role, anna.actor_name()), (Role::Operator, "user:anna".to_owned()));
        let (text, session) = one.sessions.open(Audience::Public, anna, now()).unwrap();
        let known = other.sessions.verify(Audience::Public, &text, now()).unwrap();
        assert_eq!(known.token, session.token);
        assert!(Sessions::is_token(&known, &session.token) && !Sessions::is_token(&known, ""));
        let ben = one.users.find("ben.b@example.org").unwrap();
        let (of_ben, session_of_ben) = one.sessions.open(Audience::Control, ben, now()).unwrap();
        assert!(other.sessions.verify(Audience::Control, &of_ben, now()).is_some());
        assert!(!Sessions::is_token(&known, &session_of_ben.token));

        // Neither elsewhere, nor later, nor otherwise.
        let verify = |text: &str, at| other.sessions.verify(Audience::Public, text, at);
        assert_eq!(other.sessions.verify(Audience::Control, &text, now()), None);
        assert!(verify(&text, now() + LASTS - TimeDelta::seconds(2)).is_some());
        assert_eq!(verify(&text, now() + LASTS), None);
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'1' { b'2' } else { b'1' };
            assert_eq!(verify(std::str::from_utf8(&wrong).unwrap(), now()), None, "{at}");
        }
        for wrong in ["", ".", "1.2.3.anna.", &text[1..], &format!("{text}0")] {
            assert_eq!(verify(wrong, now()), None, "{wrong}");
        }

        let version = change(db, |conn, at| {
            async move { users::sign_out_in(conn, "anna", &actor(), at).await }.boxed()
        });
        assert!(version.await.is_some());
        assert!(verify(&text, now()).is_some(), "the snapshot is older");
        other.users.reload(db).await.unwrap();
        assert_eq!(verify(&text, now()), None);
        assert!(other.sessions.verify(Audience::Control, &of_ben, now()).is_some());
    })
    .await;
}

#[tokio::test]
async fn a_new_password_and_the_removal_end_all_sessions_for_good() {
    every_store(async |store: Store| {
        let db = &store.db;
        add(db, "anna", Role::Reader).await;
        let replica = Replica::of(db).await;
        let open = || {
            let anna = replica.users.find("anna").unwrap();
            replica.sessions.open(Audience::Control, anna, now()).unwrap().0
        };
        let counts = |text: &str| replica.sessions.verify(Audience::Control, text, now()).is_some();
        let before = open();
        change(db, |conn, at| {
            async move { users::set_password_in(conn, "anna", String::new(), &actor(), at).await }
                .boxed()
        })
        .await;
        replica.users.reload(db).await.unwrap();
        assert!(!counts(&before));
        let between = open();
        assert!(counts(&between));
        let remove = || {
            change(db, |conn, at| {
                async move { users::remove_in(conn, "anna", &actor(), at).await }.boxed()
            })
        };
        assert!(remove().await.is_some());
        assert!(remove().await.is_none());
        replica.users.reload(db).await.unwrap();
        assert!(!counts(&between) && replica.users.find("anna").is_none());
        // Somebody of the same name is somebody else, though the clock stands still.
        add(db, "anna", Role::Admin).await;
        replica.users.reload(db).await.unwrap();
        assert!(!counts(&before) && !counts(&between));

        let changes = db.run(|conn| list_changes::since(conn, 0, 10).boxed()).await.unwrap();
        let told: Vec<_> = changes.iter().map(|change| (&*change.list, &*change.op)).collect();
        let set = ("users", "set");
        assert_eq!(told, [set, set, ("users", "removed"), set]);
        let audit = db.run(|conn| audit_log::page(conn, None, 10).boxed()).await.unwrap();
        let actions: Vec<_> = audit.iter().rev().map(|row| &*row.action).collect();
        let expected = ["add-user", "set-password", "remove-user", "remove-user", "add-user"];
        assert_eq!(actions, expected);
        assert!(audit.iter().all(|row| !row.details.to_string().contains("argon2")));
    })
    .await;
}
