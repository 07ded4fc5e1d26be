//! People, from the terminal.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use common::{Ran, Store, every_store, finish};
use futures_util::FutureExt;
use ipwarden_core::db::users;
use ipwarden_core::users::Passwords;

const PASSWORD: &str = "correct horse battery";

fn with_password(store: &Store, arguments: &[&str], text: &str) -> Ran {
    finish(store.command(arguments), text.as_bytes())
}

async fn is_password(store: &Store, name: &'static str, password: &str) -> bool {
    let row = store.db.run(move |conn| users::find(conn, name).boxed()).await.unwrap();
    let stored = row.map(|row| row.password_hash);
    Passwords::default().verify(password.to_owned(), stored).await.unwrap()
}

#[tokio::test]
async fn a_user_is_added_listed_given_another_password_and_removed() {
    every_store(async |store: Store| {
        let added = with_password(
            &store,
            &["user", "add", "anna", "--role", "operator"],
            "correct horse battery\n",
        );
        assert_eq!(
            (added.code, added.stdout.as_str()),
            (0, "added anna (operator)\n"),
            "{added:?}"
        );
        assert!(is_password(&store, "anna", PASSWORD).await);
        let again = with_password(&store, &["user", "add", "anna"], PASSWORD);
        assert_eq!(again.code, 1, "{again:?}");
        assert!(again.stderr.contains("ipctl user passwd anna"), "{again:?}");

        let listed = store.json(&["user", "list"]);
        let row = &listed[0];
        assert_eq!((&row["name"], &row["role"]), (&"anna".into(), &"operator".into()), "{listed}");
        let mut members: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["created_at", "created_by", "name", "password_changed_at", "role"]);
        assert!(!store.done(&["user", "list"]).contains("argon2"));

        let set = with_password(&store, &["user", "passwd", "anna"], "another horse battery\r\n");
        assert_eq!(set.code, 0, "{set:?}");
        assert!(is_password(&store, "anna", "another horse battery").await);
        assert!(!is_password(&store, "anna", PASSWORD).await);

        assert_eq!(store.done(&["user", "remove", "anna"]), "removed anna\n");
        // It is so already.
        assert_eq!(store.done(&["user", "remove", "anna"]), "there is no user anna\n");
        let missing = with_password(&store, &["user", "passwd", "anna"], PASSWORD);
        assert_eq!(missing.code, 1);
        assert!(missing.stderr.contains("ipctl user list"), "{missing:?}");

        let audit = store.audit().await;
        let actions: Vec<_> = audit.iter().rev().map(|row| &*row.action).collect();
        assert_eq!(actions, ["add-user", "set-password", "remove-user", "remove-user"]);
        assert!(audit.iter().all(|row| row.actor.starts_with("cli:")));
    })
    .await;
}

#[tokio::test]
async fn a_password_is_never_an_argument_and_a_name_is_plain() {
    every_store(async |store: Store| {
        let usage: &[&[&str]] = &[
            &["user", "add", "anna", PASSWORD],
            &["user", "add", "anna", "--password", PASSWORD],
            &["user", "passwd", "anna", PASSWORD],
            &["user", "add", "a b"],
            &["user", "add", ""],
            &["user", "add", "anna", "--role", "bouncer"],
        ];
        for arguments in usage {
            let ran = with_password(&store, arguments, PASSWORD);
            assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        }
        for short in ["", "short\n", "\ncorrect horse battery\n"] {
            let ran = with_password(&store, &["user", "add", "anna"], short);
            assert_eq!(ran.code, 2, "{short:?}: {ran:?}");
            assert!(ran.stderr.contains("at least 12 characters"), "{ran:?}");
        }
        assert_eq!(store.json(&["user", "list"]), serde_json::json!([]));
    })
    .await;
}
