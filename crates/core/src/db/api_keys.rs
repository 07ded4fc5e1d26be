//! `api_keys`: a key is stored as the SHA-256 of its secret under an id. Revoked keys stay.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::schema::api_keys;
use super::types::{MaybeTs, TsValue};
use super::{Conn, DbError};

/// One key.
#[derive(Clone, Debug, PartialEq, Queryable, Insertable, Serialize)]
#[diesel(table_name = api_keys, treat_none_as_default_value = false)]
pub struct ApiKey {
    /// The public half, part of the key that its owner holds.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the secret half.
    #[serde(skip)]
    pub secret_hash: Vec<u8>,
    /// `user`, `reader`, `operator`, `admin`, `bouncer`.
    pub role: String,
    /// Who made it.
    pub created_by: String,
    /// By the store's clock.
    #[diesel(serialize_as = TsValue, deserialize_as = TsValue)]
    pub created_at: DateTime<Utc>,
    /// When it stopped to count.
    #[diesel(serialize_as = MaybeTs, deserialize_as = MaybeTs)]
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Adds a key.
///
/// # Errors
/// As any statement.
pub async fn insert(conn: &mut Conn, key: ApiKey) -> Result<(), DbError> {
    on!(conn, |c| diesel::insert_into(api_keys::table).values(key).execute(c).await)?;
    Ok(())
}

/// Ends a key. `false` when there is none of this id, or it had been revoked before.
///
/// # Errors
/// As any statement.
pub async fn revoke(conn: &mut Conn, id: &str, now: DateTime<Utc>) -> Result<bool, DbError> {
    let row = api_keys::table
        .filter(api_keys::id.eq(id.to_owned()))
        .filter(api_keys::revoked_at.is_null());
    let revoked = on!(conn, |c| diesel::update(row)
        .set(api_keys::revoked_at.eq(MaybeTs::from(Some(now))))
        .execute(c)
        .await)?;
    Ok(revoked > 0)
}

/// The key of this id, revoked or not.
///
/// # Errors
/// As any statement.
pub async fn find(conn: &mut Conn, id: &str) -> Result<Option<ApiKey>, DbError> {
    let row = api_keys::table.find(id.to_owned());
    on!(conn, |c| row.first(c).await.optional())
}

/// All keys, newest first; those that were revoked too.
///
/// # Errors
/// As any statement.
pub async fn all(conn: &mut Conn) -> Result<Vec<ApiKey>, DbError> {
    let rows = api_keys::table.order((api_keys::created_at.desc(), api_keys::id));
    on!(conn, |c| rows.load(c).await)
}
