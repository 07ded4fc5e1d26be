//! One struct per section of the file. Each field says its meaning, its default and, where it is
//! not the rule's, its variable.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipwarden_engine::network::Network;
use ipwarden_engine::spool::Durability;
use serde::{Serialize, Serializer};

use super::layers::Layers;
use super::read::{self, show};
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
    /// The most connections that one process holds to PostgreSQL. Default 10.
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
            sensitive_paths: vec!["/admin".to_owned(), "/login".to_owned()],
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

impl Public {
    pub(super) fn read(layers: &mut Layers) -> Public {
        Public { bind: layers.value("public.bind", Public::default().bind, read::socket) }
    }
}

impl Gate {
    pub(super) fn read(layers: &mut Layers) -> Gate {
        let default = Gate::default();
        Gate {
            bind: layers.value("gate.bind", default.bind, read::optional_socket),
            grpc_bind: layers.value("gate.grpc_bind", None, read::optional_socket),
            pass_secret: layers.value("gate.pass_secret", None, |raw| {
                match read::optional_text(raw)? {
                    Some(text) if text.len() < 32 => {
                        Err("must have at least 32 characters".to_owned())
                    }
                    text => Ok(text.map(Secret::new)),
                }
            }),
        }
    }
}

impl Control {
    pub(super) fn read(layers: &mut Layers) -> Control {
        Control { bind: layers.value("control.bind", Control::default().bind, read::socket) }
    }
}

impl ClientIp {
    pub(super) fn read(layers: &mut Layers) -> ClientIp {
        let default = ClientIp::default();
        ClientIp {
            header: layers.value("client_ip.header", default.header, header_name),
            trusted_proxies: layers.value("client_ip.trusted_proxies", Vec::new(), |raw| {
                read::list(raw)?
                    .iter()
                    .map(|text| {
                        text.parse::<Network>().map_err(|error| format!("`{text}`: {error}"))
                    })
                    .collect()
            }),
            trust_everyone: layers.value("client_ip.trust_everyone", TrustEveryone::No, |raw| {
                match read::optional_text(raw)?.as_deref() {
                    None => Ok(TrustEveryone::No),
                    Some("i-understand") => Ok(TrustEveryone::Understood),
                    Some(_) => Err("must be empty or `i-understand`".to_owned()),
                }
            }),
            ipv6_prefix: layers.value("client_ip.ipv6_prefix", default.ipv6_prefix, |raw| {
                let number = read::number(16, 128)(raw)?;
                u8::try_from(number).map_err(|error| error.to_string())
            }),
        }
    }
}

impl IdentityHeader {
    pub(super) fn read(layers: &mut Layers) -> IdentityHeader {
        IdentityHeader {
            header: layers.value("identity.header", None, |raw| {
                read::optional_text(raw)?.map(|_| header_name(raw)).transpose()
            }),
        }
    }
}

impl RateLimit {
    pub(super) fn read(layers: &mut Layers) -> RateLimit {
        let default = RateLimit::default().memory_bytes;
        // Below that even a few clients share their counters.
        let memory_bytes = layers.value("rate_limit.memory_bytes", default, read::bytes(1 << 20));
        RateLimit { memory_bytes }
    }
}

impl RequestLog {
    pub(super) fn read(layers: &mut Layers) -> RequestLog {
        let default = RequestLog::default();
        RequestLog {
            durability: layers.value("request_log.durability", default.durability, |raw| {
                match read::text(raw)?.as_str() {
                    "process" => Ok(Durability::Process),
                    "power" => Ok(Durability::Power),
                    _ => Err("must be `process` or `power`".to_owned()),
                }
            }),
            // Every worker has a segment of its own, and one prepared ahead.
            spool_bytes: layers.value(
                "request_log.spool_bytes",
                default.spool_bytes,
                read::bytes(64 << 20),
            ),
            retention: layers.value(
                "request_log.retention",
                default.retention,
                read::span(Duration::from_hours(24), Duration::from_hours(36_500 * 24)),
            ),
            anonymise_after: layers.value("request_log.anonymise_after", None, read::optional_span),
        }
    }
}

impl Geo {
    pub(super) fn read(layers: &mut Layers) -> Geo {
        let files = layers.value("geo.files", Vec::new(), read::list);
        Geo { files: files.into_iter().map(PathBuf::from).collect() }
    }
}

impl Scan {
    pub(super) fn read(layers: &mut Layers) -> Scan {
        let default = Scan::default();
        Scan {
            max_requests: layers.value("scan.max_requests", default.max_requests, |raw| {
                let number = read::number(1, 1_000_000)(raw)?;
                u32::try_from(number).map_err(|error| error.to_string())
            }),
            window: layers.value(
                "scan.window",
                default.window,
                read::span(Duration::from_mins(1), Duration::from_hours(24)),
            ),
            sensitive_paths: layers.value("scan.sensitive_paths", default.sensitive_paths, |raw| {
                let paths = read::list(raw)?;
                match paths.iter().find(|path| !path.starts_with('/')) {
                    Some(path) => Err(format!("`{path}` must begin with `/`")),
                    None => Ok(paths),
                }
            }),
            auto_block: layers.value("scan.auto_block", default.auto_block, read::boolean),
        }
    }
}

impl Store {
    pub(super) fn read(layers: &mut Layers) -> Store {
        let default = Store::default().max_connections;
        Store {
            max_connections: layers.value("store.max_connections", default, |raw| {
                let number = read::number(2, 1_000)(raw)?;
                u32::try_from(number).map_err(|error| error.to_string())
            }),
        }
    }
}

impl Log {
    pub(super) fn read(layers: &mut Layers) -> Log {
        let default = Log::default();
        Log {
            level: layers.value("log.level", default.level, |raw| {
                let text = read::text(raw)?;
                match tracing_subscriber::EnvFilter::try_new(&text) {
                    Ok(_) => Ok(text),
                    Err(error) => Err(format!(
                        "{error}: write error, warn, info, debug, trace or `info,ipwarden_core=debug`"
                    )),
                }
            }),
            format: layers.value("log.format", default.format, |raw| {
                match read::text(raw)?.as_str() {
                    "text" => Ok(LogFormat::Text),
                    "json" => Ok(LogFormat::Json),
                    _ => Err("must be `text` or `json`".to_owned()),
                }
            }),
        }
    }
}

/// A field name of HTTP (RFC 9110, 5.1: a token).
fn header_name(raw: &super::layers::Raw) -> Result<String, String> {
    let name = read::text(raw)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.bytes().all(is_token) {
        return Ok(name);
    }
    Err(format!("`{name}` is no header name: write one such as `X-Forwarded-For`"))
}

fn durability<S: Serializer>(durability: &Durability, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match durability {
        Durability::Process => "process",
        Durability::Power => "power",
    })
}
