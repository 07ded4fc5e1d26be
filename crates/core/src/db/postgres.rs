//! A fleet's store: a pool of connections to PostgreSQL, every wait bounded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use deadpool::Runtime;
use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::connection::Conn;
use super::error::DbError;
use super::tls::Target;

/// Connections to one PostgreSQL.
#[derive(Clone)]
pub struct PostgresPool {
    target: Arc<Target>,
    pool: Pool<AsyncPgConnection>,
    limit: Duration,
    known_days: Arc<Mutex<HashSet<NaiveDate>>>,
}

/// A frozen server would otherwise hold a caller for as long as it is frozen.
const CALL_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// What every connection is told about how long the server may keep it waiting; a call that is given
/// longer than [`CALL_LIMIT`] says so itself.
const SETTINGS: &str = "-c statement_timeout=30s -c lock_timeout=5s \
    -c idle_in_transaction_session_timeout=30s -c timezone=UTC -c jit=off";

impl PostgresPool {
    pub(super) fn new(url: &str, max_connections: usize) -> Result<PostgresPool, DbError> {
        let target = Arc::new(Target::parse(url)?);
        let mut config = ManagerConfig::default();
        let of_pool = target.clone();
        config.custom_setup = Box::new(move |_| {
            let target = of_pool.clone();
            async move { connect(&target).await }.boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let pool = Pool::builder(manager)
            .max_size(max_connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CALL_LIMIT))
            .create_timeout(Some(CONNECT_LIMIT))
            .recycle_timeout(Some(CONNECT_LIMIT))
            .build()
            .map_err(|error| DbError::Url(error.to_string()))?;
        Ok(PostgresPool { target, pool, limit: CALL_LIMIT, known_days: Arc::default() })
    }

    pub(super) fn with_timeout(&self, limit: Duration) -> PostgresPool {
        PostgresPool { limit, ..self.clone() }
    }

    /// The days of the log that are known to have a partition.
    pub(super) fn known_days(&self) -> &Mutex<HashSet<NaiveDate>> {
        &self.known_days
    }

    /// A connection that is not the pool's: what it holds ends with it.
    pub(super) async fn dedicated(&self) -> Result<AsyncPgConnection, DbError> {
        connect(&self.target).await.map_err(|error| DbError::Unreachable(error.to_string()))
    }

    pub(super) async fn run<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send,
    {
        let given_up = |_| DbError::Timeout(self.limit);
        let mut conn = tokio::time::timeout(self.limit, self.lend()).await.map_err(given_up)??;
        let outcome = tokio::time::timeout(self.limit, async {
            if self.limit <= CALL_LIMIT {
                return body(&mut conn).await;
            }
            let limit = self.limit.as_millis();
            conn.batch(&format!("set statement_timeout = {limit}")).await?;
            let outcome = body(&mut conn).await;
            let reset = conn.batch("reset statement_timeout").await;
            outcome.and_then(|value| reset.map(|()| value))
        })
        .await;
        outcome.unwrap_or_else(|elapsed| {
            // Its statement may still run, and would keep the next caller waiting.
            if let Conn::Postgres(abandoned) = conn {
                drop(Object::take(abandoned));
            }
            Err(given_up(elapsed))
        })
    }

    async fn lend(&self) -> Result<Conn, DbError> {
        Ok(Conn::Postgres(self.pool.get().await.map_err(pool_error)?))
    }
}

async fn connect(target: &Target) -> diesel::ConnectionResult<AsyncPgConnection> {
    let mut config = target.config.clone();
    config.options(SETTINGS).connect_timeout(CONNECT_LIMIT);
    config.keepalives_idle(Duration::from_secs(15)).tcp_user_timeout(CALL_LIMIT);
    if config.get_application_name().is_none() {
        config.application_name("ipwarden");
    }
    let (client, connection) = config
        .connect(target.tls.clone())
        .await
        .map_err(|error| ConnectionError::BadConnection(chain(&error)))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}

fn pool_error(error: PoolError) -> DbError {
    DbError::Unreachable(match error {
        PoolError::Timeout(_) => "no connection could be had in time".to_owned(),
        PoolError::Backend(cause) => cause.to_string(),
        other => other.to_string(),
    })
}

/// tokio-postgres says "error connecting to server" and keeps the reason in its source.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
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
