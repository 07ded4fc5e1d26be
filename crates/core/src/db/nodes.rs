//! `nodes`: a heartbeat of each process, so that replicas know how many share a quota.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::nodes;
use super::types::TsValue;
use super::{Conn, DbError};

/// How old a heartbeat may be for its node to count as live.
pub const LIVE: TimeDelta = TimeDelta::seconds(15);

/// Says that `node` lives at `now` (the store's clock), and forgets nodes that have not for a day.
/// Returns how many nodes of its kind are live, itself included.
///
/// # Errors
/// As any statement.
pub async fn beat(
    conn: &mut Conn,
    node: &str,
    kind: &str,
    started_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<i64, DbError> {
    let row = (
        nodes::node.eq(node.to_owned()),
        nodes::kind.eq(kind.to_owned()),
        nodes::started_at.eq(TsValue(started_at)),
        nodes::seen_at.eq(TsValue(now)),
    );
    on!(conn, |c| diesel::insert_into(nodes::table)
        .values(row)
        .on_conflict(nodes::node)
        .do_update()
        .set((nodes::started_at.eq(TsValue(started_at)), nodes::seen_at.eq(TsValue(now))))
        .execute(c)
        .await)?;
    let gone = nodes::table.filter(nodes::seen_at.lt(TsValue(now - TimeDelta::days(1))));
    on!(conn, |c| diesel::delete(gone).execute(c).await)?;
    live(conn, kind, now).await
}

/// How many nodes of a kind were seen within [`LIVE`]. A heartbeat from the future tells of a clock
/// that was wrong, and counts no more than one from the past.
///
/// # Errors
/// As any statement.
pub async fn live(conn: &mut Conn, kind: &str, now: DateTime<Utc>) -> Result<i64, DbError> {
    let rows = nodes::table
        .filter(nodes::kind.eq(kind.to_owned()))
        .filter(nodes::seen_at.gt(TsValue(now - LIVE)))
        .filter(nodes::seen_at.lt(TsValue(now + LIVE)))
        .count();
    on!(conn, |c| rows.get_result(c).await)
}

/// The nodes of a kind, and when each was last heard of.
///
/// # Errors
/// As any statement.
pub async fn all(conn: &mut Conn, kind: &str) -> Result<Vec<(String, DateTime<Utc>)>, DbError> {
    let rows = nodes::table
        .filter(nodes::kind.eq(kind.to_owned()))
        .order(nodes::node)
        .select((nodes::node, nodes::seen_at));
    let rows: Vec<(String, TsValue)> = on!(conn, |c| rows.load(c).await)?;
    Ok(rows.into_iter().map(|(node, at)| (node, at.0)).collect())
}

/// Forgets a node that stops in order.
///
/// # Errors
/// As any statement.
pub async fn leave(conn: &mut Conn, node: &str) -> Result<(), DbError> {
    on!(conn, |c| diesel::delete(nodes::table.find(node.to_owned())).execute(c).await)?;
    Ok(())
}
