//! `scan_runs`: which windows have been judged, by whom, and what came of it.
//!
//! A row from the future tells that the clock was wrong when it was written. It says nothing about
//! its window, which is due again when it has really ended.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::schema::scan_runs;
use super::types::TsValue;
use super::{Conn, DbError};

/// The `scheduler` of windows that an operator had scanned; they make no other window a missed one.
pub const OPERATOR: &str = "ipctl";

/// One window that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Serialize)]
pub struct ScanRun {
    /// A whole hour, UTC.
    #[diesel(deserialize_as = TsValue)]
    pub window_start: DateTime<Utc>,
    /// The first instant after the window.
    #[diesel(deserialize_as = TsValue)]
    pub window_end: DateTime<Utc>,
    /// The node that judged it when it was due, or [`OPERATOR`] if none has yet.
    pub scheduler: String,
    /// When it was judged last.
    #[diesel(deserialize_as = TsValue)]
    pub started_at: DateTime<Utc>,
    /// When that was finished.
    #[diesel(deserialize_as = TsValue)]
    pub finished_at: DateTime<Utc>,
    /// What was found in it then, reviewed or not.
    pub findings: i64,
}

/// Makes the row of a window say what `run` says. An operator's run leaves a scheduler's name as it is.
///
/// # Errors
/// As any statement.
pub async fn put(conn: &mut Conn, run: ScanRun) -> Result<(), DbError> {
    let (start, scheduler) = (TsValue(run.window_start), run.scheduler);
    let row = (
        scan_runs::window_start.eq(start.clone()),
        scan_runs::window_end.eq(TsValue(run.window_end)),
        scan_runs::scheduler.eq(scheduler.clone()),
        scan_runs::started_at.eq(TsValue(run.started_at)),
        scan_runs::finished_at.eq(TsValue(run.finished_at)),
        scan_runs::findings.eq(run.findings),
    );
    let again = (
        scan_runs::started_at.eq(TsValue(run.started_at)),
        scan_runs::finished_at.eq(TsValue(run.finished_at)),
        scan_runs::findings.eq(run.findings),
    );
    on!(conn, |c| diesel::insert_into(scan_runs::table)
        .values(row)
        .on_conflict(scan_runs::window_start)
        .do_update()
        .set(again)
        .execute(c)
        .await)?;
    if scheduler != OPERATOR {
        let row = scan_runs::table.find(start);
        let by = scan_runs::scheduler.eq(scheduler);
        on!(conn, |c| diesel::update(row).set(by).execute(c).await)?;
    }
    Ok(())
}

/// The same for a window that has a row; one without stays without.
///
/// # Errors
/// As any statement.
pub async fn update(conn: &mut Conn, run: ScanRun) -> Result<(), DbError> {
    let row = scan_runs::table.find(TsValue(run.window_start));
    let again = (
        scan_runs::started_at.eq(TsValue(run.started_at)),
        scan_runs::finished_at.eq(TsValue(run.finished_at)),
        scan_runs::findings.eq(run.findings),
    );
    on!(conn, |c| diesel::update(row).set(again).execute(c).await)?;
    Ok(())
}

/// The start of the last window that a scheduler had judged at `now` (the store's clock).
///
/// # Errors
/// As any statement.
pub async fn last_scheduled(
    conn: &mut Conn,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, DbError> {
    let last = scan_runs::table
        .filter(scan_runs::scheduler.ne(OPERATOR))
        .filter(scan_runs::started_at.le(TsValue(now)))
        .filter(scan_runs::window_end.le(TsValue(now)))
        .order(scan_runs::window_start.desc())
        .select(scan_runs::window_start);
    let start: Option<TsValue> = on!(conn, |c| last.first(c).await.optional())?;
    Ok(start.map(|start| start.0))
}

/// The starts of the windows in `[from, to)` that were judged.
///
/// # Errors
/// As any statement.
pub async fn starts(
    conn: &mut Conn,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<DateTime<Utc>>, DbError> {
    let rows = scan_runs::table
        .filter(scan_runs::window_start.ge(TsValue(from)))
        .filter(scan_runs::window_start.lt(TsValue(to)))
        .select(scan_runs::window_start);
    let starts: Vec<TsValue> = on!(conn, |c| rows.load(c).await)?;
    Ok(starts.into_iter().map(|start| start.0).collect())
}

/// The last time a scheduler had finished a window at `now`; `/readyz` compares the two.
///
/// # Errors
/// As any statement.
pub async fn last_finished(
    conn: &mut Conn,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, DbError> {
    let last = scan_runs::table
        .filter(scan_runs::scheduler.ne(OPERATOR))
        .filter(scan_runs::finished_at.le(TsValue(now)))
        .order(scan_runs::window_start.desc())
        .select(scan_runs::finished_at);
    let at: Option<TsValue> = on!(conn, |c| last.first(c).await.optional())?;
    Ok(at.map(|at| at.0))
}

/// Up to `limit` windows that start before `before`, newest first.
///
/// # Errors
/// As any statement.
pub async fn page(
    conn: &mut Conn,
    before: Option<DateTime<Utc>>,
    limit: i64,
) -> Result<Vec<ScanRun>, DbError> {
    let before = before.unwrap_or(DateTime::<Utc>::MAX_UTC);
    let rows = scan_runs::table
        .filter(scan_runs::window_start.lt(TsValue(before)))
        .order(scan_runs::window_start.desc())
        .limit(limit);
    on!(conn, |c| rows.load(c).await)
}
