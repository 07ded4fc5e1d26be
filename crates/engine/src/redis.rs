//! Where Redis is, and a connection to it: single, behind Sentinel, or a cluster, chosen by the
//! scheme of the URL.
//!
//! ```text
//! redis://[[user]:password@]host[:6379][/db]                      one server
//! redis-sentinel://[[user]:password@]host[:26379],..../master[/db]  whoever is master now
//! redis-cluster://[[user]:password@]host[:6379],...               a cluster
//! rediss:// rediss-sentinel:// rediss-cluster://                  the same over TLS
//! ```
//!
//! Any other scheme is refused. User and password are the servers' own; sentinels are asked
//! without. With TLS the certificate is verified against the roots of the machine, or of
//! `SSL_CERT_FILE`.
//!
//! A connection neither reconnects nor times out by itself: who uses it decides how long it may
//! be silent.

use std::time::Duration;

use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisFuture, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection, PubSub},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};

mod url;

pub use url::{RedisUrl, RedisUrlError};

use url::Topology;

/// How many commands may wait for the writer of one connection.
const WRITER_QUEUE: usize = 256;

/// A multiplexed connection: clones write to the same sockets, and answers find their way back.
///
/// Its reader and writer run on the runtime that it was made on.
#[derive(Clone)]
pub struct RedisConnection(Link);

#[derive(Clone)]
enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl RedisUrl {
    /// Whether keys live on different nodes, so that commands on several cannot share a pipeline.
    pub fn is_cluster(&self) -> bool {
        self.topology == Topology::Cluster
    }

    /// Connects to the server, to the present master, or to the nodes of the cluster.
    ///
    /// # Errors
    /// If it is not reachable within the time given, or refuses the password.
    pub async fn connect(&self, patience: Duration) -> Result<RedisConnection, RedisError> {
        within(patience, async {
            match &self.topology {
                Topology::Cluster => {
                    let cluster = self.cluster(patience)?;
                    Ok(RedisConnection(Link::Cluster(cluster.get_async_connection().await?)))
                }
                Topology::Single | Topology::Sentinel { .. } => {
                    let config = AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(patience))
                        .set_response_timeout(None)
                        .set_pipeline_buffer_size(WRITER_QUEUE);
                    let client = self.client().await?;
                    let link = client.get_multiplexed_async_connection_with_config(&config).await?;
                    Ok(RedisConnection(Link::One(link)))
                }
            }
        })
        .await
    }

    /// Opens a connection of its own for subscriptions. In a cluster any node hears every channel.
    ///
    /// # Errors
    /// If it is not reachable within the time given, or refuses the password.
    pub async fn subscriber(&self, patience: Duration) -> Result<PubSub, RedisError> {
        within(patience, async { self.client().await?.get_async_pubsub().await }).await
    }

    /// The server itself, the present master, or the first node that is named.
    async fn client(&self) -> Result<Client, RedisError> {
        match &self.topology {
            Topology::Sentinel { master } => self.sentinel(master)?.async_get_client().await,
            Topology::Single | Topology::Cluster => {
                let (host, port) = &self.hosts[0];
                Client::open(self.connection_to(host, *port)?)
            }
        }
    }

    fn cluster(&self, patience: Duration) -> Result<ClusterClient, RedisError> {
        let nodes = self
            .hosts
            .iter()
            .map(|(host, port)| self.connection_to(host, *port))
            .collect::<Result<Vec<_>, _>>()?;
        // One retry follows a slot to its new node; more is for the caller to decide.
        ClusterClient::builder(nodes)
            .connection_timeout(patience)
            .retries(1)
            .tcp_settings(tcp_settings())
            .build()
    }

    fn sentinel(&self, master: &str) -> Result<SentinelClient, RedisError> {
        let sentinels = self.hosts.iter().map(|(host, port)| self.address(host, *port));
        let mut builder =
            SentinelClientBuilder::new(sentinels, master, SentinelServerType::Master)?
                .set_client_to_redis_db(self.db)
                .set_client_to_redis_tcp_settings(tcp_settings())
                .set_client_to_sentinel_tcp_settings(tcp_settings());
        if self.tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(user) = &self.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password);
        }
        builder.build()
    }

    fn connection_to(&self, host: &str, port: u16) -> Result<ConnectionInfo, RedisError> {
        // Without `CLIENT SETINFO`, which old servers and some proxies refuse.
        let mut settings = RedisConnectionInfo::default().set_db(self.db).set_skip_set_lib_name();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        let info = self.address(host, port).into_connection_info()?;
        Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings()))
    }

    fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        let host = host.to_owned();
        if !self.tls {
            return ConnectionAddr::Tcp(host, port);
        }
        // An application that embeds the engine may have chosen its provider before us.
        let _already_chosen = rustls::crypto::ring::default_provider().install_default();
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    }
}

async fn within<T>(
    patience: Duration,
    attempt: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    tokio::time::timeout(patience, attempt).await.unwrap_or_else(|_| {
        Err(RedisError::from((ErrorKind::Io, "no connection within the time allowed")))
    })
}

/// Small commands must not wait for the acknowledgement of those before them.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Link::One(link) => link.req_packed_command(cmd),
            Link::Cluster(link) => link.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Link::One(link) => link.req_packed_commands(pipeline, offset, count),
            Link::Cluster(link) => link.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Link::One(link) => link.get_db(),
            Link::Cluster(link) => link.get_db(),
        }
    }
}

impl std::fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.0 {
            Link::One(_) => "one server",
            Link::Cluster(_) => "cluster",
        };
        f.debug_tuple("RedisConnection").field(&kind).finish()
    }
}
