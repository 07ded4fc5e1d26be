//! `secrets`: what all replicas share and nobody else knows.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::secrets;
use super::types::TsValue;
use super::{Conn, DbError};

/// The secret of this name.
///
/// # Errors
/// As any statement.
pub async fn find(conn: &mut Conn, name: &str) -> Result<Option<Vec<u8>>, DbError> {
    let row = secrets::table.find(name.to_owned()).select(secrets::secret);
    on!(conn, |c| row.first(c).await.optional())
}

/// Adds a secret, unless there is one of its name: whoever comes first makes it.
///
/// # Errors
/// As any statement.
pub async fn insert(
    conn: &mut Conn,
    name: &str,
    secret: Vec<u8>,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    let row = (
        secrets::name.eq(name.to_owned()),
        secrets::secret.eq(secret),
        secrets::created_at.eq(TsValue(at)),
    );
    on!(conn, |c| diesel::insert_into(secrets::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(())
}
