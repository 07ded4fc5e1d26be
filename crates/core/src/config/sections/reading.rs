//! How the sections are read from the layers, and what their values must be.

use std::path::PathBuf;
use std::time::Duration;

use ipwarden_engine::network::Network;
use ipwarden_engine::quota::{Policy, Quota};
use ipwarden_engine::spool::Durability;

use super::{
    ClientIp, Control, Gate, Geo, IdentityHeader, Log, LogFormat, Public, RateLimit, RequestLog,
    Scan, Store, TrustEveryone,
};
use crate::config::layers::{Layers, Raw};
use crate::config::read;
use crate::config::secret::Secret;

/// `[[quotas]]`, in their order. What no policy can know alone is checked by the caller.
pub(in crate::config) fn quotas(layers: &mut Layers) -> Vec<Policy> {
    layers.tables("quotas", |layers| Policy {
        name: layers.value("name", String::new(), read::text),
        paths: layers.value("paths", Vec::new(), read::list),
        methods: layers.value("methods", Vec::new(), read::list),
        anonymous: layers.value("anonymous", Quota::ANONYMOUS, read::parsed),
        authenticated: layers.value("authenticated", Quota::AUTHENTICATED, read::parsed),
        dry_run: layers.value("dry_run", false, read::boolean),
    })
}

impl Public {
    pub(in crate::config) fn read(layers: &mut Layers) -> Public {
        Public { bind: layers.value("public.bind", Public::default().bind, read::socket) }
    }
}

impl Gate {
    pub(in crate::config) fn read(layers: &mut Layers) -> Gate {
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
    pub(in crate::config) fn read(layers: &mut Layers) -> Control {
        Control { bind: layers.value("control.bind", Control::default().bind, read::socket) }
    }
}

impl ClientIp {
    pub(in crate::config) fn read(layers: &mut Layers) -> ClientIp {
        let default = ClientIp::default();
        ClientIp {
            header: layers.value("client_ip.header", default.header, header_name),
            trusted_proxies: trusted_proxies(layers),
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
    pub(in crate::config) fn read(layers: &mut Layers) -> IdentityHeader {
        IdentityHeader {
            header: layers.value("identity.header", None, |raw| {
                read::optional_text(raw)?.map(|_| header_name(raw)).transpose()
            }),
        }
    }
}

impl RateLimit {
    pub(in crate::config) fn read(layers: &mut Layers) -> RateLimit {
        let default = RateLimit::default().memory_bytes;
        // Below that even a few clients share their counters.
        let memory_bytes = layers.value("rate_limit.memory_bytes", default, read::bytes(1 << 20));
        RateLimit { memory_bytes }
    }
}

impl RequestLog {
    pub(in crate::config) fn read(layers: &mut Layers) -> RequestLog {
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
    pub(in crate::config) fn read(layers: &mut Layers) -> Geo {
        let files = layers.value("geo.files", Vec::new(), read::list);
        Geo { files: files.into_iter().map(PathBuf::from).collect() }
    }
}

impl Scan {
    pub(in crate::config) fn read(layers: &mut Layers) -> Scan {
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
    pub(in crate::config) fn read(layers: &mut Layers) -> Store {
        let default = Store::default().max_connections;
        Store {
            max_connections: layers.value("store.max_connections", default, |raw| {
                let number = read::number(3, 1_000)(raw)?;
                u32::try_from(number).map_err(|error| error.to_string())
            }),
        }
    }
}

impl Log {
    pub(in crate::config) fn read(layers: &mut Layers) -> Log {
        let default = Log::default();
        Log {
            level: layers.value("log.level", default.level, |raw| {
                let text = read::text(raw)?;
                let right = "write error, warn, info, debug, trace or `info,ipwarden_core=debug`";
                // A word alone is a module to the filter, and everything else would be silent.
                let is_level =
                    |part: &str| part.parse::<tracing::level_filters::LevelFilter>().is_ok();
                let alone = text
                    .split(',')
                    .map(str::trim)
                    .find(|part| !part.contains(['=', '[']) && !is_level(part));
                match (tracing_subscriber::EnvFilter::try_new(&text), alone) {
                    (Ok(_), None) => Ok(text),
                    (Ok(_), Some(word)) => Err(format!("`{word}` is no level: {right}")),
                    (Err(error), _) => Err(format!("{error}: {right}")),
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
fn header_name(raw: &Raw) -> Result<String, String> {
    let name = read::text(raw)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.bytes().all(is_token) {
        return Ok(name);
    }
    Err(format!("`{name}` is no header name: write one such as `X-Forwarded-For`"))
}

fn trusted_proxies(layers: &mut Layers) -> Vec<Network> {
    let key = "client_ip.trusted_proxies";
    let entries = layers.value(key, Vec::new(), |raw| {
        read::list(raw)?
            .into_iter()
            .map(|text| match Network::parse(&text) {
                Ok(parsed) => Ok((text, parsed)),
                Err(error) => Err(format!("`{text}`: {error}")),
            })
            .collect()
    });
    entries
        .into_iter()
        .map(|(text, parsed)| {
            if parsed.masked {
                layers.warnings.push(format!("`{key}`: `{text}` is read as {}", parsed.network));
            }
            parsed.network
        })
        .collect()
}
