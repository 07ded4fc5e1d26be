//! `touched_hours`: hours whose records changed since they were last judged.
//!
//! Every batch of records touches its hours in its own transaction, so that whoever sees the
//! records sees that too. The scan reads the rows first, then the records, and forgets in the end
//! exactly the rows it read: an hour that was touched in between stays touched.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::touched_hours;
use super::types::TsValue;
use super::{Conn, DbError};

/// An hour that some node wrote records of.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct TouchedHour {
    /// The start of the hour, UTC.
    #[diesel(deserialize_as = TsValue)]
    pub hour: DateTime<Utc>,
    /// Who wrote them.
    pub node: String,
    /// When it last did, or a little later: it rises with every batch.
    #[diesel(deserialize_as = TsValue)]
    pub recorded_at: DateTime<Utc>,
}

/// The rows of hours that start before `before`, oldest first.
///
/// # Errors
/// As any statement.
pub async fn before(conn: &mut Conn, before: DateTime<Utc>) -> Result<Vec<TouchedHour>, DbError> {
    let rows = touched_hours::table
        .filter(touched_hours::hour.lt(TsValue(before)))
        .order((touched_hours::hour, touched_hours::node));
    on!(conn, |c| rows.load(c).await)
}

/// The first hour that is to be judged again.
///
/// # Errors
/// As any statement.
pub async fn first(conn: &mut Conn) -> Result<Option<DateTime<Utc>>, DbError> {
    let first = touched_hours::table.order(touched_hours::hour).select(touched_hours::hour);
    let hour: Option<TsValue> = on!(conn, |c| first.first(c).await.optional())?;
    Ok(hour.map(|hour| hour.0))
}

/// Forgets a row, unless its node has written records of that hour since it was read.
///
/// # Errors
/// As any statement.
pub async fn forget(conn: &mut Conn, row: &TouchedHour) -> Result<(), DbError> {
    let judged = touched_hours::table
        .find((TsValue(row.hour), row.node.clone()))
        .filter(touched_hours::recorded_at.eq(TsValue(row.recorded_at)));
    on!(conn, |c| diesel::delete(judged).execute(c).await)?;
    Ok(())
}
