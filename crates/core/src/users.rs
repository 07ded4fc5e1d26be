//! People who sign in: a name, a password, a role.
//!
//! Who counts is a snapshot in memory, like the keys; only whoever signs in is looked up in the store. Each
//! person has an epoch, which every session carries: a sign-out, a new password and the removal raise
//! it, and the sessions from before are over on every replica as soon as it has heard of that. An epoch is
//! the version of the change that made it, which comes once, whoever else had the name before.

mod password;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::Mutex;

use crate::db::list_changes::{self, List, Op};
use crate::db::users::{self, User};
use crate::db::{Conn, Db, DbError, audit_log};
use crate::keys::Role;
use crate::lists::Actor;

pub use self::password::{Busy, LONGEST, Passwords, SHORTEST, UnfitPassword, fit_password};

/// The longest name, in bytes.
const LONGEST_NAME: usize = 64;

/// Somebody who may sign in. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// What he signs in with.
    pub name: Arc<str>,
    /// What he may.
    pub role: Role,
    /// Which of his sessions count.
    pub epoch: i64,
}

impl Person {
    /// `None` for a role of a later version of the program.
    pub fn of(row: &User) -> Option<Person> {
        let role = row.role.parse().ok()?;
        Some(Person { name: row.name.as_str().into(), role, epoch: row.epoch })
    }

    /// His name as an [`Actor`] and as an identity in the request log.
    pub fn actor_name(&self) -> String {
        format!("user:{}", self.name)
    }
}

/// The people who count, in memory.
#[derive(Debug, Default)]
pub struct Users {
    people: ArcSwap<HashMap<Arc<str>, Person>>,
    /// An older answer of the store must not come after a newer one.
    loading: Mutex<()>,
}

impl Users {
    /// Loads everybody, again after a change of the list `users`.
    ///
    /// # Errors
    /// As any statement; then everybody stays as he was.
    pub async fn reload(&self, db: &Db) -> Result<(), DbError> {
        let _turn = self.loading.lock().await;
        let rows = db.run(|conn| users::all(conn).boxed()).await?;
        let people = rows.iter().filter_map(Person::of);
        self.people.store(Arc::new(people.map(|person| (person.name.clone(), person)).collect()));
        Ok(())
    }

    /// Who has this name.
    pub fn find(&self, name: &str) -> Option<Person> {
        self.people.load().get(name).cloned()
    }

    /// Whether somebody who counted still does, with the same role and epoch.
    pub fn holds(&self, person: &Person) -> bool {
        self.people.load().get(&person.name) == Some(person)
    }
}

/// A text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {LONGEST_NAME} letters, digits and any of . _ - @, and begins with a letter or digit"
)]
pub struct UnfitName;

/// Reads the name of a person. Only ASCII, so that no two look alike.
///
/// # Errors
/// [`UnfitName`].
pub fn fit_name(text: &str) -> Result<String, UnfitName> {
    let fits = text.len() <= LONGEST_NAME
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
    if fits { Ok(text.to_owned()) } else { Err(UnfitName) }
}

/// Adds a person, within a transaction that holds the lock of the lists, at the store's time `at`. Returns
/// his row and the version to announce; `None` when the name is taken.
///
/// # Errors
/// As any statement.
pub async fn add_in(
    conn: &mut Conn,
    name: &str,
    role: Role,
    password_hash: String,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Option<(User, i64)>, DbError> {
    if users::find(conn, name).await?.is_some() {
        return Ok(None);
    }
    let details = json!({ "role": role, "from": actor.address });
    let version = changed(conn, Op::Set, ("add-user", name, details), actor, at).await?;
    let row = User {
        name: name.to_owned(),
        password_hash,
        role: role.as_str().to_owned(),
        epoch: version,
        created_by: actor.name.clone(),
        created_at: at,
        password_changed_at: at,
    };
    users::insert(conn, row.clone()).await?;
    Ok(Some((row, version)))
}

/// Removes a person, and with him his sessions, as [`add_in`]. `None` when there is none of this name.
///
/// # Errors
/// As any statement.
pub async fn remove_in(
    conn: &mut Conn,
    name: &str,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Option<i64>, DbError> {
    let removed = users::remove(conn, name).await?;
    let details = json!({ "removed": removed, "from": actor.address });
    let line = ("remove-user", name, details);
    if !removed {
        audit(conn, line, actor, at).await?;
        return Ok(None);
    }
    changed(conn, Op::Removed, line, actor, at).await.map(Some)
}

/// Gives a person another password, and ends his sessions, as [`add_in`]. `None` when there is none of this
/// name.
///
/// # Errors
/// As any statement.
pub async fn set_password_in(
    conn: &mut Conn,
    name: &str,
    password_hash: String,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Option<i64>, DbError> {
    if users::find(conn, name).await?.is_none() {
        return Ok(None);
    }
    let line = ("set-password", name, json!({ "from": actor.address }));
    let version = changed(conn, Op::Set, line, actor, at).await?;
    users::set_password(conn, name, password_hash, version, at).await?;
    Ok(Some(version))
}

/// Ends all sessions of a person, as [`add_in`]. `None` when there is none of this name.
///
/// # Errors
/// As any statement.
pub async fn sign_out_in(
    conn: &mut Conn,
    name: &str,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Option<i64>, DbError> {
    if users::find(conn, name).await?.is_none() {
        return Ok(None);
    }
    let line = ("sign-out", name, json!({ "from": actor.address }));
    let version = changed(conn, Op::Set, line, actor, at).await?;
    users::set_epoch(conn, name, version).await?;
    Ok(Some(version))
}

/// Notes that somebody signed in, as [`add_in`]; nothing else changes.
///
/// # Errors
/// As any statement.
pub async fn signed_in(
    conn: &mut Conn,
    name: &str,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    audit(conn, ("sign-in", name, json!({ "from": actor.address })), actor, at).await
}

type Line<'a> = (&'static str, &'a str, serde_json::Value);

async fn changed(
    conn: &mut Conn,
    op: Op,
    line: Line<'_>,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<i64, DbError> {
    audit(conn, line, actor, at).await?;
    list_changes::record(conn, List::Users, op, &[None], at).await
}

async fn audit(
    conn: &mut Conn,
    (action, name, details): Line<'_>,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    audit_log::insert(conn, at, &actor.name, action, name, details).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_plain_ascii() {
        for name in ["anna", "a", "7", "anna.b@example.org", "A-1_x", &"x".repeat(64)] {
            assert_eq!(fit_name(name).as_deref(), Ok(name));
        }
        for text in
            ["", " anna", "anna ", "-x", ".x", "a/b", "a b", "\u{e4}nna", "a\n", &"x".repeat(65)]
        {
            assert_eq!(fit_name(text), Err(UnfitName), "{text:?}");
        }
    }
}
