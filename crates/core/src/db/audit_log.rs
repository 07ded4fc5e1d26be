//! `audit_log`: who changed what, when, from where. Rows are only ever added, and emptied of what is to be
//! forgotten.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
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

/// Up to `limit` rows with ids above `after` whose target or details hold `text`, the oldest first. Reads the
/// whole table.
///
/// # Errors
/// As any statement.
pub async fn with(
    conn: &mut Conn,
    text: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Audited>, DbError> {
    // Nothing in an address has a meaning of its own in a pattern.
    let pattern = format!("%{text}%");
    let rows =
        audit_log::table
            .filter(audit_log::id.gt(after))
            .filter(audit_log::target.like(pattern.clone()).or(
                diesel::dsl::sql::<Bool>("cast(details as text) like ").bind::<Text, _>(pattern),
            ))
            .order(audit_log::id)
            .limit(limit);
    on!(conn, |c| rows.load(c).await)
}

/// Gives a row another target and other details: the one change that a row ever sees, when somebody is to
/// be forgotten.
///
/// # Errors
/// As any statement.
pub async fn redact(
    conn: &mut Conn,
    id: i64,
    target: String,
    details: serde_json::Value,
) -> Result<(), DbError> {
    let set = (audit_log::target.eq(target), audit_log::details.eq(JsonValue(details)));
    on!(conn, |c| diesel::update(audit_log::table.find(id)).set(set).execute(c).await)?;
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
