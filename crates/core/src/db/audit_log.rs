//! `audit_log`: who changed what, when, from where. Rows are only ever added.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::schema::audit_log;
use super::types::{JsonValue, TsValue};
use super::{Conn, DbError};

/// One change by one actor.
#[derive(Clone, Debug, PartialEq, Queryable, Serialize)]
pub struct Audited {
    /// Of the row.
    pub id: i64,
    /// By the store's clock.
    #[diesel(deserialize_as = TsValue)]
    pub at: DateTime<Utc>,
    /// `key:ID`, `cli:USER`, `scan`.
    pub actor: String,
    /// A verb: `block`, `unblock`, `allow`, `disallow`, `review`, ...
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// What else there is to know.
    #[diesel(deserialize_as = JsonValue)]
    pub details: serde_json::Value,
}

/// Adds a row.
///
/// # Errors
/// As any statement.
pub async fn insert(
    conn: &mut Conn,
    at: DateTime<Utc>,
    actor: &str,
    action: &str,
    target: &str,
    details: serde_json::Value,
) -> Result<(), DbError> {
    let row = (
        audit_log::at.eq(TsValue(at)),
        audit_log::actor.eq(actor.to_owned()),
        audit_log::action.eq(action.to_owned()),
        audit_log::target.eq(target.to_owned()),
        audit_log::details.eq(JsonValue(details)),
    );
    on!(conn, |c| diesel::insert_into(audit_log::table).values(row).execute(c).await)?;
    Ok(())
}

/// Up to `limit` rows with ids below `before`, newest first.
///
/// # Errors
/// As any statement.
pub async fn page(
    conn: &mut Conn,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Audited>, DbError> {
    let rows = audit_log::table
        .filter(audit_log::id.lt(before.unwrap_or(i64::MAX)))
        .order(audit_log::id.desc())
        .limit(limit);
    on!(conn, |c| rows.load(c).await)
}
