//! `request_logs`: one row per request, refused ones included.

mod copying;
mod forget;
mod inserting;
mod reading;
mod rows;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::Serialize;
use tokio::sync::oneshot;

pub use self::forget::{count_of, erase};
pub use self::reading::{Cursor, Filter, behind, end, page};
use super::schema::request_logs;
use super::types::{AddrValue, TsValue};
use super::{Client, Conn, Db, DbError, partitions};

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

/// What marks a batch as written, in the transaction that writes it: how far that has come which it was
/// read from. The first thing there, so that a batch is not sent when its mark conflicts.
pub trait Marking: Send + 'static {
    /// What the store says to it.
    type Told: Send + 'static;

    /// Sets it in SQLite.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the batch is somebody else's to write, and as any statement.
    fn insert<'c>(&'c self, conn: &'c mut Conn) -> BoxFuture<'c, Result<Self::Told, DbError>>;

    /// Sets it in PostgreSQL, where the batch is copied.
    ///
    /// # Errors
    /// The same.
    fn copy<'c>(&'c self, client: &'c Client) -> BoxFuture<'c, Result<Self::Told, DbError>>;
}

/// None: for the batches of tests, which nobody would write again.
impl Marking for () {
    type Told = ();

    fn insert<'c>(&'c self, _: &'c mut Conn) -> BoxFuture<'c, Result<(), DbError>> {
        ready(Ok(())).boxed()
    }

    fn copy<'c>(&'c self, _: &'c Client) -> BoxFuture<'c, Result<(), DbError>> {
        ready(Ok(())).boxed()
    }
}

/// Writes a batch, and what marks it as written, in one transaction. What was to be forgotten in between
/// is left out.
///
/// # Errors
/// As any statement; then nothing of the batch was written, but with [`DbError::Unconfirmed`].
pub async fn write<M: Marking>(
    db: &Db,
    batch: Vec<NewLogged>,
    mark: M,
) -> Result<M::Told, DbError> {
    let (under_way, _) = oneshot::channel();
    write_telling(db, batch, mark, under_way).await
}

/// Is dropped when a store that is asked for nothing else takes in a batch, or will not get it: from then on
/// whoever writes it waits, and has the time to prepare the next. Before, each moment that it is late is
/// one in which the store does nothing.
pub type UnderWay = oneshot::Sender<()>;

/// The same as [`write()`], and tells when the batch is [`UnderWay`].
///
/// # Errors
/// As [`write()`].
pub async fn write_telling<M: Marking>(
    db: &Db,
    batch: Vec<NewLogged>,
    mark: M,
    under_way: UnderWay,
) -> Result<M::Told, DbError> {
    let days: BTreeSet<_> = by_hour(&batch).map(|rows| rows[0].at.date_naive()).collect();
    partitions::ensure(db, &days).await?;
    let outcome = match db {
        Db::Postgres(pool) => copying::write(pool, batch, mark, under_way).await,
        Db::Sqlite(_) => {
            // It writes on a thread of its own.
            drop(under_way);
            inserting::write(db, batch, mark).await
        }
    };
    if let Err(DbError::Query(DieselError::DatabaseError(DatabaseErrorKind::CheckViolation, _))) =
        &outcome
    {
        // Such is a row without a partition, too: retention of another process may have dropped the day in
        // between. The next try makes it again.
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

/// The hours that the scan has to look at again, of which node, and since when. In an order, so that two
/// writers never wait for each other in a circle.
fn touched(batch: &[NewLogged]) -> BTreeSet<(DateTime<Utc>, Arc<str>, DateTime<Utc>)> {
    let start = |row: &NewLogged| DateTime::from_timestamp(hour(row) * 3_600, 0).unwrap_or(row.at);
    let first = |rows: &[NewLogged]| (start(&rows[0]), rows[0].node.clone(), rows[0].recorded_at);
    by_hour(batch).map(first).collect()
}

/// Hours since the Unix epoch.
fn hour(row: &NewLogged) -> i64 {
    row.at.timestamp().div_euclid(3_600)
}

/// Neighbours of one hour and node, recorded at once, together: records come in about the order of time.
fn by_hour(batch: &[NewLogged]) -> impl Iterator<Item = &[NewLogged]> {
    batch.chunk_by(|row, next| {
        hour(row) == hour(next) && row.node == next.node && row.recorded_at == next.recorded_at
    })
}
