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

use std::pin::pin;
use std::time::Duration;

use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisFuture, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection, PubSub},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use futures_util::future::select_ok;

pub(crate) mod patience;
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

/// The servers of a [`RedisUrl`], as the `redis` crate and its pools ask for them.
#[derive(Clone)]
pub enum Servers {
    /// One server.
    One(ConnectionInfo),
    /// Sentinels, which know the present master.
    Sentinels {
        /// How each sentinel is reached; at least one.
        sentinels: Vec<ConnectionInfo>,
        /// The name that they know the master by.
        master: String,
        /// How the master is to be spoken to, wherever it is.
        settings: RedisConnectionInfo,
        /// Whether the master is reached over TLS.
        tls: bool,
    },
    /// Nodes of a cluster, which know the others; at least one.
    Cluster(Vec<ConnectionInfo>),
}

impl RedisUrl {
    /// The servers of this URL, for a pool that makes its connections itself.
    pub fn servers(&self) -> Servers {
        let at = |settings: &RedisConnectionInfo| -> Vec<ConnectionInfo> {
            let hosts = self.hosts.iter();
            hosts.map(|(host, port)| self.server(host, *port, settings)).collect()
        };
        match &self.topology {
            Topology::Single => {
                let (host, port) = &self.hosts[0];
                Servers::One(self.server(host, *port, &self.settings()))
            }
            Topology::Sentinel { master } => Servers::Sentinels {
                sentinels: at(&RedisConnectionInfo::default().set_skip_set_lib_name()),
                master: master.clone(),
                settings: self.settings(),
                tls: self.tls,
            },
            Topology::Cluster => Servers::Cluster(at(&self.settings())),
        }
    }

    /// Connects to the server, to the present master, or to the nodes of the cluster.
    ///
    /// # Errors
    /// If it is not reachable within the time given, or refuses the password.
    pub async fn connect(&self, patience: Duration) -> Result<RedisConnection, RedisError> {
        within(patience, async {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(WRITER_QUEUE);
            let client = match self.servers() {
                Servers::One(server) => Client::open(server)?,
                Servers::Sentinels { sentinels, master, settings, tls } => {
                    present_master(sentinels, &master, settings, tls).await?
                }
                Servers::Cluster(nodes) => {
                    let link = cluster(nodes, patience)?.get_async_connection().await?;
                    return Ok(RedisConnection(Link::Cluster(link)));
                }
            };
            let link = client.get_multiplexed_async_connection_with_config(&config).await?;
            Ok(RedisConnection(Link::One(link)))
        })
        .await
    }

    /// Opens a connection of its own for subscriptions. In a cluster any node hears every channel.
    ///
    /// # Errors
    /// If it is not reachable within the time given, or refuses the password.
    pub async fn subscriber(&self, patience: Duration) -> Result<PubSub, RedisError> {
        within(patience, async {
            let client = match self.servers() {
                Servers::One(server) => Client::open(server)?,
                Servers::Sentinels { sentinels, master, settings, tls } => {
                    present_master(sentinels, &master, settings, tls).await?
                }
                Servers::Cluster(nodes) => {
                    let subscribers = nodes.into_iter().map(|node| {
                        Box::pin(async move { Client::open(node)?.get_async_pubsub().await })
                    });
                    return Ok(select_ok(subscribers).await?.0);
                }
            };
            client.get_async_pubsub().await
        })
        .await
    }

    fn server(&self, host: &str, port: u16, settings: &RedisConnectionInfo) -> ConnectionInfo {
        let info = self.address(host, port).into_connection_info();
        info.expect("an address is as good as parsed")
            .set_redis_settings(settings.clone())
            .set_tcp_settings(tcp_settings())
    }

    fn settings(&self) -> RedisConnectionInfo {
        // Without `CLIENT SETINFO`, which old servers and some proxies refuse.
        let mut settings = RedisConnectionInfo::default().set_db(self.db).set_skip_set_lib_name();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        settings
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

/// The master that the first sentinel to answer names, and that says itself that it is. All are
/// asked at once, so that one that is gone without a word keeps nobody waiting.
async fn present_master(
    sentinels: Vec<ConnectionInfo>,
    master: &str,
    settings: RedisConnectionInfo,
    tls: bool,
) -> Result<Client, RedisError> {
    let mut node = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(settings)
        .set_tcp_settings(tcp_settings());
    if tls {
        node = node.set_tls_mode(TlsMode::Secure);
    }
    let asked = sentinels.into_iter().map(|sentinel| {
        let node = Some(node.clone());
        Box::pin(async move {
            let kind = SentinelServerType::Master;
            let mut client = SentinelClient::build(vec![sentinel], master, node, kind)?;
            client.async_get_client().await
        })
    });
    Ok(select_ok(asked).await?.0)
}

fn cluster(nodes: Vec<ConnectionInfo>, patience: Duration) -> Result<ClusterClient, RedisError> {
    // It waits for every node that is named before it goes on to those that answered, so one that
    // is gone without a word may take only a part of the time. One retry follows a slot to its new
    // node; more is for the caller to decide.
    ClusterClient::builder(nodes)
        .connection_timeout(patience / 3)
        .retries(1)
        .tcp_settings(tcp_settings())
        .build()
}

async fn within<T>(
    patience: Duration,
    attempt: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    patience::within(patience, pin!(attempt)).await.unwrap_or_else(|| {
        Err(RedisError::from((ErrorKind::Io, "no connection within the time allowed")))
    })
}

/// Small commands must not wait for the acknowledgement of those before them.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

impl RedisConnection {
    /// Whether all keys lie on the one server that this leads to.
    pub fn is_single(&self) -> bool {
        matches!(self.0, Link::One(_))
    }
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
