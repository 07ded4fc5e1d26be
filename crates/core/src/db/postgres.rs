//! A fleet's store: a pool of connections to PostgreSQL, every wait bounded.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use deadpool::Runtime;
use diesel::ConnectionError;
use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::client::Client;
use super::connection::Conn;
use super::error::DbError;
use super::tls::Target;
use crate::config::StoreUrl;

/// Connections to one PostgreSQL.
#[derive(Clone)]
pub struct PostgresPool {
    /// Its URL without a password: whoever cannot connect wants to know where to.
    name: Arc<str>,
    target: Arc<Target>,
    pool: Pool<AsyncPgConnection>,
    limit: Duration,
    known_days: Arc<Mutex<HashSet<NaiveDate>>>,
    /// Made when it is first used.
    client: Arc<tokio::sync::Mutex<Option<Client>>>,
    /// Whether transactions are rolled back at their end.
    pub(super) rehearsal: bool,
}

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A frozen server would otherwise hold a caller for as long as it is frozen.
const CALL_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const LATE: &str = "no connection could be had in time";
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// What every connection is told about how long the server may keep it waiting; a call that is given
/// longer than [`CALL_LIMIT`] says so itself.
///
/// Told, and no parameter of its start: PgBouncer refuses clients that start with `options`.
const SETTINGS: &str = "set statement_timeout = '30s'; set lock_timeout = '5s'; \
    set idle_in_transaction_session_timeout = '30s'; set timezone = 'UTC'; set jit = off";
const USUAL_LIMIT: &str = "set statement_timeout = '30s'";

impl PostgresPool {
    /// Of so many connections, one of them the [`Client`].
    pub(super) fn new(url: &str, max_connections: usize) -> Result<PostgresPool, DbError> {
        let target = Arc::new(Target::parse(url)?);
        let pool = pool_of(&target, max_connections.saturating_sub(1).max(1))?;
        let name = StoreUrl::Postgres(url.to_owned()).to_string().into();
        let known_days = Arc::default();
        Ok(PostgresPool {
            name,
            target,
            pool,
            limit: CALL_LIMIT,
            known_days,
            client: Arc::default(),
            rehearsal: false,
        })
    }

    /// The same server by a connection of its own, made when it is first used: those of the pool may
    /// lead nowhere.
    pub(super) fn apart(&self) -> Result<PostgresPool, DbError> {
        let pool = pool_of(&self.target, 1)?;
        Ok(PostgresPool { pool, client: Arc::default(), ..self.clone() })
    }

    pub(super) fn with_timeout(&self, limit: Duration) -> PostgresPool {
        PostgresPool { limit, ..self.clone() }
    }

    pub(super) fn rehearsal(&self) -> PostgresPool {
        PostgresPool { rehearsal: true, ..self.clone() }
    }

    /// The days of the log that are known to have a partition.
    pub(super) fn known_days(&self) -> &Mutex<HashSet<NaiveDate>> {
        &self.known_days
    }

    /// A connection that is not the pool's: what it holds ends with it.
    pub(super) async fn dedicated(&self) -> Result<AsyncPgConnection, DbError> {
        // A frozen server lets itself be connected to.
        let connected = tokio::time::timeout(CONNECT_LIMIT, connect(&self.target)).await;
        let connected = connected.map_err(|_| self.unreachable(&LATE))?;
        connected.map_err(|error| self.unreachable(&error))
    }

    /// Runs a body in one transaction of a [`Client`], as [`Db::transaction`](super::Db::transaction) does
    /// of a [`Conn`]. There is one such client: bodies take turns.
    pub(super) async fn copying<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c Client) -> BoxFuture<'c, Result<T, DbError>> + Send,
    {
        let turn = tokio::time::timeout(self.limit, self.client.lock()).await;
        let mut kept = turn.map_err(|_| self.unreachable(&LATE))?;
        // Not kept while it is at work: whoever gives up in between ends it.
        let client = match kept.take() {
            Some(client) => {
                match tokio::time::timeout(CONNECT_LIMIT, client.batch("begin")).await {
                    Ok(Ok(())) => client,
                    Ok(Err(_)) | Err(_) => {
                        // It may have led nowhere for long.
                        drop(client);
                        self.client().await?
                    }
                }
            }
            None => self.client().await?,
        };
        let mut committing = false;
        let outcome = tokio::time::timeout(self.limit, async {
            let value = body(&client).await?;
            committing = !self.rehearsal;
            client.batch(if self.rehearsal { "rollback" } else { "commit" }).await?;
            Ok(value)
        })
        .await
        .unwrap_or(Err(DbError::Timeout(self.limit)));
        match outcome {
            Ok(value) => {
                *kept = Some(client);
                Ok(value)
            }
            Err(error @ (DbError::Query(_) | DbError::Conflict(_))) => {
                let rolled_back = tokio::time::timeout(LOOK_LIMIT, client.batch("rollback")).await;
                *kept = matches!(rolled_back, Ok(Ok(()))).then_some(client);
                Err(error)
            }
            Err(error) if committing => Err(error.unconfirmed()),
            Err(error) => Err(error),
        }
    }

    /// A new one, in a transaction.
    async fn client(&self) -> Result<Client, DbError> {
        let connected = tokio::time::timeout(CONNECT_LIMIT, async {
            let dialled = dial(&self.target).await;
            let (client, connection) = dialled.map_err(|error| self.unreachable(&chain(&error)))?;
            let client = Client::new(client, tokio::spawn(connection).abort_handle());
            client.batch(SETTINGS).await?;
            client.batch("begin").await?;
            Ok(client)
        });
        connected.await.map_err(|_| self.unreachable(&LATE))?
    }

    pub(super) async fn run<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send,
    {
        let given_up = |_| DbError::Timeout(self.limit);
        let lent = tokio::time::timeout(self.limit, self.lend()).await;
        let mut conn = lent.map_err(|_| self.unreachable(&LATE))??;
        let outcome = tokio::time::timeout(self.limit, async {
            if self.limit <= CALL_LIMIT {
                return body(&mut conn).await;
            }
            let limit = self.limit.as_millis();
            conn.batch(&format!("set statement_timeout = {limit}")).await?;
            let outcome = body(&mut conn).await;
            let reset = conn.batch(USUAL_LIMIT).await;
            outcome.and_then(|value| reset.map(|()| value))
        })
        .await;
        match outcome {
            Ok(Err(DbError::Query(error))) => Err(look_closer(&mut conn, error).await),
            Ok(Err(error @ DbError::Hindered(_))) => {
                // The next connection may reach a server that is better off.
                discard(conn);
                Err(error)
            }
            Ok(outcome) => outcome,
            Err(elapsed) => {
                // Its statement may still run, and would keep the next caller waiting.
                discard(conn);
                Err(given_up(elapsed))
            }
        }
    }

    async fn lend(&self) -> Result<Conn, DbError> {
        let lent = self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(_) => self.unreachable(&LATE),
            PoolError::Backend(cause) => self.unreachable(&cause),
            other => self.unreachable(&other),
        });
        lent.map(Conn::Postgres)
    }

    fn unreachable(&self, why: &dyn Display) -> DbError {
        DbError::Unreachable(format!("{}: {why}", self.name))
    }
}

fn discard(conn: Conn) {
    if let Conn::Postgres(abandoned) = conn {
        drop(Object::take(abandoned));
    }
}

/// A connection that ended with its last answer says that the server is away, whatever it answered and
/// in whatever language.
async fn look_closer(conn: &mut Conn, error: diesel::result::Error) -> DbError {
    use diesel::result::{DatabaseErrorKind, Error};
    let Error::DatabaseError(DatabaseErrorKind::Unknown, cause) = &error else {
        return DbError::Query(error);
    };
    match tokio::time::timeout(LOOK_LIMIT, conn.batch("")).await {
        Ok(Ok(()) | Err(DbError::Query(_))) => DbError::Query(error),
        Ok(Err(_)) | Err(_) => DbError::Unreachable(cause.message().to_owned()),
    }
}

fn pool_of(
    target: &Arc<Target>,
    max_connections: usize,
) -> Result<Pool<AsyncPgConnection>, DbError> {
    let mut config = ManagerConfig::default();
    let target = target.clone();
    config.custom_setup = Box::new(move |_| {
        let target = target.clone();
        async move { connect(&target).await }.boxed()
    });
    // The URL is only handed to the set-up, which has its own.
    let manager = AsyncDieselConnectionManager::new_with_config("", config);
    Pool::builder(manager)
        .max_size(max_connections)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CALL_LIMIT))
        .create_timeout(Some(CONNECT_LIMIT))
        .recycle_timeout(Some(CONNECT_LIMIT))
        .build()
        .map_err(|error| DbError::Url(error.to_string()))
}

async fn dial(
    target: &Target,
) -> Result<(tokio_postgres::Client, Connection<Socket, Stream>), tokio_postgres::Error> {
    let mut config = target.config.clone();
    config.connect_timeout(CONNECT_LIMIT);
    config.keepalives_idle(Duration::from_secs(15)).tcp_user_timeout(CALL_LIMIT);
    if config.get_application_name().is_none() {
        config.application_name("ipwarden");
    }
    config.connect(target.tls.clone()).await
}

async fn connect(target: &Target) -> diesel::ConnectionResult<AsyncPgConnection> {
    let (client, connection) =
        dial(target).await.map_err(|error| ConnectionError::BadConnection(chain(&error)))?;
    let mut connection =
        AsyncPgConnection::try_from_client_and_connection(client, connection).await?;
    let told = connection.batch_execute(SETTINGS).await;
    told.map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

/// tokio-postgres says "error connecting to server" and keeps the reason in its source; what PostgreSQL
/// adds as a detail or a hint stands on a line of its own, and a log has one line for an event.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.lines().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Db;

    #[tokio::test]
    async fn the_server_gives_a_call_as_long_as_its_caller_does() {
        let database = ipwarden_testbed::postgres_database().unwrap();
        let db = Db::postgres(database.url(), 1).unwrap();
        let expect = async |db: &Db, limit: &str| {
            let check = format!(
                "do $$ begin assert current_setting('statement_timeout') = '{limit}', \
                 current_setting('statement_timeout'); end $$"
            );
            db.run(move |conn| async move { conn.batch(&check).await }.boxed()).await.unwrap();
        };
        expect(&db, "30s").await;
        expect(&db.with_timeout(Duration::from_secs(240)), "4min").await;
        expect(&db, "30s").await;
    }

    #[tokio::test]
    async fn a_server_that_ends_a_connection_is_away_whatever_it_says() {
        let database = ipwarden_testbed::postgres_database().unwrap();
        let db = Db::postgres(database.url(), 1).unwrap();
        // As a statement of the connection itself, its last answer comes without a code of ours.
        let ended = "do $$ begin perform pg_terminate_backend(pg_backend_pid()); end $$";
        let outcome = db.run(move |conn| conn.batch(ended).boxed()).await;
        assert!(matches!(outcome, Err(DbError::Unreachable(_))), "{outcome:?}");
        // A refusal alone is none of it.
        let refused = "do $$ begin raise exception 'on purpose'; end $$";
        let outcome = db.run(move |conn| conn.batch(refused).boxed()).await;
        assert!(matches!(outcome, Err(DbError::Query(_))), "{outcome:?}");
        db.run(|conn| conn.batch("select 1").boxed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_may_only_be_read_is_hindered_and_asked_on_a_new_connection() {
        let database = ipwarden_testbed::postgres_database().unwrap();
        let db = Db::postgres(database.url(), 1).unwrap();
        let read_only = "set default_transaction_read_only = on";
        db.run(move |conn| conn.batch(read_only).boxed()).await.unwrap();
        let outcome = db.run(|conn| conn.batch("create table t (n int)").boxed()).await;
        assert!(matches!(outcome, Err(DbError::Hindered(_))), "{outcome:?}");
        db.run(|conn| conn.batch("create table t (n int)").boxed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_commit_that_nobody_confirms_is_said_to_be_one() {
        let database = ipwarden_testbed::postgres_database().unwrap();
        let db = Db::postgres(database.url(), 2).unwrap();
        // Deferred to the commit, and then the server ends.
        let dying = "create table t (n int); \
            create function die() returns trigger language plpgsql as \
            $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$; \
            create constraint trigger dies after insert on t deferrable initially deferred \
            for each row execute function die()";
        db.run(move |conn| conn.batch(dying).boxed()).await.unwrap();
        let outcome = db
            .transaction(|conn| async { conn.batch("insert into t values (1)").await }.boxed())
            .await;
        assert!(matches!(outcome, Err(DbError::Unconfirmed(_))), "{outcome:?}");
        let outcome = db
            .transaction(|conn| {
                let ended = "do $$ begin perform pg_terminate_backend(pg_backend_pid()); end $$";
                async move { conn.batch(ended).await }.boxed()
            })
            .await;
        assert!(matches!(outcome, Err(DbError::Unreachable(_))), "before its commit: {outcome:?}");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_statement_that_its_caller_gave_up() {
        let database = ipwarden_testbed::postgres_database().unwrap();
        let db = Db::postgres(database.url(), 1).unwrap();
        let hasty = db.with_timeout(Duration::from_millis(100));
        let outcome =
            hasty.run(|conn| async { conn.batch("select pg_sleep(2)").await }.boxed()).await;
        assert!(matches!(outcome, Err(DbError::Timeout(_))), "{outcome:?}");
        let next = db.with_timeout(Duration::from_millis(1_500));
        next.run(|conn| async { conn.batch("select 1").await }.boxed()).await.unwrap();
    }
}
