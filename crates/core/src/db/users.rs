//! `users`: people who sign in. Who is removed leaves no row.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::schema::users;
use super::types::TsValue;
use super::{Conn, DbError};

/// One person.
#[derive(Clone, Debug, PartialEq, Queryable, Insertable, Serialize)]
#[diesel(table_name = users)]
pub struct User {
    /// What he signs in with.
    pub name: String,
    /// Argon2id, in the PHC format.
    #[serde(skip)]
    pub password_hash: String,
    /// `user`, `reader`, `operator`, `admin`.
    pub role: String,
    /// Sessions of another epoch do not count.
    #[serde(skip)]
    pub epoch: i64,
    /// Who added him.
    pub created_by: String,
    /// By the store's clock.
    #[diesel(serialize_as = TsValue, deserialize_as = TsValue)]
    pub created_at: DateTime<Utc>,
    /// By the store's clock.
    #[diesel(serialize_as = TsValue, deserialize_as = TsValue)]
    pub password_changed_at: DateTime<Utc>,
}

/// Adds a person of whose name there is nobody yet.
///
/// # Errors
/// As any statement.
pub async fn insert(conn: &mut Conn, user: User) -> Result<(), DbError> {
    on!(conn, |c| diesel::insert_into(users::table).values(user).execute(c).await)?;
    Ok(())
}

/// The person of this name.
///
/// # Errors
/// As any statement.
pub async fn find(conn: &mut Conn, name: &str) -> Result<Option<User>, DbError> {
    let row = users::table.find(name.to_owned());
    on!(conn, |c| row.first(c).await.optional())
}

/// Everybody, by name.
///
/// # Errors
/// As any statement.
pub async fn all(conn: &mut Conn) -> Result<Vec<User>, DbError> {
    let rows = users::table.order(users::name);
    on!(conn, |c| rows.load(c).await)
}

/// Deletes a person. `false` when there is none of this name.
///
/// # Errors
/// As any statement.
pub async fn remove(conn: &mut Conn, name: &str) -> Result<bool, DbError> {
    let row = users::table.find(name.to_owned());
    on!(conn, |c| diesel::delete(row).execute(c).await).map(|removed| removed > 0)
}

/// Gives a person another password, and with it another epoch. `false` when there is none of this name.
///
/// # Errors
/// As any statement.
pub async fn set_password(
    conn: &mut Conn,
    name: &str,
    password_hash: String,
    epoch: i64,
    at: DateTime<Utc>,
) -> Result<bool, DbError> {
    let row = users::table.find(name.to_owned());
    let set = (
        users::password_hash.eq(password_hash),
        users::epoch.eq(epoch),
        users::password_changed_at.eq(TsValue(at)),
    );
    on!(conn, |c| diesel::update(row).set(set).execute(c).await).map(|changed| changed > 0)
}

/// Gives a person another epoch. `false` when there is none of this name.
///
/// # Errors
/// As any statement.
pub async fn set_epoch(conn: &mut Conn, name: &str, epoch: i64) -> Result<bool, DbError> {
    let row = users::table.find(name.to_owned());
    let set = users::epoch.eq(epoch);
    on!(conn, |c| diesel::update(row).set(set).execute(c).await).map(|changed| changed > 0)
}
