//! The pool of Redis connections for everything that is not on the path of a request: the cache of
//! places, change hints, heartbeats.
//!
//! One type over a single server, Sentinel and Cluster, so that no caller knows which it is. What it
//! deliberately does not do: count requests (the engine's limiter has connections of its own),
//! subscribe (that takes a connection per subscription), or wait for long: whoever asks for
//! a connection has one within [`PATIENCE`] or gets an error.

use std::time::Duration;

use deadpool_redis::redis::aio::ConnectionLike;
use deadpool_redis::redis::{
    Cmd, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, Value,
};
use deadpool_redis::{PoolConfig, Runtime, Timeouts, cluster, sentinel};
use futures_util::{StreamExt, stream};

/// The most connections one process holds for these purposes.
pub const MAX_CONNECTIONS: usize = 4;

/// The longest wait for a connection: for a free one, a new one, or a sign of life of an old one.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// Commands in flight at a time to a cluster, where commands cannot share a pipeline.
const CLUSTER_IN_FLIGHT: usize = 128;

/// Why Redis did not answer.
#[derive(Debug, thiserror::Error)]
pub enum RedisPoolError {
    /// No pool can be made for this URL.
    #[error("Redis cannot be used: {0}")]
    Url(String),
    /// There was no connection to be had.
    #[error("no connection to Redis: {0}")]
    NoConnection(String),
    /// The connection was lost, or Redis refused the command.
    #[error("Redis: {0}")]
    Command(#[from] RedisError),
}

/// A pool of connections. Clones share it.
#[derive(Clone)]
pub enum RedisPool {
    /// One server.
    Single(deadpool_redis::Pool),
    /// The master that Sentinel names.
    Sentinel(sentinel::Pool),
    /// A cluster.
    Cluster(cluster::Pool),
}

impl RedisPool {
    /// A pool for the one server at `url` (`redis://`, `rediss://`). It connects when first used.
    pub fn single(url: &str) -> Result<RedisPool, RedisPoolError> {
        let mut config = deadpool_redis::Config::from_url(url);
        config.pool = Some(pool_config());
        config.create_pool(Some(Runtime::Tokio1)).map(RedisPool::Single).map_err(refused)
    }

    /// A connection, for as long as it is held.
    pub async fn connection(&self) -> Result<RedisConnection, RedisPoolError> {
        match self {
            RedisPool::Single(pool) => pool.get().await.map(RedisConnection::Single).map_err(away),
            RedisPool::Sentinel(pool) => {
                pool.get().await.map(RedisConnection::Sentinel).map_err(away)
            }
            RedisPool::Cluster(pool) => {
                pool.get().await.map(RedisConnection::Cluster).map_err(away)
            }
        }
    }
}

/// A connection from the pool, to be used like any other of the `redis` crate.
pub enum RedisConnection {
    /// To one server.
    Single(deadpool_redis::Connection),
    /// To the master that Sentinel named.
    Sentinel(sentinel::Connection),
    /// To a cluster.
    Cluster(cluster::Connection),
}

impl RedisConnection {
    /// Sends commands that do not depend on each other, and returns their answers in order: in one
    /// round trip, or to a cluster side by side. A command that Redis refuses spoils only its own
    /// answer; a lost connection is an error for all.
    pub async fn each<T: FromRedisValue>(
        &mut self,
        commands: Vec<Cmd>,
    ) -> Result<Vec<RedisResult<T>>, RedisPoolError> {
        if let RedisConnection::Cluster(connection) = self {
            let sent = commands.into_iter().map(|command| {
                let mut connection = (**connection).clone();
                async move { command.query_async::<T>(&mut connection).await }
            });
            let answers: Vec<_> = stream::iter(sent).buffered(CLUSTER_IN_FLIGHT).collect().await;
            return lost_connection(answers);
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        Ok(pipeline.ignore_errors().query_async(self).await?)
    }
}

/// The answers, unless one of them is that there is nobody to answer.
fn lost_connection<T>(answers: Vec<RedisResult<T>>) -> Result<Vec<RedisResult<T>>, RedisPoolError> {
    match answers.iter().position(|answer| {
        answer.as_ref().is_err_and(|error| error.is_io_error() || error.is_unrecoverable_error())
    }) {
        None => Ok(answers),
        Some(lost) => Err(answers
            .into_iter()
            .nth(lost)
            .and_then(Result::err)
            .expect("the answer at this position is an error")
            .into()),
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            RedisConnection::Single(connection) => connection.req_packed_command(command),
            RedisConnection::Sentinel(connection) => connection.req_packed_command(command),
            RedisConnection::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            RedisConnection::Single(connection) => {
                connection.req_packed_commands(commands, offset, count)
            }
            RedisConnection::Sentinel(connection) => {
                connection.req_packed_commands(commands, offset, count)
            }
            RedisConnection::Cluster(connection) => {
                connection.req_packed_commands(commands, offset, count)
            }
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            RedisConnection::Single(connection) => connection.get_db(),
            RedisConnection::Sentinel(connection) => connection.get_db(),
            RedisConnection::Cluster(connection) => connection.get_db(),
        }
    }
}

fn pool_config() -> PoolConfig {
    PoolConfig {
        timeouts: Timeouts {
            wait: Some(PATIENCE),
            create: Some(PATIENCE),
            recycle: Some(PATIENCE),
        },
        ..PoolConfig::new(MAX_CONNECTIONS)
    }
}

fn refused(error: impl std::fmt::Display) -> RedisPoolError {
    RedisPoolError::Url(error.to_string())
}

fn away(error: impl std::fmt::Display) -> RedisPoolError {
    RedisPoolError::NoConnection(error.to_string())
}
