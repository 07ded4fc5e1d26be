//! The pool of Redis connections for everything that is not on the path of a request: the cache of
//! places, change hints, heartbeats.
//!
//! What it deliberately does not do: count requests (the engine's limiter has connections of its
//! own), subscribe ([`RedisUrl::subscriber`] opens a connection for that), or wait for long: whoever
//! asks for a connection has one within [`PATIENCE`] or gets an error.

use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, PoolConfig, PoolError, RecycleResult, Timeouts};
use deadpool_redis::redis::aio::ConnectionLike;
use deadpool_redis::redis::{
    self, Cmd, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, Value,
};
use futures_util::{StreamExt, stream};
use ipwarden_engine::redis::{RedisConnection, RedisUrl};

/// The most connections one process holds for these purposes.
pub const MAX_CONNECTIONS: usize = 4;

/// The longest wait for a connection: for a free one, a new one, or a sign of life of an old one.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// Commands in flight at a time to a cluster, where commands cannot share a pipeline.
const CLUSTER_IN_FLIGHT: usize = 128;

/// Why Redis did not answer.
#[derive(Debug, thiserror::Error)]
pub enum RedisPoolError {
    /// There was no connection to be had.
    #[error("no connection to Redis: {0}")]
    NoConnection(#[from] PoolError<RedisError>),
    /// The connection was lost, or Redis refused the command.
    #[error("Redis: {0}")]
    Command(#[from] RedisError),
}

/// A pool of connections. Clones share it.
#[derive(Clone, Debug)]
pub struct RedisPool {
    connections: managed::Pool<Connector>,
    is_cluster: bool,
}

/// A connection, to be used like any other of the `redis` crate; back in the pool when it is
/// dropped.
#[derive(Debug)]
pub struct PooledConnection(Object<Connector>);

impl RedisPool {
    /// A pool of connections to `url`. It connects when it is first used, so nothing fails yet.
    pub fn new(url: RedisUrl) -> RedisPool {
        let config = PoolConfig {
            timeouts: Timeouts {
                wait: Some(PATIENCE),
                create: Some(PATIENCE),
                recycle: Some(PATIENCE),
            },
            ..PoolConfig::new(MAX_CONNECTIONS)
        };
        let is_cluster = url.is_cluster();
        let connections = managed::Pool::builder(Connector { url })
            .config(config)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("a pool with a runtime for its timeouts can be built");
        RedisPool { connections, is_cluster }
    }

    /// A connection that answered a moment ago.
    ///
    /// # Errors
    /// If there is none within [`PATIENCE`].
    pub async fn connection(&self) -> Result<PooledConnection, RedisPoolError> {
        Ok(PooledConnection(self.connections.get().await?))
    }

    /// Sends commands that do not depend on each other, and returns their answers in order: in one
    /// round trip, or to a cluster side by side. A command that Redis refuses spoils only its own
    /// answer.
    ///
    /// # Errors
    /// If there is no connection, or it is lost meanwhile.
    pub async fn each<T: FromRedisValue>(
        &self,
        commands: Vec<Cmd>,
    ) -> Result<Vec<RedisResult<T>>, RedisPoolError> {
        let mut connection = self.connection().await?;
        if self.is_cluster {
            return side_by_side(&connection.0, commands).await;
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        Ok(pipeline.ignore_errors().query_async(&mut connection).await?)
    }
}

/// Sends each command to the node that holds its key.
async fn side_by_side<T: FromRedisValue>(
    connection: &RedisConnection,
    commands: Vec<Cmd>,
) -> Result<Vec<RedisResult<T>>, RedisPoolError> {
    let sent = commands.into_iter().map(|command| {
        let mut connection = connection.clone();
        async move { command.query_async::<T>(&mut connection).await }
    });
    let mut answers = Vec::new();
    let mut arriving = stream::iter(sent).buffered(CLUSTER_IN_FLIGHT);
    while let Some(answer) = arriving.next().await {
        match answer {
            Err(error) if error.is_io_error() => return Err(error.into()),
            answer => answers.push(answer),
        }
    }
    Ok(answers)
}

impl ConnectionLike for PooledConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.0.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.0.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}

/// Makes the pool's connections, and asks them for a sign of life before they are used again.
#[derive(Debug)]
struct Connector {
    url: RedisUrl,
}

impl managed::Manager for Connector {
    type Type = RedisConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<RedisConnection, RedisError> {
        // Boxed: inlined into its callers' futures it is deeper than the compiler follows.
        Box::pin(self.url.connect(PATIENCE)).await
    }

    async fn recycle(
        &self,
        connection: &mut RedisConnection,
        _: &Metrics,
    ) -> RecycleResult<RedisError> {
        Ok(redis::cmd("PING").query_async(connection).await?)
    }
}
