//! The pool of Redis connections for everything that is not on the path of a request: the cache of
//! places, change hints, heartbeats.
//!
//! One type over the three pools of `deadpool-redis`, so that no caller knows whether there is one
//! server, Sentinel or a cluster. What it deliberately does not do: count requests (the engine's
//! limiter has connections of its own), subscribe ([`RedisUrl::subscriber`] opens a connection for
//! that), or wait for long: whoever asks for a connection has one within [`PATIENCE`] or gets an
//! error.

use std::time::Duration;

use deadpool_redis::redis::aio::ConnectionLike;
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::{
    Cmd, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, Value,
};
use deadpool_redis::sentinel::{SentinelNodeConnectionInfo, SentinelServerType, TlsMode};
use deadpool_redis::{PoolConfig, PoolError, Runtime, TimeoutType, Timeouts, cluster, sentinel};
use futures_util::{StreamExt, stream};
use ipwarden_engine::redis::{RedisUrl, Servers};

/// The most connections one process holds for these purposes.
pub const MAX_CONNECTIONS: usize = 4;

/// The longest wait for a connection.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// The longest time in which a connection is made. Whoever asked for it goes away sooner; it is
/// made all the same, because the first sentinel, or a node of a cluster, may be gone without
/// a word, and is given up only after a second.
const CREATION: Duration = Duration::from_secs(3);

/// Commands in flight at a time to a cluster, where commands cannot share a pipeline.
const CLUSTER_IN_FLIGHT: usize = 128;

/// Why Redis did not answer.
#[derive(Debug, thiserror::Error)]
pub enum RedisPoolError {
    /// There was no connection to be had.
    #[error("no connection to Redis: {0}")]
    NoConnection(#[from] PoolError),
    /// The connection was lost, or Redis refused the command.
    #[error("Redis: {0}")]
    Command(#[from] RedisError),
}

/// A pool of connections. Clones share it.
#[derive(Clone)]
pub struct RedisPool(Pools);

#[derive(Clone)]
enum Pools {
    One(deadpool_redis::Pool),
    Sentinel(sentinel::Pool),
    Cluster(cluster::Pool),
}

/// A connection, to be used like any other of the `redis` crate; back in the pool when it is
/// dropped.
pub struct PooledConnection(Lent);

enum Lent {
    One(deadpool_redis::Connection),
    Sentinel(sentinel::Connection),
    Cluster(cluster::Connection),
}

impl RedisPool {
    /// A pool of connections to `url`. It connects when it is first used, so nothing fails yet.
    pub fn new(url: RedisUrl) -> RedisPool {
        let timeouts =
            Timeouts { wait: Some(PATIENCE), create: Some(CREATION), recycle: Some(PATIENCE) };
        let config = PoolConfig { timeouts, ..PoolConfig::new(MAX_CONNECTIONS) };
        // The three builders are three types with the same methods.
        macro_rules! pool {
            ($pool:ty, $manager:expr) => {
                <$pool>::builder($manager.expect("what a RedisUrl holds makes a client"))
                    .config(config)
                    .runtime(Runtime::Tokio1)
                    .build()
                    .expect("a pool with a runtime for its timeouts can be built")
            };
        }
        RedisPool(match url.servers() {
            Servers::One(server) => {
                Pools::One(pool!(deadpool_redis::Pool, deadpool_redis::Manager::new(server)))
            }
            Servers::Sentinels { sentinels, master, settings, tls } => {
                let node = SentinelNodeConnectionInfo {
                    tls_mode: tls.then_some(TlsMode::Secure),
                    redis_connection_info: Some(settings.into()),
                };
                let kind = SentinelServerType::Master;
                let manager = sentinel::Manager::new(sentinels, master, Some(node), kind);
                Pools::Sentinel(pool!(sentinel::Pool, manager))
            }
            Servers::Cluster(nodes) => {
                Pools::Cluster(pool!(cluster::Pool, cluster::Manager::new(nodes, false)))
            }
        })
    }

    /// A connection that answered a moment ago.
    ///
    /// # Errors
    /// If there is none within [`PATIENCE`].
    pub async fn connection(&self) -> Result<PooledConnection, RedisPoolError> {
        let pools = self.0.clone();
        // A task of its own, which goes on when nobody waits any more: what it makes is in the pool
        // for the next.
        let lent = tokio::spawn(async move { pools.lend().await });
        match tokio::time::timeout(PATIENCE, lent).await {
            Ok(Ok(lent)) => Ok(PooledConnection(lent?)),
            Ok(Err(_runtime_ends)) => Err(PoolError::Closed.into()),
            Err(_) => Err(PoolError::Timeout(TimeoutType::Create).into()),
        }
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
        if let Lent::Cluster(connection) = &connection.0 {
            return side_by_side(connection, commands).await;
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        Ok(pipeline.ignore_errors().query_async(&mut connection).await?)
    }

    /// Deletes keys, of which some may not be there.
    ///
    /// # Errors
    /// If there is no connection, it is lost meanwhile, or Redis refuses one.
    pub async fn delete(&self, keys: impl Iterator<Item = String>) -> Result<(), RedisPoolError> {
        let commands: Vec<Cmd> = keys.map(Cmd::del).collect();
        if commands.is_empty() {
            return Ok(());
        }
        for deleted in self.each::<()>(commands).await? {
            deleted?;
        }
        Ok(())
    }
}

impl Pools {
    async fn lend(&self) -> Result<Lent, PoolError> {
        match self {
            Pools::One(pool) => pool.get().await.map(Lent::One),
            Pools::Sentinel(pool) => pool.get().await.map(Lent::Sentinel),
            Pools::Cluster(pool) => pool.get().await.map(Lent::Cluster),
        }
    }
}

/// Sends each command to the node that holds its key.
async fn side_by_side<T: FromRedisValue>(
    connection: &ClusterConnection,
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

impl PooledConnection {
    fn lent(&mut self) -> &mut dyn ConnectionLike {
        match &mut self.0 {
            Lent::One(connection) => connection,
            Lent::Sentinel(connection) => connection,
            Lent::Cluster(connection) => connection,
        }
    }
}

impl ConnectionLike for PooledConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.lent().req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.lent().req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Lent::One(connection) => connection.get_db(),
            Lent::Sentinel(connection) => connection.get_db(),
            Lent::Cluster(connection) => connection.get_db(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
