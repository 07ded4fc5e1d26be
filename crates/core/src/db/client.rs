//! A client of tokio-postgres by itself, for what diesel-async cannot say: `COPY`.
//!
//! The client inside a pooled connection cannot be borrowed, and a transaction has one connection: so one
//! that copies has all its statements here, in SQL.

use std::error::Error as _;
use std::io::Cursor;

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use futures_util::SinkExt;
use tokio::task::AbortHandle;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CopyInSink, Row};

use super::error::DbError;
use super::postgres::chain;

/// A connection to PostgreSQL; it ends when this is dropped, and so does what was not committed.
pub struct Client {
    client: tokio_postgres::Client,
    connection: AbortHandle,
}

/// `$1`, and what it is.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Drop for Client {
    fn drop(&mut self) {
        // By itself it would end only when all that was asked has been answered.
        self.connection.abort();
    }
}

impl Client {
    /// `connection` is the task that moves what this says and hears.
    pub(super) fn new(client: tokio_postgres::Client, connection: AbortHandle) -> Client {
        Client { client, connection }
    }

    /// Runs SQL without parameters or rows.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), DbError> {
        self.client.batch_execute(sql).await.map_err(said)
    }

    /// Runs one statement; returns how many rows it changed.
    pub(super) async fn change(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, DbError> {
        self.client.execute_typed(sql, parameters).await.map_err(said)
    }

    /// Asks one question.
    pub(super) async fn rows(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DbError> {
        self.client.query_typed(sql, parameters).await.map_err(said)
    }

    /// Runs a `COPY .. FROM STDIN` with these bytes.
    pub(super) async fn copy_in(
        &self,
        sql: &str,
        pieces: impl Iterator<Item = Vec<u8>>,
    ) -> Result<(), DbError> {
        let sink: CopyInSink<Cursor<Vec<u8>>> = self.client.copy_in(sql).await.map_err(said)?;
        let mut sink = std::pin::pin!(sink);
        for piece in pieces {
            sink.feed(Cursor::new(piece)).await.map_err(said)?;
        }
        sink.finish().await.map(drop).map_err(said)
    }
}

/// What an error means, by its SQLSTATE, which does not depend on the server's language. See "PostgreSQL
/// Error Codes" in its documentation.
fn said(error: tokio_postgres::Error) -> DbError {
    let refused = |kind, text| DbError::from(DieselError::DatabaseError(kind, Box::new(text)));
    let Some(answer) = error.as_db_error() else {
        let is_io = error.source().is_some_and(|cause| cause.is::<std::io::Error>());
        return match error.is_closed() || is_io {
            true => DbError::Unreachable(chain(&error)),
            false => refused(DatabaseErrorKind::Unknown, chain(&error)),
        };
    };
    let message = answer.message().to_owned();
    if let Some(Severity::Fatal | Severity::Panic) = answer.parsed_severity() {
        // The connection ended with it.
        return DbError::Unreachable(message);
    }
    let hindered = [
        &SqlState::QUERY_CANCELED,
        &SqlState::LOCK_NOT_AVAILABLE,
        &SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    match answer.code().code().get(..2) {
        // Transactions that were rolled back for others' sake, and resources.
        Some("40" | "53") => DbError::Hindered(message),
        _ if hindered.contains(&answer.code()) => DbError::Hindered(message),
        _ if answer.code() == &SqlState::CHECK_VIOLATION => {
            refused(DatabaseErrorKind::CheckViolation, message)
        }
        // Some have no code of their own, such as a quota of the disk.
        _ => refused(DatabaseErrorKind::Unknown, message),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::pending;

    use super::*;
    use crate::db::Db;
    use crate::db::postgres::PostgresPool;

    const ENDED: &str = "do $$ begin perform pg_terminate_backend(pg_backend_pid()); end $$";

    fn pool(database: &ipwarden_testbed::TestDatabase) -> PostgresPool {
        match Db::postgres(database.url(), 1).expect("its URL is one") {
            Db::Postgres(pool) => pool,
            Db::Sqlite(_) => unreachable!("it is PostgreSQL's"),
        }
    }

    async fn run(pool: &PostgresPool, sql: &str) -> Result<(), DbError> {
        let sql = sql.to_owned();
        pool.copying(|client| async move { client.batch(&sql).await }.boxed()).await
    }

    async fn count(pool: &PostgresPool) -> i64 {
        let sql = "select count(*) from t";
        let counted = pool.copying(|client| async { client.rows(sql, &[]).await }.boxed()).await;
        counted.expect("there is a table")[0].get(0)
    }

    #[tokio::test]
    async fn an_error_means_what_its_code_says_whatever_its_text() {
        let database = ipwarden_testbed::postgres_database().expect("PostgreSQL runs");
        let pool = pool(&database);
        let raised = async |code: &str| {
            let sql = format!("do $$ begin raise 'nein' using errcode = '{code}'; end $$");
            run(&pool, &sql).await.expect_err("it was raised")
        };
        for code in ["25006", "40001", "40P01", "53100", "53200", "55P03", "57014"] {
            let error = raised(code).await;
            assert!(matches!(error, DbError::Hindered(_)), "{code}: {error:?}");
        }
        for code in ["22021", "23514", "42P01", "58030", "P0001"] {
            let error = raised(code).await;
            assert!(matches!(error, DbError::Query(_)), "{code}: {error:?}");
            assert!(error.to_string().contains("nein"), "{error}");
        }
        let quota = "do $$ begin raise 'Disk quota exceeded' using errcode = 'XX000'; end $$";
        let error = run(&pool, quota).await.expect_err("it was raised");
        assert!(matches!(error, DbError::Hindered(_)), "{error:?}");
        let error = run(&pool, ENDED).await.expect_err("the server ended it");
        assert!(matches!(error, DbError::Unreachable(_)), "{error:?}");
        run(&pool, "select 1").await.expect("the next has a new connection");
    }

    #[tokio::test]
    async fn a_connection_is_kept_until_it_is_of_no_use() {
        let database = ipwarden_testbed::postgres_database().expect("PostgreSQL runs");
        let pool = pool(&database);
        let backend = async || {
            let asked = pool.copying(|client| {
                async { client.rows("select pg_backend_pid()", &[]).await }.boxed()
            });
            asked.await.expect("the server answers")[0].get::<_, i32>(0)
        };
        let first = backend().await;
        run(&pool, "do $$ begin raise 'no'; end $$").await.expect_err("it was raised");
        assert_eq!(backend().await, first, "a refusal is no reason for another");
        let end = format!("select pg_terminate_backend({first}, 5000)");
        let db = Db::Postgres(pool.clone());
        db.run(move |conn| async move { conn.batch(&end).await }.boxed()).await.expect("it ends");
        assert_ne!(backend().await, first);
    }

    #[tokio::test]
    async fn a_transaction_stays_only_if_it_came_to_its_end() {
        let database = ipwarden_testbed::postgres_database().expect("PostgreSQL runs");
        let pool = pool(&database);
        run(&pool, "create table t (n int primary key)").await.expect("nobody else has one");
        let sql = "insert into t values (1)";
        run(&pool.rehearsal(), sql).await.expect("it would have been");
        let gives_up = pool.with_timeout(Duration::from_millis(300));
        let outcome = gives_up
            .copying(|client| {
                async {
                    client.batch(sql).await?;
                    pending::<Result<(), DbError>>().await
                }
                .boxed()
            })
            .await;
        assert!(matches!(outcome, Err(DbError::Timeout(_))), "{outcome:?}");
        // In the midst of a copy as well.
        let outcome = gives_up
            .copying(|client| {
                let endless = std::iter::repeat_with(|| b"1\n".repeat(100_000));
                client.copy_in("copy t from stdin", endless).boxed()
            })
            .await;
        assert!(matches!(outcome, Err(DbError::Timeout(_))), "{outcome:?}");
        let cut_off = format!("{sql}; {ENDED}");
        let outcome = run(&pool, &cut_off).await;
        assert!(matches!(outcome, Err(DbError::Unreachable(_))), "{outcome:?}");
        assert_eq!(count(&pool).await, 0);
        run(&pool, sql).await.expect("nothing is in the way");
        assert_eq!(count(&pool).await, 1);
    }

    #[tokio::test]
    async fn a_commit_that_nobody_confirms_is_said_to_be_one() {
        let database = ipwarden_testbed::postgres_database().expect("PostgreSQL runs");
        let pool = pool(&database);
        // Deferred to the commit, and then the server ends.
        let dying = "create table t (n int); \
            create function die() returns trigger language plpgsql as \
            $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$; \
            create constraint trigger dies after insert on t deferrable initially deferred \
            for each row execute function die()";
        run(&pool, dying).await.expect("nobody else has these");
        let outcome = run(&pool, "insert into t values (1)").await;
        assert!(matches!(outcome, Err(DbError::Unconfirmed(_))), "{outcome:?}");
    }

    #[tokio::test]
    async fn what_the_server_refuses_of_a_copy_is_told_and_nothing_of_it_stays() {
        let database = ipwarden_testbed::postgres_database().expect("PostgreSQL runs");
        let pool = pool(&database);
        run(&pool, "create table t (n int check (n < 3))").await.expect("nobody else has one");
        let copy = async |rows: Vec<&'static str>| {
            let rows = rows.into_iter().map(|row| row.as_bytes().to_vec());
            let rows = rows.collect::<Vec<_>>().into_iter();
            pool.copying(|client| client.copy_in("copy t from stdin", rows).boxed()).await
        };
        copy(vec!["1\n", "2\n"]).await.expect("both are below 3");
        let refused = copy(vec!["0\n", "3\n"]).await;
        assert!(matches!(refused, Err(DbError::Query(_))), "{refused:?}");
        let garbled = copy(vec!["0\n", "x\n"]).await;
        assert!(matches!(garbled, Err(DbError::Query(_))), "{garbled:?}");
        assert_eq!(count(&pool).await, 2);
    }
}
