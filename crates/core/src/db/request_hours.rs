//! `request_hours`: what each hour of the log comes to, and how far it was counted.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;

use super::request_logs;
use super::schema::request_hours;
use super::types::TsValue;
use super::words::Words;
use super::{Conn, DbError};
use crate::detect::Window;

/// A record that takes longer from its date to its commit is left to the next count of its hour.
const UNDER_WAY: TimeDelta = TimeDelta::minutes(1);

/// One hour that was counted.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct RequestHour {
    /// Its start, UTC.
    #[diesel(deserialize_as = TsValue)]
    pub hour: DateTime<Utc>,
    /// Of every verdict.
    pub requests: i64,
    /// Answered with 403.
    pub blocked: i64,
    /// Answered with 429.
    pub throttled: i64,
    /// `None` when it was counted whole; else up to where in the log, see [`mark`].
    pub counted_to: Option<i64>,
}

/// How many requests, and how many of them were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, QueryableByName)]
pub struct Counts {
    /// Of every verdict.
    #[diesel(sql_type = BigInt)]
    pub requests: i64,
    /// Answered with 403.
    #[diesel(sql_type = BigInt)]
    pub blocked: i64,
    /// Answered with 429.
    #[diesel(sql_type = BigInt)]
    pub throttled: i64,
}

/// The columns of [`Counts`], of whatever is counted together.
pub(super) const COUNTS: &str = "count(*) as requests, \
    count(*) filter (where verdict = 'blocked') as blocked, \
    count(*) filter (where verdict = 'throttled') as throttled";

/// The records of one hour, or those that came before or behind a [`mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The hour.
    pub window: Window,
    /// Which of its records.
    pub records: Records,
}

/// Which records of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// All that there are.
    All,
    /// Those that came before a mark.
    Before(i64),
    /// Those that came behind it.
    Behind(i64),
}

impl Part {
    /// The condition that its records meet.
    pub(super) fn condition(&self, words: &Words) -> String {
        let (start, end) = (words.instant(self.window.start()), words.instant(self.window.end()));
        let instant =
            |mark| words.instant(DateTime::from_timestamp_micros(mark).unwrap_or_default());
        let which = match (self.records, words.postgres) {
            (Records::All, _) => String::new(),
            (Records::Before(mark), true) => format!(" and recorded_at < {}", instant(mark)),
            (Records::Behind(mark), true) => format!(" and recorded_at >= {}", instant(mark)),
            (Records::Before(mark), false) => format!(" and id <= {mark}"),
            (Records::Behind(mark), false) => format!(" and id > {mark}"),
        };
        format!("at >= {start} and at < {end}{which}")
    }
}

/// Up to where the log can be counted once and for all at `now`: in SQLite the last id. In PostgreSQL, where
/// records become visible a little out of order, a `recorded_at` of which nothing is still under way, in
/// microseconds.
///
/// # Errors
/// As any statement.
pub async fn mark(conn: &mut Conn, now: DateTime<Utc>) -> Result<i64, DbError> {
    let [end, _] = request_logs::end(conn, now).await?;
    Ok(match conn {
        Conn::Postgres(_) => end - UNDER_WAY.num_microseconds().unwrap_or(0),
        Conn::Sqlite(_) => end,
    })
}

/// Counts a part of the log.
///
/// # Errors
/// As any statement.
pub async fn count(conn: &mut Conn, part: Part) -> Result<Counts, DbError> {
    let condition = part.condition(&Words::of(conn));
    let query = format!("select {COUNTS} from request_logs where {condition}");
    on!(conn, |c| diesel::sql_query(query).get_result(c).await)
}

/// The hours that start in `[from, to)`, oldest first.
///
/// # Errors
/// As any statement.
pub async fn between(
    conn: &mut Conn,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<RequestHour>, DbError> {
    let rows = request_hours::table
        .filter(request_hours::hour.ge(TsValue(from)))
        .filter(request_hours::hour.lt(TsValue(to)))
        .order(request_hours::hour);
    on!(conn, |c| rows.load(c).await)
}

/// The hours that start before `to`, oldest first.
///
/// # Errors
/// As any statement.
pub async fn before(conn: &mut Conn, to: DateTime<Utc>) -> Result<Vec<RequestHour>, DbError> {
    let rows =
        request_hours::table.filter(request_hours::hour.lt(TsValue(to))).order(request_hours::hour);
    on!(conn, |c| rows.load(c).await)
}

/// Puts a row in the place of what was counted of that hour before.
///
/// # Errors
/// As any statement.
pub async fn put(conn: &mut Conn, row: RequestHour) -> Result<(), DbError> {
    let counted = (
        request_hours::requests.eq(row.requests),
        request_hours::blocked.eq(row.blocked),
        request_hours::throttled.eq(row.throttled),
        request_hours::counted_to.eq(row.counted_to),
    );
    on!(conn, |c| diesel::insert_into(request_hours::table)
        .values((request_hours::hour.eq(TsValue(row.hour)), counted))
        .on_conflict(request_hours::hour)
        .do_update()
        .set(counted)
        .execute(c)
        .await)?;
    Ok(())
}

/// Forgets an hour.
///
/// # Errors
/// As any statement.
pub async fn remove(conn: &mut Conn, hour: DateTime<Utc>) -> Result<(), DbError> {
    let row = request_hours::table.find(TsValue(hour));
    on!(conn, |c| diesel::delete(row).execute(c).await)?;
    Ok(())
}
