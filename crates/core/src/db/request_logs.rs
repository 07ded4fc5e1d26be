//! `request_logs`: one row per request, refused ones included.

mod forget;
mod reading;
mod rows;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Oid};
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;

use self::forget::remembered;
pub use self::forget::{count_of, erase};
pub use self::reading::{Cursor, Filter, behind, end, page};
use self::rows::{FromStatement, Rows};
use super::schema::{request_logs, touched_hours};
use super::types::{AddrValue, Ts, TsValue};
use super::{Conn, Db, DbError, partitions};

/// PostgreSQL gives ids in blocks of so many (see `migrations`).
const BLOCK: usize = 10_000;

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

/// Writes a batch, and whatever marks it as written, in one transaction. What was to be forgotten in
/// between is left out.
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
                let batch = remembered(conn, batch).await?;
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
            .set(touched_hours::recorded_at.eq(sql::<Ts>(later)))
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

async fn insert_postgres(
    c: &mut diesel_async::AsyncPgConnection,
    batch: Vec<NewLogged>,
) -> Result<(), DbError> {
    for block in batch.chunks(BLOCK) {
        let row = sql::<Oid>("'request_log_row'::regtype::oid");
        let first_id = sql::<BigInt>("nextval('request_log_ids')");
        let (row, first_id) = diesel::select((row, first_id)).get_result(c).await?;
        diesel::sql_query(
            "insert into request_logs (id, at, address, method, path, status, verdict, sensitive, \
             identity, country, city, asn, user_agent, reference, node, recorded_at) \
             select * from unnest($1::request_log_row[])",
        )
        .bind::<FromStatement, _>(Rows::of(block, first_id, row))
        .execute(c)
        .await?;
    }
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
