//! One struct per section of the file; how each is read is in `reading.rs`. Each field says its meaning, its default and, where it is
//! not the rule's, its variable.

mod reading;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipwarden_engine::client_ip::{ClientIpConfigError, ClientIpResolver};
use ipwarden_engine::network::Network;
use ipwarden_engine::sensitive_path::SensitivePaths;
use ipwarden_engine::spool::Durability;
use serde::{Serialize, Serializer};

pub(super) use reading::quotas;

use super::read::show;
use super::secret::Secret;

/// `[public]`: the listener for everyone, where every request passes the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Public {
    /// Address and port. Default `0.0.0.0:8080`.
    pub bind: SocketAddr,
}

/// `[gate]`: the listener for proxies and bouncers of the same network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// Address and port. Default `127.0.0.1:8081`; empty: no gate.
    #[serde(serialize_with = "show::optional")]
    pub bind: Option<SocketAddr>,
    /// Address and port of Envoy's gRPC authorization. Default empty: none.
    #[serde(serialize_with = "show::optional")]
    pub grpc_bind: Option<SocketAddr>,
    /// Signs what the gate hands to a proxy about an admitted request. Default empty: nothing is signed. At
    /// least 32 characters; `IPWARDEN_GATE__PASS_SECRET_FILE` names a file that holds it.
    #[serde(serialize_with = "show::optional")]
    pub pass_secret: Option<Secret>,
}

/// `[control]`: the listener for operators. Nothing here passes the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Address and port. Default `127.0.0.1:9090`.
    pub bind: SocketAddr,
}

/// `[client_ip]`: whose word counts about where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientIp {
    /// The one header that trusted proxies write the client into. Default `X-Forwarded-For`.
    pub header: String,
    /// Networks whose header is believed. Default none: the peer is the client.
    pub trusted_proxies: Vec<Network>,
    /// Set to `i-understand`, trusted proxies may be wider than /8 (IPv4) or /16 (IPv6): then anyone in
    /// there can name any address as his own. Default empty.
    pub trust_everyone: TrustEveryone,
    /// IPv6 clients are counted and limited by a network of this length. Default 64.
    pub ipv6_prefix: u8,
}

/// Whether trusted proxies may be as wide as the Internet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum TrustEveryone {
    /// They may not.
    #[default]
    #[serde(rename = "")]
    No,
    /// Somebody has written that he knows what it means.
    #[serde(rename = "i-understand")]
    Understood,
}

/// `[identity]`: who somebody is, as a proxy in front tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdentityHeader {
    /// The header in which a trusted proxy names the user it has authenticated. Default empty:
    /// none.
    #[serde(serialize_with = "show::optional")]
    pub header: Option<String>,
}

/// `[rate_limit]`: what counting may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// Memory for counters in the process, in bytes. Default `256MiB`.
    pub memory_bytes: u64,
}

/// `[request_log]`: what is kept of each request, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestLog {
    /// What the record of an answered request survives. Default `process`.
    #[serde(serialize_with = "durability")]
    pub durability: Durability,
    /// The most that the spool on disk may hold, in bytes. Default `1GiB`, about an hour at 1,000
    /// requests a second without a database.
    pub spool_bytes: u64,
    /// Records older than this are dropped. Default `30d`.
    #[serde(serialize_with = "show::span")]
    pub retention: Duration,
    /// Addresses in records older than this are cut to /24 or /48. Default empty: never.
    #[serde(serialize_with = "show::optional_span")]
    pub anonymise_after: Option<Duration>,
}

/// `[geo]`: where places come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Geo {
    /// MaxMind-format files. Default none named: every `*.mmdb` in `geoip/`.
    pub files: Vec<PathBuf>,
}

/// `[scan]`: what is suspicious.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// More requests than this within `window` are suspicious. Default 100.
    pub max_requests: u32,
    /// The span in which requests are counted. Default `1h`.
    #[serde(serialize_with = "show::span")]
    pub window: Duration,
    /// Paths, each with everything below it, that only the curious ask for. Default `/admin` and `/login`.
    pub sensitive_paths: Vec<String>,
    /// Block what is found for volume without asking a person. Default false.
    pub auto_block: bool,
}

/// `[store]`: how the store is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Store {
    /// The most connections that one process holds to PostgreSQL, one of them for the log. Default 10.
    pub max_connections: u32,
}

/// `[log]`: what the process itself says, on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,ipwarden_core=debug`. Default
    /// `info`.
    pub level: String,
    /// One line of text or one JSON object per event. Default `text`.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

const fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for Public {
    fn default() -> Public {
        Public { bind: any_address(8080) }
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { bind: Some(loopback(8081)), grpc_bind: None, pass_secret: None }
    }
}

impl Default for Control {
    fn default() -> Control {
        Control { bind: loopback(9090) }
    }
}

impl Default for ClientIp {
    fn default() -> ClientIp {
        ClientIp {
            header: "X-Forwarded-For".to_owned(),
            trusted_proxies: Vec::new(),
            trust_everyone: TrustEveryone::No,
            ipv6_prefix: 64,
        }
    }
}

impl ClientIp {
    /// The resolver that these settings make. [`load`](super::load) has tried it: a configuration
    /// that was loaded makes one.
    pub fn resolver(&self) -> Result<ClientIpResolver, ClientIpConfigError> {
        let everyone = self.trust_everyone == TrustEveryone::Understood;
        ClientIpResolver::new(&self.header, &self.trusted_proxies, everyone)
    }
}

impl Default for RateLimit {
    fn default() -> RateLimit {
        RateLimit { memory_bytes: 256 << 20 }
    }
}

impl Default for RequestLog {
    fn default() -> RequestLog {
        RequestLog {
            durability: Durability::Process,
            spool_bytes: 1 << 30,
            retention: Duration::from_hours(30 * 24),
            anonymise_after: None,
        }
    }
}

impl Default for Scan {
    fn default() -> Scan {
        Scan {
            max_requests: 100,
            window: Duration::from_hours(1),
            sensitive_paths: SensitivePaths::DEFAULT.map(str::to_owned).to_vec(),
            auto_block: false,
        }
    }
}

impl Default for Store {
    fn default() -> Store {
        Store { max_connections: 10 }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::Text }
    }
}

fn durability<S: Serializer>(durability: &Durability, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match durability {
        Durability::Process => "process",
        Durability::Power => "power",
    })
}
