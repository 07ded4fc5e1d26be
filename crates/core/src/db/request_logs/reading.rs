//! Records as they are looked at: by a filter, from the newest on, or as they come.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_async::RunQueryDsl;
use ipwarden_engine::network::Network;

use super::Logged;
use crate::db::schema::request_logs;
use crate::db::types::{AddrValue, TsValue};
use crate::db::{Conn, DbError};

/// Which records to show.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of these addresses.
    pub network: Option<Network>,
    /// Whose path starts so; every character means itself.
    pub path_prefix: Option<String>,
    /// `allowed`, `blocked`, `throttled`.
    pub verdict: Option<String>,
    /// Whose answer had a status in this range, both ends included.
    pub status: Option<(i16, i16)>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// At or after.
    pub since: Option<DateTime<Utc>>,
    /// Before.
    pub until: Option<DateTime<Utc>>,
}

/// The rows of a boxed query that a [`Filter`] shows, in either database.
macro_rules! filtered {
    ($rows:expr, $filter:expr) => {{
        let (mut rows, filter): (_, &Filter) = ($rows, $filter);
        rows = match filter.network {
            None => rows,
            // Equality, so that the index gives them in order.
            Some(network) if network.is_address() => {
                rows.filter(request_logs::address.eq(AddrValue(network.address())))
            }
            Some(network) => rows
                .filter(request_logs::address.ge(AddrValue(network.address())))
                .filter(request_logs::address.le(AddrValue(network.last_address()))),
        };
        if let Some(prefix) = &filter.path_prefix {
            let prefix = prefix.clone();
            rows = rows.filter(
                diesel::dsl::sql::<Bool>("substr(path, 1, length(")
                    .bind::<Text, _>(prefix.clone())
                    .sql(")) = ")
                    .bind::<Text, _>(prefix),
            );
        }
        if let Some(verdict) = &filter.verdict {
            rows = rows.filter(request_logs::verdict.eq(verdict.clone()));
        }
        if let Some((least, most)) = filter.status {
            rows = rows.filter(request_logs::status.between(least, most));
        }
        if let Some(country) = &filter.country {
            rows = rows.filter(request_logs::country.eq(country.clone()));
        }
        if let Some(since) = filter.since {
            rows = rows.filter(request_logs::at.ge(TsValue(since)));
        }
        if let Some(until) = filter.until {
            rows = rows.filter(request_logs::at.lt(TsValue(until)));
        }
        rows
    }};
}

/// Where a page ended: the last row's time and id.
pub type Cursor = (DateTime<Utc>, i64);

/// Up to `limit` records, newest first, from behind `after`.
///
/// # Errors
/// As any statement.
pub async fn page(
    conn: &mut Conn,
    filter: &Filter,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Logged>, DbError> {
    let of_one_address = filter.network.is_some_and(|network| network.is_address());
    match conn {
        Conn::Postgres(_) if !of_one_address => slice_by_slice(conn, filter, after, limit).await,
        _ => slice(conn, filter, after, limit).await,
    }
}

/// The newest of a log that has no index in the order of time: PostgreSQL's BRIN only tells where a
/// span of time is stored. So it is asked for the last minute, then for ever longer spans before it.
async fn slice_by_slice(
    conn: &mut Conn,
    filter: &Filter,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Logged>, DbError> {
    let ends = filter.until.into_iter().chain(after.map(|(at, _)| at)).min();
    let ends = match ends {
        Some(ends) => ends,
        None => conn.clock(DateTime::<Utc>::MAX_UTC).await?,
    };
    let (mut rows, mut slice_of) = (Vec::new(), filter.clone());
    let mut span = TimeDelta::minutes(1);
    loop {
        let since = ends.checked_sub_signed(span).filter(|since| {
            *since > DateTime::UNIX_EPOCH && filter.since.is_none_or(|first| *since > first)
        });
        slice_of.since = since.or(filter.since);
        let left = limit - i64::try_from(rows.len()).unwrap_or(limit);
        rows.extend(slice(conn, &slice_of, after, left).await?);
        if since.is_none() || i64::try_from(rows.len()).is_ok_and(|found| found >= limit) {
            return Ok(rows);
        }
        slice_of.until = since;
        span = span * 4;
    }
}

async fn slice(
    conn: &mut Conn,
    filter: &Filter,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Logged>, DbError> {
    macro_rules! slice {
        ($c:expr, $backend:ty) => {{
            let mut rows = filtered!(request_logs::table.into_boxed::<$backend>(), filter);
            if let Some((at, id)) = after {
                rows = rows.filter(request_logs::at.le(TsValue(at))).filter(
                    request_logs::at
                        .lt(TsValue(at))
                        .or(request_logs::at.eq(TsValue(at)).and(request_logs::id.lt(id))),
                );
            }
            let rows = rows.order((request_logs::at.desc(), request_logs::id.desc())).limit(limit);
            Ok(rows.load::<Logged>($c).await?)
        }};
    }
    match conn {
        Conn::Postgres(c) => slice!(c, diesel::pg::Pg),
        Conn::Sqlite(c) => slice!(c, diesel::sqlite::Sqlite),
    }
}

/// Where the log ends: the last id in SQLite, the store's time in microseconds in PostgreSQL, where a row
/// stands at its `recorded_at` and its id.
///
/// # Errors
/// As any statement.
pub async fn end(conn: &mut Conn, now: DateTime<Utc>) -> Result<[i64; 2], DbError> {
    let at = conn.clock(now).await?.timestamp_micros();
    match conn {
        Conn::Postgres(_) => Ok([at, 0]),
        Conn::Sqlite(c) => {
            let last = request_logs::table.select(diesel::dsl::max(request_logs::id));
            let last: Option<i64> = last.first(c).await?;
            Ok([last.unwrap_or(0), 0])
        }
    }
}

/// Up to `limit` records that came behind `from`, the oldest first: in SQLite up to `end`; in PostgreSQL of
/// requests of the last two days only, so that not every day has to be looked at.
///
/// # Errors
/// As any statement.
pub async fn behind(
    conn: &mut Conn,
    filter: &Filter,
    from: [i64; 2],
    end: [i64; 2],
    limit: i64,
) -> Result<Vec<Logged>, DbError> {
    match conn {
        Conn::Sqlite(c) => {
            let rows =
                filtered!(request_logs::table.into_boxed::<diesel::sqlite::Sqlite>(), filter)
                    .filter(request_logs::id.gt(from[0]))
                    .filter(request_logs::id.le(end[0]))
                    .order(request_logs::id)
                    .limit(limit);
            Ok(rows.load(c).await?)
        }
        Conn::Postgres(c) => {
            let time = |micros| DateTime::from_timestamp_micros(micros).unwrap_or_default();
            let dated = time(from[0]);
            let rows = filtered!(request_logs::table.into_boxed::<diesel::pg::Pg>(), filter)
                .filter(request_logs::at.ge(TsValue(time(end[0]) - TimeDelta::days(2))))
                .filter(request_logs::recorded_at.ge(TsValue(dated)))
                .filter(
                    request_logs::recorded_at.gt(TsValue(dated)).or(request_logs::id.gt(from[1])),
                )
                .order((request_logs::recorded_at, request_logs::id))
                .limit(limit);
            Ok(rows.load(c).await?)
        }
    }
}
