//! Where the store and Redis are. The scheme picks the kind; an unknown one is refused, so that a
//! typo cannot create a new, empty store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::secret::mask_url;

/// Where everything is remembered. Shows without its password.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// One file, `sqlite://<path>`: `sqlite://data/ipwarden.db` is relative, `sqlite:///var/x.db`
    /// absolute.
    Sqlite(PathBuf),
    /// The whole URL, `postgres://..` or `postgresql://..`, with its password.
    Postgres(String),
}

/// Where quotas are counted in a fleet. Shows without its password.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisUrl {
    /// One server: the whole URL, `redis://..` or `rediss://..`, with its password.
    Single(String),
    /// `redis-sentinel://[user:password@]host[:port],../master`.
    Sentinel {
        /// `redis://host:port` of each Sentinel.
        sentinels: Vec<String>,
        /// The name of the master that they watch.
        master: String,
        /// The credentials of the master.
        credentials: Credentials,
    },
    /// `redis-cluster://[user:password@]host[:port],..`: `redis://..` of some nodes, each with the
    /// credentials.
    Cluster(Vec<String>),
}

/// User and password of a Redis.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `None` for the user `default`.
    pub user: Option<String>,
    /// As given, percent-encoding and all.
    pub password: Option<String>,
}

/// Why a URL is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No `://` in it.
    #[error("is not a URL: write {0}")]
    NoScheme(&'static str),
    /// Somebody else's scheme.
    #[error("has the unknown scheme `{0}`: write {1}")]
    UnknownScheme(String, &'static str),
    /// Nothing, or not enough, after the scheme.
    #[error("{0}")]
    Incomplete(&'static str),
}

const STORES: &str = "`sqlite://path` or `postgres://user@host/database`";
const REDISES: &str = "`redis://host`, `rediss://host`, `redis-sentinel://hosts/master` or \
    `redis-cluster://hosts`";

impl StoreUrl {
    /// SQLite's file in a `data_dir`: the store of embedded mode.
    pub fn in_directory(data_dir: &Path) -> StoreUrl {
        StoreUrl::Sqlite(data_dir.join("ipwarden.db"))
    }
}

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<StoreUrl, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::NoScheme(STORES))?;
        match scheme {
            "sqlite" if rest.is_empty() || rest.ends_with('/') => {
                Err(UrlError::Incomplete("names no file: write `sqlite://data/ipwarden.db`"))
            }
            "sqlite" if rest.contains('?') => Err(UrlError::Incomplete(
                "has parameters, and SQLite's file takes none: write `sqlite://path`",
            )),
            // Every connection would have a database of its own.
            "sqlite" if rest == ":memory:" => Err(UrlError::Incomplete(
                "must name a file, which `ipctl` can open too: write `sqlite://path`",
            )),
            "sqlite" => Ok(StoreUrl::Sqlite(PathBuf::from(rest))),
            "postgres" | "postgresql" if rest.is_empty() => {
                Err(UrlError::Incomplete("names no server: write `postgres://user@host/database`"))
            }
            "postgres" | "postgresql" => Ok(StoreUrl::Postgres(url.to_owned())),
            other => Err(UrlError::UnknownScheme(other.to_owned(), STORES)),
        }
    }
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<RedisUrl, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::NoScheme(REDISES))?;
        let no_host = UrlError::Incomplete("names no server: write `redis://host:6379`");
        match scheme {
            "redis" | "rediss" if rest.is_empty() => Err(no_host),
            "redis" | "rediss" => Ok(RedisUrl::Single(url.to_owned())),
            "redis-sentinel" => {
                let (authority, master) = rest
                    .rsplit_once('/')
                    .filter(|(_, master)| !master.is_empty())
                    .ok_or(UrlError::Incomplete(
                        "names no master: write `redis-sentinel://host:26379,host:26379/master`",
                    ))?;
                let (_, credentials, hosts) = split_authority(authority);
                let sentinels = host_urls("", hosts, 26_379).ok_or(no_host)?;
                Ok(RedisUrl::Sentinel { sentinels, master: master.to_owned(), credentials })
            }
            "redis-cluster" => {
                let (login, _, hosts) = split_authority(rest.trim_end_matches('/'));
                Ok(RedisUrl::Cluster(host_urls(login, hosts, 6_379).ok_or(no_host)?))
            }
            other => Err(UrlError::UnknownScheme(other.to_owned(), REDISES)),
        }
    }
}

/// Splits into `user:password@` as given, the same in parts, and the hosts.
fn split_authority(authority: &str) -> (&str, Credentials, &str) {
    let Some(at) = authority.rfind('@') else {
        return ("", Credentials::default(), authority);
    };
    let (login, hosts) = authority.split_at(at + 1);
    let (user, password) =
        authority[..at].split_once(':').map_or((&authority[..at], None), |(u, p)| (u, Some(p)));
    let user = Some(user).filter(|user| !user.is_empty()).map(str::to_owned);
    (login, Credentials { user, password: password.map(str::to_owned) }, hosts)
}

/// `redis://` URLs of comma-separated hosts, or `None` without any.
fn host_urls(login: &str, hosts: &str, default_port: u16) -> Option<Vec<String>> {
    let urls: Vec<String> = hosts
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .map(|host| {
            let has_port = host.rsplit_once(':').is_some_and(|(before, port)| {
                // An IPv6 address without brackets or port ends in a number as well.
                port.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']'))
            });
            if has_port {
                format!("redis://{login}{host}")
            } else {
                format!("redis://{login}{host}:{default_port}")
            }
        })
        .collect();
    (!urls.is_empty()).then_some(urls)
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            StoreUrl::Postgres(url) => f.write_str(&mask_url(url)),
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = |urls: &[String]| {
            let bare = urls.iter().map(|url| mask_url(url).replacen("redis://", "", 1));
            bare.collect::<Vec<_>>().join(",")
        };
        match self {
            RedisUrl::Single(url) => f.write_str(&mask_url(url)),
            RedisUrl::Sentinel { sentinels, master, credentials } => {
                let login = match credentials {
                    Credentials { user, password: Some(_) } => {
                        format!("{}:***@", user.as_deref().unwrap_or_default())
                    }
                    Credentials { user: Some(user), password: None } => format!("{user}@"),
                    _ => String::new(),
                };
                write!(f, "redis-sentinel://{login}{}/{master}", hosts(sentinels))
            }
            RedisUrl::Cluster(nodes) => write!(f, "redis-cluster://{}", hosts(nodes)),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_picks_the_store() {
        let sqlite = |path: &str| Ok(StoreUrl::Sqlite(PathBuf::from(path)));
        assert_eq!("sqlite://data/x.db".parse(), sqlite("data/x.db"));
        assert_eq!("sqlite:///var/lib/x.db".parse(), sqlite("/var/lib/x.db"));
        let url = "postgres://me:secret@db/x?sslmode=require";
        assert_eq!(url.parse(), Ok(StoreUrl::Postgres(url.to_owned())));
    }

    #[test]
    fn an_unknown_scheme_is_refused_and_the_known_ones_are_named() {
        for url in ["postgress://db/x", "mysql://db/x", "SQLITE://x", "redis://x", "file:///x"] {
            let error = url.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains("unknown scheme") && error.contains("sqlite://path"), "{error}");
        }
        for url in [
            "",
            "data/ipwarden.db",
            "sqlite:",
            "sqlite://",
            "sqlite://data/",
            "postgres://",
            "sqlite://:memory:",
            "sqlite://x?mode=memory",
        ] {
            url.parse::<StoreUrl>().unwrap_err();
        }
        for url in [
            "http://x",
            "redis-sentinel2://x/y",
            "redis//x",
            "redis://",
            "redis-cluster://",
            "redis-sentinel://host",
            "redis-sentinel:///master",
        ] {
            url.parse::<RedisUrl>().unwrap_err();
        }
    }

    #[test]
    fn sentinel_and_cluster_urls_hold_several_hosts() {
        assert_eq!(
            "redis-sentinel://me:secret@a,b:26380/main".parse(),
            Ok(RedisUrl::Sentinel {
                sentinels: vec!["redis://a:26379".to_owned(), "redis://b:26380".to_owned()],
                master: "main".to_owned(),
                credentials: Credentials {
                    user: Some("me".to_owned()),
                    password: Some("secret".to_owned())
                },
            })
        );
        assert_eq!(
            "redis-cluster://:secret@a:7000,[::1]".parse(),
            Ok(RedisUrl::Cluster(vec![
                "redis://:secret@a:7000".to_owned(),
                "redis://:secret@[::1]:6379".to_owned()
            ]))
        );
    }

    #[test]
    fn no_form_of_output_shows_a_password() {
        for url in [
            "redis://me:hunter2@a",
            "rediss://:hunter2@a",
            "redis-cluster://me:hunter2@a,b",
            "redis-sentinel://me:hunter2@a,b/main",
        ] {
            let parsed: RedisUrl = url.parse().unwrap();
            let shown = format!("{parsed} {parsed:?} {}", serde_json::to_string(&parsed).unwrap());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let store: StoreUrl = "postgres://me:hunter2@db/x".parse().unwrap();
        assert!(!format!("{store} {store:?}").contains("hunter2"));
    }
}
