//! One store, two databases: [`Db`] lends a [`Conn`] to a body of statements.
//!
//! A body awaits nothing but its connection. On PostgreSQL it runs where it was called, under a
//! timeout; on SQLite it runs whole on a blocking thread, so that a caller who gives up never leaves
//! a thread waiting inside a worker (the stock wrapper of diesel-async does, and panics there).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::error::DbError;
use super::postgres::PostgresPool;
use super::sqlite::{Create, SqlitePool};
use super::types::{Ts, TsValue};

/// A SQLite connection whose statements run on the calling thread.
pub(crate) type SqliteConn = SyncConnectionWrapper<diesel::SqliteConnection, Inline>;

/// The store. Cheap to clone.
#[derive(Clone)]
pub enum Db {
    /// A fleet's PostgreSQL.
    Postgres(PostgresPool),
    /// The embedded SQLite file.
    Sqlite(SqlitePool),
}

/// A connection lent to a body of statements.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack of one call")]
pub enum Conn {
    /// Out of the pool, and back into it when dropped.
    Postgres(Object<AsyncPgConnection>),
    /// Only ever on a blocking thread.
    Sqlite(SqliteConn),
}

impl Db {
    /// Opens the SQLite file at `path`.
    ///
    /// # Errors
    /// [`DbError::Missing`] when there is none and `create` forbids making one.
    pub async fn open_sqlite(path: &Path, create: Create) -> Result<Db, DbError> {
        Ok(Db::Sqlite(SqlitePool::open(path, create).await?))
    }

    /// Prepares for the PostgreSQL at `url` so many connections, one of them for the log's batches, but a
    /// pool of at least one besides; connects when they are first used.
    ///
    /// # Errors
    /// [`DbError::Url`] when the URL or its certificates cannot be read.
    pub fn postgres(url: &str, max_connections: usize) -> Result<Db, DbError> {
        Ok(Db::Postgres(PostgresPool::new(url, max_connections)?))
    }

    /// The same store with another limit for one call, for work that is known to take long.
    pub fn with_timeout(&self, limit: Duration) -> Db {
        match self {
            Db::Postgres(pool) => Db::Postgres(pool.with_timeout(limit)),
            Db::Sqlite(pool) => Db::Sqlite(pool.clone()),
        }
    }

    /// The same store, every transaction of which is rolled back at its end although it succeeds: what a
    /// change would do is told by doing it, and nothing of it stays.
    #[must_use]
    pub fn rehearsal(&self) -> Db {
        match self {
            Db::Postgres(pool) => Db::Postgres(pool.rehearsal()),
            Db::Sqlite(pool) => Db::Sqlite(pool.rehearsal()),
        }
    }

    /// Whether this is a [`Db::rehearsal`].
    pub fn is_rehearsal(&self) -> bool {
        match self {
            Db::Postgres(pool) => pool.rehearsal,
            Db::Sqlite(pool) => pool.rehearsal,
        }
    }

    /// The same store by a connection that nobody used before: those that there are may lead nowhere,
    /// without anybody saying so. A file is always where it is.
    ///
    /// # Errors
    /// None that this store did not have when it was opened.
    pub(crate) fn apart(&self) -> Result<Db, DbError> {
        Ok(match self {
            Db::Postgres(pool) => Db::Postgres(pool.apart()?),
            Db::Sqlite(pool) => Db::Sqlite(pool.clone()),
        })
    }

    /// Whether this is the embedded store.
    pub fn is_sqlite(&self) -> bool {
        matches!(self, Db::Sqlite(_))
    }

    /// Runs a body of statements outside any transaction.
    ///
    /// # Errors
    /// The body's, or [`DbError::Unreachable`] and [`DbError::Timeout`].
    pub async fn run<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
        T: Send + 'static,
    {
        match self {
            Db::Postgres(pool) => pool.run(body).await,
            Db::Sqlite(pool) => pool.run(body).await,
        }
    }

    /// Runs a body in one transaction: committed when it returns `Ok`, rolled back otherwise.
    ///
    /// On SQLite the transaction is immediate: a deferred one that reads and then writes fails with
    /// "database is locked" beside another writer, whatever the busy timeout.
    ///
    /// # Errors
    /// As [`Db::run`], and [`DbError::Unconfirmed`] when nobody can tell whether it was committed; with
    /// every other error it was not.
    pub async fn transaction<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
        T: Send + 'static,
    {
        let committing = Arc::new(AtomicBool::new(false));
        let body = transactional(body, Kind::Write, self.is_rehearsal(), committing.clone());
        let outcome = match self {
            Db::Postgres(pool) => pool.run(body).await,
            Db::Sqlite(pool) => pool.write(body).await,
        };
        outcome.map_err(|error| match AtomicBool::load(&committing, Ordering::Relaxed) {
            true => error.unconfirmed(),
            false => error,
        })
    }

    /// Sees to it that nothing of what was deleted stays in the files of an embedded store. PostgreSQL
    /// cleans up behind itself (`autovacuum`).
    ///
    /// # Errors
    /// [`DbError::Hindered`] when others go on reading what was there before.
    pub async fn wipe(&self) -> Result<(), DbError> {
        match self {
            Db::Postgres(_) => Ok(()),
            Db::Sqlite(pool) => pool.empty_log().await,
        }
    }

    /// Runs a body of questions that all see the store as it was at one instant. Nobody waits for it.
    ///
    /// # Errors
    /// As [`Db::run`].
    pub async fn snapshot<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
        T: Send + 'static,
    {
        self.run(transactional(body, Kind::Snapshot, true, Arc::default())).await
    }

    /// The store's clock: PostgreSQL's own, or `now` when the store is a file of this machine.
    ///
    /// # Errors
    /// As [`Db::run`].
    pub async fn clock(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, DbError> {
        match self {
            Db::Postgres(_) => self.run(move |conn| conn.clock(now).boxed()).await,
            Db::Sqlite(_) => Ok(now),
        }
    }
}

impl Conn {
    /// The store's clock, as [`Db::clock`], inside a body.
    ///
    /// # Errors
    /// As any statement.
    pub async fn clock(&mut self, now: DateTime<Utc>) -> Result<DateTime<Utc>, DbError> {
        match self {
            Conn::Postgres(c) => {
                let clock = diesel::select(diesel::dsl::sql::<Ts>("clock_timestamp()"));
                Ok(clock.get_result::<TsValue>(c).await?.0)
            }
            Conn::Sqlite(_) => Ok(now),
        }
    }

    /// Runs SQL without parameters or rows.
    pub(crate) async fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        on!(self, |c| c.batch_execute(sql).await)
    }
}

/// What a transaction is for.
#[derive(Clone, Copy)]
enum Kind {
    Write,
    Snapshot,
}

/// `committing` says from when on the outcome is the store's to know.
fn transactional<T, F>(
    body: F,
    kind: Kind,
    is_rehearsal: bool,
    committing: Arc<AtomicBool>,
) -> impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static
where
    F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
    T: Send + 'static,
{
    move |conn| {
        async move {
            begin(conn, kind).await?;
            match body(conn).await {
                Ok(value) if is_rehearsal => {
                    roll_back(conn).await?;
                    Ok(value)
                }
                Ok(value) => {
                    committing.store(true, Ordering::Relaxed);
                    commit(conn).await?;
                    Ok(value)
                }
                Err(error) => {
                    // The first error is the one to report; a connection that cannot roll back is
                    // found broken and thrown away by its pool.
                    let _ = roll_back(conn).await;
                    Err(error)
                }
            }
        }
        .boxed()
    }
}

async fn begin(conn: &mut Conn, kind: Kind) -> Result<(), DbError> {
    match (conn, kind) {
        (Conn::Postgres(c), Kind::Write) => Ok(PgTransactions::begin_transaction(&mut **c).await?),
        (Conn::Postgres(c), Kind::Snapshot) => {
            let begin = "begin isolation level repeatable read, read only";
            Ok(PgTransactions::begin_transaction_sql(&mut **c, begin).await?)
        }
        (Conn::Sqlite(c), Kind::Write) => Ok(c.batch_execute("BEGIN IMMEDIATE").await?),
        (Conn::Sqlite(c), Kind::Snapshot) => Ok(c.batch_execute("BEGIN").await?),
    }
}

async fn commit(conn: &mut Conn) -> Result<(), DbError> {
    match conn {
        Conn::Postgres(c) => Ok(PgTransactions::commit_transaction(&mut **c).await?),
        Conn::Sqlite(c) => match c.batch_execute("COMMIT").await {
            Ok(()) => Ok(()),
            Err(error) => {
                let _ = c.batch_execute("ROLLBACK").await;
                Err(error.into())
            }
        },
    }
}

async fn roll_back(conn: &mut Conn) -> Result<(), DbError> {
    match conn {
        Conn::Postgres(c) => Ok(PgTransactions::rollback_transaction(&mut **c).await?),
        Conn::Sqlite(c) => Ok(c.batch_execute("ROLLBACK").await?),
    }
}

type PgTransactions = <AsyncPgConnection as diesel_async::AsyncConnection>::TransactionManager;

/// Runs the "blocking" task of the wrapper at once, where it is: the whole body already is on a
/// blocking thread.
pub struct Inline;

impl SpawnBlocking for Inline {
    fn spawn_blocking<'a, R>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn std::error::Error + Send + Sync + 'static>>>
    where
        R: Send + 'static,
    {
        futures_util::future::ready(Ok(task())).boxed()
    }

    fn get_runtime() -> Self {
        Inline
    }
}
