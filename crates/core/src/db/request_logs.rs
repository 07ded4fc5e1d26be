//! `request_logs`: one row per request, refused ones included.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, SmallInt, Text};
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ipwarden_engine::network::Network;
use serde::Serialize;

use super::schema::{request_logs, touched_hours};
use super::types::{Addr, AddrValue, Ts, TsValue};
use super::{Conn, Db, DbError, partitions};

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Queryable, Serialize)]
pub struct Logged {
    /// Of the row; rises with time on one node, and is unique.
    pub id: i64,
    /// When it arrived.
    #[diesel(deserialize_as = TsValue)]
    pub at: DateTime<Utc>,
    /// The client's.
    #[diesel(deserialize_as = AddrValue)]
    pub address: IpAddr,
    /// As received.
    pub method: String,
    /// Without its query, escaped, at most 2,048 bytes.
    pub path: String,
    /// Of the answer.
    pub status: i16,
    /// `allowed`, `blocked`, `throttled`.
    pub verdict: String,
    /// Whether it asked for a sensitive path in any plausible reading.
    pub sensitive: bool,
    /// Who, if that was verified.
    pub identity: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// In English.
    pub city: Option<String>,
    /// The autonomous system that announces the address.
    pub asn: Option<i64>,
    /// As received, escaped, at most 512 bytes.
    pub user_agent: Option<String>,
    /// What the answer carried in `X-Ipwarden-Reference`.
    pub reference: Option<String>,
    /// Which process answered, or the import.
    pub node: String,
    /// When it came into the database, by the store's clock.
    #[diesel(deserialize_as = TsValue)]
    pub recorded_at: DateTime<Utc>,
}

/// A row to be: the same without its id.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is a field of Logged")]
pub struct NewLogged {
    pub at: DateTime<Utc>,
    pub address: IpAddr,
    pub method: String,
    pub path: String,
    pub status: i16,
    pub verdict: &'static str,
    pub sensitive: bool,
    pub identity: Option<String>,
    pub country: Option<String>,
    pub city: Option<String>,
    pub asn: Option<i64>,
    pub user_agent: Option<String>,
    pub reference: Option<String>,
    pub node: Arc<str>,
    pub recorded_at: DateTime<Utc>,
}

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

/// Writes a batch, and whatever marks it as written, in one transaction.
///
/// # Errors
/// As any statement; then nothing of the batch was written.
pub async fn write<F>(db: &Db, batch: Vec<NewLogged>, mark: F) -> Result<(), DbError>
where
    F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<(), DbError>> + Send + 'static,
{
    let days: BTreeSet<_> = batch.iter().map(|row| row.at.date_naive()).collect();
    partitions::ensure(db, &days).await?;
    let outcome = db
        .transaction(move |conn| {
            async move {
                // The mark first: when it conflicts, the batch need not be sent.
                mark(conn).await?;
                touch(conn, &batch).await?;
                insert(conn, batch).await
            }
            .boxed()
        })
        .await;
    if let Err(DbError::Query(error)) = &outcome
        && error.to_string().contains("no partition of relation")
    {
        // Retention of another process dropped the day in between: the next try makes it again.
        partitions::forget(db);
    }
    outcome
}

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

/// How many records there are: for tests and for people, it reads them all.
///
/// # Errors
/// As any statement.
pub async fn count(conn: &mut Conn) -> Result<i64, DbError> {
    on!(conn, |c| request_logs::table.count().get_result(c).await)
}

/// Notes the hours that the scan has to look at again.
async fn touch(conn: &mut Conn, batch: &[NewLogged]) -> Result<(), DbError> {
    let mut touched = BTreeSet::new();
    for row in batch {
        let hour = row.at.duration_trunc(TimeDelta::hours(1)).unwrap_or(row.at);
        touched.insert((hour, row.node.clone(), row.recorded_at));
    }
    // Never the same again, whatever the clock says: by it the scan sees that an hour was touched anew.
    let later = match conn {
        Conn::Postgres(_) => {
            "greatest(excluded.recorded_at, touched_hours.recorded_at + interval '1 microsecond')"
        }
        Conn::Sqlite(_) => "max(excluded.recorded_at, touched_hours.recorded_at + 1)",
    };
    // In the order of the set, so that two writers never wait for each other in a circle.
    for (hour, node, recorded_at) in touched {
        let row = (
            touched_hours::hour.eq(TsValue(hour)),
            touched_hours::node.eq(node.to_string()),
            touched_hours::recorded_at.eq(TsValue(recorded_at)),
        );
        on!(conn, |c| diesel::insert_into(touched_hours::table)
            .values(row)
            .on_conflict((touched_hours::hour, touched_hours::node))
            .do_update()
            .set(touched_hours::recorded_at.eq(diesel::dsl::sql::<Ts>(later)))
            .execute(c)
            .await)?;
    }
    Ok(())
}

async fn insert(conn: &mut Conn, batch: Vec<NewLogged>) -> Result<(), DbError> {
    match conn {
        Conn::Postgres(c) => insert_postgres(c, batch).await,
        Conn::Sqlite(c) => insert_sqlite(c, batch).await,
    }
}

/// One array a column: three times as fast as many VALUES, and one plan for every size of batch.
async fn insert_postgres(
    c: &mut diesel_async::AsyncPgConnection,
    batch: Vec<NewLogged>,
) -> Result<(), DbError> {
    macro_rules! column {
        (|$row:ident| $value:expr) => {
            batch.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    diesel::sql_query(
        "insert into request_logs (at, address, method, path, status, verdict, sensitive, identity, \
         country, city, asn, user_agent, reference, node, recorded_at) \
         select * from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind::<Array<Ts>, _>(column!(|row| TsValue(row.at)))
    .bind::<Array<Addr>, _>(column!(|row| AddrValue(row.address)))
    .bind::<Array<Text>, _>(column!(|row| row.method.as_str()))
    .bind::<Array<Text>, _>(column!(|row| row.path.as_str()))
    .bind::<Array<SmallInt>, _>(column!(|row| row.status))
    .bind::<Array<Text>, _>(column!(|row| row.verdict))
    .bind::<Array<Bool>, _>(column!(|row| row.sensitive))
    .bind::<Array<Nullable<Text>>, _>(column!(|row| row.identity.as_deref()))
    .bind::<Array<Nullable<Text>>, _>(column!(|row| row.country.as_deref()))
    .bind::<Array<Nullable<Text>>, _>(column!(|row| row.city.as_deref()))
    .bind::<Array<Nullable<BigInt>>, _>(column!(|row| row.asn))
    .bind::<Array<Nullable<Text>>, _>(column!(|row| row.user_agent.as_deref()))
    .bind::<Array<Nullable<Text>>, _>(column!(|row| row.reference.as_deref()))
    .bind::<Array<Text>, _>(column!(|row| &*row.node))
    .bind::<Array<Ts>, _>(column!(|row| TsValue(row.recorded_at)))
    .execute(c)
    .await?;
    Ok(())
}

async fn insert_sqlite(
    c: &mut super::connection::SqliteConn,
    batch: Vec<NewLogged>,
) -> Result<(), DbError> {
    // 15 columns: 100 rows stay far below SQLite's 32,766 parameters, and are its fastest size.
    let mut rows = batch.into_iter().map(Row::from).peekable();
    while rows.peek().is_some() {
        let some: Vec<Row> = rows.by_ref().take(100).collect();
        insert_batch!(c, diesel::insert_into(request_logs::table).values(some))?;
    }
    Ok(())
}

#[derive(Insertable)]
#[diesel(table_name = request_logs, treat_none_as_default_value = false)]
struct Row {
    at: TsValue,
    address: AddrValue,
    method: String,
    path: String,
    status: i16,
    verdict: &'static str,
    sensitive: bool,
    identity: Option<String>,
    country: Option<String>,
    city: Option<String>,
    asn: Option<i64>,
    user_agent: Option<String>,
    reference: Option<String>,
    node: String,
    recorded_at: TsValue,
}

impl From<NewLogged> for Row {
    fn from(new: NewLogged) -> Row {
        Row {
            at: TsValue(new.at),
            address: AddrValue(new.address),
            method: new.method,
            path: new.path,
            status: new.status,
            verdict: new.verdict,
            sensitive: new.sensitive,
            identity: new.identity,
            country: new.country,
            city: new.city,
            asn: new.asn,
            user_agent: new.user_agent,
            reference: new.reference,
            node: new.node.to_string(),
            recorded_at: TsValue(new.recorded_at),
        }
    }
}
