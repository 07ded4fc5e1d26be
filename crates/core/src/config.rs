//! The configuration: default, then `ipwarden.toml`, then the environment, then flags.
//!
//! [`Config::default()`] *is* embedded mode: zero settings must run. A key of the file that does not exist
//! is refused by name, a value that cannot be is refused with what is right, and all of them
//! are told at once. Variables are `IPWARDEN_` and the key in capitals with `.` as `__`, lists
//! separated by commas; an unknown one is only warned about. `deploy/ipwarden.toml` documents every
//! key.
//!
//! What this deliberately does not do: open, bind, create or look up anything, or read the
//! process's environment; whoever calls hands it over.

mod error;
mod layers;
mod read;
mod secret;
mod sections;
mod store_url;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipwarden_engine::client_ip::ClientIpConfigError;
use ipwarden_engine::quota::{Policies, Policy};
use ipwarden_engine::redis::RedisUrl;
pub use ipwarden_engine::spool::Durability;
use serde::Serialize;

use crate::duration;
pub use error::{ConfigError, Problem, Source};
use layers::Layers;
use read::show;
pub use secret::Secret;
pub use sections::{
    ClientIp, Control, Gate, Geo, IdentityHeader, Log, LogFormat, Public, RateLimit, RequestLog,
    Scan, Store, TrustEveryone,
};
pub use store_url::{StoreUrl, StoreUrlError};

/// Until an hour that has ended was judged, and an hour more for what comes late.
const UNTIL_JUDGED: Duration = Duration::from_hours(2);

/// With what a binary exits on a [`ConfigError`], before it has bound a port (`EX_USAGE` of
/// sysexits.h).
pub const EXIT_CODE: u8 = 64;

/// The file that is read if nobody names another, and if it exists.
pub const DEFAULT_FILE: &str = "ipwarden.toml";

/// Names the file, unless a flag does.
pub const FILE_VARIABLE: &str = "IPWARDEN_CONFIG";

/// Every setting. Printing and serialising it shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The store, also `DATABASE_URL` and `DATABASE_URL_FILE`. Default empty: SQLite's file in
    /// `data_dir`; see [`Config::store_url`].
    #[serde(serialize_with = "show::optional")]
    pub database_url: Option<StoreUrl>,
    /// Redis, also `REDIS_URL` and `REDIS_URL_FILE`. Default empty: none, everything is counted in
    /// the process.
    #[serde(serialize_with = "show::optional_text")]
    pub redis_url: Option<RedisUrl>,
    /// Where this process keeps its files. Default `data`.
    pub data_dir: PathBuf,
    /// What this process is called in records and among its fellows. Default empty: the name of
    /// the host; see [`Config::node_name`].
    #[serde(serialize_with = "show::optional")]
    pub node: Option<String>,
    /// The listener for everyone.
    pub public: Public,
    /// The listener for proxies and bouncers.
    pub gate: Gate,
    /// The listener for operators.
    pub control: Control,
    /// Whose word counts about where a request comes from.
    pub client_ip: ClientIp,
    /// Who somebody is, as a proxy in front tells.
    pub identity: IdentityHeader,
    /// Quotas besides the defaults, only from the file; the first that matches wins. Default none.
    pub quotas: Vec<Policy>,
    /// What counting may cost.
    pub rate_limit: RateLimit,
    /// What is kept of each request.
    pub request_log: RequestLog,
    /// Where places come from.
    pub geo: Geo,
    /// What is suspicious.
    pub scan: Scan,
    /// How the store is used.
    pub store: Store,
    /// What the process itself says.
    pub log: Log,
}

/// A configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What to tell the operator, a sentence each.
    pub warnings: Vec<String>,
    /// Who set each key, in the file's notation.
    pub sources: BTreeMap<String, Source>,
}

/// Loads the configuration from the file and `environment`; `explicit_path` is what a flag named.
///
/// Without `explicit_path` and `IPWARDEN_CONFIG` it reads [`DEFAULT_FILE`] of the working directory
/// if that exists.
pub fn load(
    explicit_path: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    load_with_flags(explicit_path, environment, &[])
}

/// Like [`load`], with flags of the command line, by key, over everything else.
pub fn load_with_flags(
    explicit_path: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(&str, &str)],
) -> Result<Loaded, ConfigError> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let file = find_file(explicit_path, &environment)?;
    let mut layers = match &file {
        Some((path, text)) => Layers::from_file(path, text)?,
        None => Layers::default(),
    };
    layers.add_environment(&environment)?;
    for (key, value) in flags {
        layers.add_flag(key, value);
    }
    let config = Config::read(&mut layers);
    layers.refuse_unknown_keys();
    layers.warn_of_unknown_variables(&environment);
    if !layers.problems.is_empty() {
        return Err(ConfigError::Invalid(layers.problems));
    }
    Ok(Loaded {
        config,
        file: file.map(|(path, _)| path),
        warnings: layers.warnings,
        sources: layers.sources,
    })
}

/// The process's environment for [`load`]; what is not UTF-8 is left out, as no setting can be.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The file to read and its text; a file that somebody named must be there.
fn find_file(
    explicit_path: Option<&Path>,
    environment: &BTreeMap<String, String>,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let from_variable = environment.get(FILE_VARIABLE).filter(|path| !path.is_empty());
    let (path, named_by) = match (explicit_path, from_variable) {
        (Some(path), _) => (path.to_owned(), "--config"),
        (None, Some(path)) => (PathBuf::from(path), FILE_VARIABLE),
        (None, None) if Path::new(DEFAULT_FILE).exists() => {
            (PathBuf::from(DEFAULT_FILE), "the default")
        }
        (None, None) => return Ok(None),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(cause) => Err(ConfigError::Unreadable { path, named_by: named_by.to_owned(), cause }),
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::read(&mut Layers::default())
    }
}

impl Config {
    fn read(layers: &mut Layers) -> Config {
        let config = Config {
            database_url: layers.value("database_url", None, read::optional),
            redis_url: layers.value("redis_url", None, read::optional),
            data_dir: layers.value("data_dir", PathBuf::from("data"), read::path),
            node: layers.value("node", None, |raw| match read::optional_text(raw)? {
                Some(name) if name.len() > 255 || name.contains(char::is_control) => {
                    Err("must be at most 255 bytes without control characters".to_owned())
                }
                name => Ok(name),
            }),
            public: Public::read(layers),
            gate: Gate::read(layers),
            control: Control::read(layers),
            client_ip: ClientIp::read(layers),
            identity: IdentityHeader::read(layers),
            quotas: sections::quotas(layers),
            rate_limit: RateLimit::read(layers),
            request_log: RequestLog::read(layers),
            geo: Geo::read(layers),
            scan: Scan::read(layers),
            store: Store::read(layers),
            log: Log::read(layers),
        };
        config.check(layers);
        config
    }

    /// What no key can know alone.
    fn check(&self, layers: &mut Layers) {
        let mut taken = vec![("public.bind", self.public.bind)];
        let others = [
            ("control.bind", Some(self.control.bind)),
            ("gate.bind", self.gate.bind),
            ("gate.grpc_bind", self.gate.grpc_bind),
        ];
        for (key, bind) in others {
            let Some(bind) = bind else { continue };
            // Port 0 is a fresh one each time.
            if let Some((other, _)) = taken.iter().find(|(_, it)| *it == bind && bind.port() != 0) {
                layers.refuse(key, format!("`{bind}` is taken by `{other}`: choose another port"));
            }
            taken.push((key, bind));
        }
        if let Err(error) = self.client_ip.resolver() {
            let key = match &error {
                ClientIpConfigError::Forwarded | ClientIpConfigError::Header(_) => {
                    "client_ip.header"
                }
                ClientIpConfigError::TrustEveryone(_) => "client_ip.trust_everyone",
                ClientIpConfigError::BadEntry { .. } | ClientIpConfigError::TooWide { .. } => {
                    "client_ip.trusted_proxies"
                }
            };
            layers.refuse(key, without_key(key, &error));
        }
        if let Err(error) = Policies::new(self.quotas.clone()) {
            layers.refuse("quotas", error.to_string());
        }
        let needed = self.scan.window + UNTIL_JUDGED;
        if self.request_log.anonymise_after.is_some_and(|after| after < needed) {
            layers.refuse(
                "request_log.anonymise_after",
                format!(
                    "is too short: the scan needs whole addresses for `scan.window` and two hours more, \
                     which is {}",
                    duration::format(needed)
                ),
            );
        }
        if self.request_log.anonymise_after.is_some_and(|after| after > self.request_log.retention)
        {
            layers.refuse(
                "request_log.anonymise_after",
                "is longer than `request_log.retention`, so nothing would live to see it"
                    .to_owned(),
            );
        }
    }

    /// Where the store is: `database_url`, or SQLite's file in `data_dir`.
    pub fn store_url(&self) -> StoreUrl {
        self.database_url.clone().unwrap_or_else(|| StoreUrl::in_directory(&self.data_dir))
    }

    /// What this process is called: `node`, or the name of the host.
    pub fn node_name(&self) -> String {
        self.node.clone().unwrap_or_else(host_name)
    }

    /// All keys with their values, as a file that could be loaded again, but for the secrets.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field has a form in TOML")
    }
}

/// The engine's messages begin with the key; ours say who set it, too.
fn without_key(key: &str, error: &ClientIpConfigError) -> String {
    let message = error.to_string();
    message.strip_prefix(&format!("{key}: ")).map(str::to_owned).unwrap_or(message)
}

/// The kernel's name of this host; `localhost` where it does not tell.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
