//! `spool_positions`: how far each spool segment has been shipped, changed in the very transaction that
//! writes what was read up to there.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::spool_positions;
use super::types::TsValue;
use super::{Conn, DbError};

/// The positions of those of `segments` that have one.
///
/// # Errors
/// As any statement.
pub async fn of(conn: &mut Conn, segments: Vec<String>) -> Result<Vec<(String, i64)>, DbError> {
    let rows = spool_positions::table
        .filter(spool_positions::segment.eq_any(segments))
        .select((spool_positions::segment, spool_positions::position));
    on!(conn, |c| rows.load(c).await)
}

/// Moves a segment from one position to the next; position 0 is that of a segment never seen.
///
/// # Errors
/// [`DbError::Conflict`] when it is not at `from`: somebody else ships a copy of the same segment.
pub async fn advance(
    conn: &mut Conn,
    segment: &str,
    from: i64,
    to: i64,
    node: &str,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    if from == 0 {
        let new = (
            spool_positions::segment.eq(segment.to_owned()),
            spool_positions::position.eq(0),
            spool_positions::node.eq(node.to_owned()),
            spool_positions::updated_at.eq(TsValue(now)),
        );
        on!(conn, |c| diesel::insert_into(spool_positions::table)
            .values(new)
            .on_conflict_do_nothing()
            .execute(c)
            .await)?;
    }
    let row = spool_positions::table
        .filter(spool_positions::segment.eq(segment.to_owned()))
        .filter(spool_positions::position.eq(from));
    let moved = on!(conn, |c| diesel::update(row)
        .set((
            spool_positions::position.eq(to),
            spool_positions::node.eq(node.to_owned()),
            spool_positions::updated_at.eq(TsValue(now)),
        ))
        .execute(c)
        .await)?;
    if moved == 1 {
        Ok(())
    } else {
        Err(DbError::Conflict(format!("spool segment {segment} is no longer at position {from}")))
    }
}

/// Forgets segments that nobody has shipped from since `before`.
///
/// # Errors
/// As any statement.
pub async fn prune(conn: &mut Conn, before: DateTime<Utc>) -> Result<usize, DbError> {
    let old = spool_positions::table.filter(spool_positions::updated_at.lt(TsValue(before)));
    on!(conn, |c| diesel::delete(old).execute(c).await)
}
