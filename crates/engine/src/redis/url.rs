//! The URL of Redis, read strictly: a typo must not become another server.

use std::fmt;
use std::str::FromStr;

/// Where Redis is and how it is reached. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(super) topology: Topology,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Names or addresses, and ports; at least one, exactly one for a single server.
    pub(super) hosts: Vec<(String, u16)>,
    /// The number of the database; 0 in a cluster.
    pub(super) db: i64,
}

/// What stands at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    Single,
    /// The hosts are sentinels, which know the present master by this name.
    Sentinel {
        master: String,
    },
    Cluster,
}

/// Why a text is no URL of Redis. The messages say what would be right, and hold no password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// The scheme is none of ours.
    #[error(
        "`{0}` is not a scheme of Redis: write redis://, rediss://, redis-sentinel:// or redis-cluster://"
    )]
    Scheme(String),
    /// There is no host, or one that is no name or address.
    #[error("`{0}` is not a host of Redis: write name:port or [ipv6]:port, several with commas")]
    Host(String),
    /// A port is no number from 1 to 65535.
    #[error("`{0}` is not a port: write a number from 1 to 65535")]
    Port(String),
    /// A single server was given several hosts.
    #[error("redis:// names one server: for several write redis-sentinel:// or redis-cluster://")]
    SeveralHosts,
    /// Sentinels were given without the name they know the master by.
    #[error("redis-sentinel:// needs the master's name: redis-sentinel://host:26379/mymaster")]
    NoMaster,
    /// The path is no number of a database.
    #[error("`{0}` is not a database of Redis: write a number, as in redis://host:6379/0")]
    Database(String),
    /// A query or fragment, which have no meaning here.
    #[error("a URL of Redis has neither ? nor #; in a password write them as %3F and %23")]
    Query,
    /// User or password hold a `%` that begins no escape.
    #[error("user or password hold a bad %-escape: write % itself as %25")]
    Escape,
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<RedisUrl, RedisUrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or((without_secrets(text), ""));
        let (tls, kind) = match scheme.strip_prefix("rediss") {
            Some(kind) => (true, kind),
            None => (false, scheme.strip_prefix("redis").unwrap_or("?")),
        };
        if !matches!(kind, "" | "-sentinel" | "-cluster") {
            return Err(RedisUrlError::Scheme(scheme.to_owned()));
        }
        if rest.contains(['?', '#']) {
            return Err(RedisUrlError::Query);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (user, password) = parse_credentials(credentials)?;
        let default_port = if kind == "-sentinel" { 26_379 } else { 6_379 };
        let hosts = hosts
            .split(',')
            .map(|host| parse_host(host, default_port))
            .collect::<Result<Vec<_>, _>>()?;
        let (topology, db) = match kind {
            "-sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(RedisUrlError::NoMaster);
                }
                (Topology::Sentinel { master: master.to_owned() }, parse_database(db)?)
            }
            "-cluster" if path.is_empty() || path == "0" => (Topology::Cluster, 0),
            "-cluster" => return Err(RedisUrlError::Database(path.to_owned())),
            _ if hosts.len() > 1 => return Err(RedisUrlError::SeveralHosts),
            _ => (Topology::Single, parse_database(path)?),
        };
        Ok(RedisUrl { topology, tls, user, password, hosts, db })
    }
}

/// What may be repeated of a text that is no URL: who forgot the scheme may have begun with a
/// password.
fn without_secrets(text: &str) -> &str {
    if text.contains('@') { "" } else { text }
}

fn parse_credentials(
    text: Option<&str>,
) -> Result<(Option<String>, Option<String>), RedisUrlError> {
    let Some(text) = text else { return Ok((None, None)) };
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let given = |part: &str| match part {
        "" => Ok(None),
        _ => unescape(part).ok_or(RedisUrlError::Escape).map(Some),
    };
    Ok((given(user)?, given(password)?))
}

fn parse_host(text: &str, default_port: u16) -> Result<(String, u16), RedisUrlError> {
    let bad_host = || RedisUrlError::Host(text.to_owned());
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(bad_host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| bad_host())?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(bad_host()),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(in_name) {
        return Err(bad_host());
    }
    let port = match port {
        None => default_port,
        Some(digits) => parse_digits(digits)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| RedisUrlError::Port(digits.to_owned()))?,
    };
    Ok((host.to_owned(), port))
}

fn parse_database(text: &str) -> Result<i64, RedisUrlError> {
    match text {
        "" => Ok(0),
        _ => parse_digits(text).ok_or_else(|| RedisUrlError::Database(text.to_owned())),
    }
}

fn parse_digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Percent-decoding (RFC 3986, 2.1).
fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        plain.push(match byte {
            b'%' => (digit()? << 4 | digit()?) as u8,
            _ => byte,
        });
    }
    String::from_utf8(plain).ok()
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls { "s" } else { "" };
        let kind = match self.topology {
            Topology::Single => "",
            Topology::Sentinel { .. } => "-sentinel",
            Topology::Cluster => "-cluster",
        };
        write!(f, "redis{s}{kind}://")?;
        if self.user.is_some() || self.password.is_some() {
            write!(f, "{}:***@", self.user.as_deref().unwrap_or_default())?;
        }
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{port}")?,
                false => write!(f, "{comma}{host}:{port}")?,
            }
        }
        if let Topology::Sentinel { master } = &self.topology {
            write!(f, "/{master}")?;
        }
        if self.db != 0 {
            write!(f, "/{}", self.db)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("redis://localhost", "redis://localhost:6379")]
    #[case("redis://10.0.0.1:7000/", "redis://10.0.0.1:7000")]
    #[case("redis://10.0.0.1:7000/3", "redis://10.0.0.1:7000/3")]
    #[case("rediss://cache.example.test", "rediss://cache.example.test:6379")]
    #[case("redis://[2001:db8::1]:7000", "redis://[2001:db8::1]:7000")]
    #[case("redis://[2001:db8::1]", "redis://[2001:db8::1]:6379")]
    #[case("redis://:s3cret@h", "redis://:***@h:6379")]
    #[case("redis://user:s%40cret@h:1", "redis://user:***@h:1")]
    #[case("redis://user:a@b@h:1", "redis://user:***@h:1")]
    #[case("redis-sentinel://a,b:2/mymaster", "redis-sentinel://a:26379,b:2/mymaster")]
    #[case("redis-sentinel://:s3cret@a/m/2", "redis-sentinel://:***@a:26379/m/2")]
    #[case("rediss-sentinel://a/m", "rediss-sentinel://a:26379/m")]
    #[case("redis-cluster://a:1,b,[::1]:3", "redis-cluster://a:1,b:6379,[::1]:3")]
    fn a_url_is_read_and_shown_without_its_password(#[case] text: &str, #[case] shown: &str) {
        let url: RedisUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), shown);
        assert!(!format!("{url:?}").contains("cret"));
    }

    #[rstest]
    #[case("")]
    #[case("localhost:6379")]
    #[case("http://localhost")]
    #[case("postgres://localhost")]
    #[case("valkey://localhost")]
    #[case("REDIS://localhost")]
    #[case("redis-sentinels://a/m")]
    #[case("redis+unix:///run/redis.sock")]
    #[case("s3cret@host")]
    fn an_unknown_scheme_is_refused(#[case] text: &str) {
        let error = text.parse::<RedisUrl>().unwrap_err();
        assert!(matches!(error, RedisUrlError::Scheme(_)), "{error}");
        assert!(!error.to_string().contains("s3cret"));
    }

    #[rstest]
    #[case("redis://")]
    #[case("redis://:6379")]
    #[case("redis://a,b")]
    #[case("redis://a,")]
    #[case("redis://a:0")]
    #[case("redis://a:65536")]
    #[case("redis://a:+1")]
    #[case("redis://a b")]
    #[case("redis://[::1")]
    #[case("redis://[a]")]
    #[case("redis://[::1]x")]
    #[case("redis://::1")]
    #[case("redis://a/x")]
    #[case("redis://a/-1")]
    #[case("redis://a/0?protocol=3")]
    #[case("redis://a#b")]
    #[case("redis://u:%zz@a")]
    #[case("redis://u:%2@a")]
    #[case("redis-sentinel://a")]
    #[case("redis-sentinel://a/")]
    #[case("redis-cluster://a/1")]
    fn what_would_lead_to_no_server_or_another_is_refused(#[case] text: &str) {
        assert!(text.parse::<RedisUrl>().is_err());
    }

    #[test]
    fn escapes_in_user_and_password_are_undone() {
        let url: RedisUrl = "redis://us%3Aer:p%40ss%2Fw%C3%B6rd@h".parse().unwrap();
        assert_eq!(url.user.as_deref(), Some("us:er"));
        assert_eq!(url.password.as_deref(), Some("p@ss/wörd"));
    }
}
