//! What a resolver is made from, and what is refused before it can do harm.

use std::net::{IpAddr, Ipv6Addr};

use super::trusted::TrustedSet;
use super::{ClientIpResolver, MAX_BYTES};
use crate::network::{Network, NetworkError};
use crate::target::shortest_prefix;

/// The one value of `client_ip.trust_everyone` that lifts the bound on wide entries.
pub const TRUST_EVERYONE: &str = "i-understand";

/// Why no resolver can be made; the service must not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientIpConfigError {
    /// An entry of the trusted list is no network.
    #[error("client_ip.trusted_proxies, entry \"{entry}\": {reason}")]
    BadEntry {
        /// The entry as written, escaped.
        entry: String,
        /// What is wrong with it, and what would be right.
        reason: NetworkError,
    },
    /// An entry trusts so many addresses that it trusts strangers.
    #[error(
        "client_ip.trusted_proxies: {entry} is shorter than /{shortest} and lets strangers say who \
         they are; name your proxies' own networks, or set client_ip.trust_everyone = \
         \"{TRUST_EVERYONE}\" if nobody else can reach this service"
    )]
    TooWide {
        /// The entry, canonical.
        entry: Network,
        /// The shortest prefix that its family allows.
        shortest: u8,
    },
    /// `client_ip.trust_everyone` holds something else than the one value it knows.
    #[error(
        "client_ip.trust_everyone: `{0}` is not known; leave it out, or write \"{TRUST_EVERYONE}\""
    )]
    TrustEveryone(String),
    /// The header is `Forwarded`.
    #[error(
        "client_ip.header: Forwarded (RFC 7239) is not read; let the proxy send X-Forwarded-For and \
         name that"
    )]
    Forwarded,
    /// The header is no field name.
    #[error("client_ip.header: `{0}` is no header name; write one such as X-Forwarded-For")]
    Header(String),
}

impl ClientIpResolver {
    /// Reads the settings as a person writes them: `trust_everyone` is empty or [`TRUST_EVERYONE`].
    ///
    /// White space around an entry is dropped; host bits are masked, see
    /// [`ClientIpResolver::masked`].
    ///
    /// # Errors
    /// The first setting that must not be used, by its key and with what would be right.
    pub fn from_strings<S: AsRef<str>>(
        header: &str,
        trusted: &[S],
        trust_everyone: &str,
    ) -> Result<ClientIpResolver, ClientIpConfigError> {
        let everyone = match trust_everyone.trim() {
            "" => false,
            TRUST_EVERYONE => true,
            other => return Err(ClientIpConfigError::TrustEveryone(other.to_owned())),
        };
        let mut networks = Vec::with_capacity(trusted.len());
        let mut masked = Vec::new();
        for entry in trusted.iter().map(|entry| entry.as_ref().trim()) {
            let parsed = Network::parse(entry).map_err(|reason| ClientIpConfigError::BadEntry {
                entry: entry.to_owned(),
                reason,
            })?;
            if parsed.masked {
                masked.push((entry.to_owned(), parsed.network));
            }
            networks.push(parsed.network);
        }
        let resolver = ClientIpResolver::new(header, &networks, everyone)?;
        Ok(ClientIpResolver { masked: masked.into(), ..resolver })
    }

    /// Makes a resolver that reads `header` from `trusted` peers.
    ///
    /// # Errors
    /// [`ClientIpConfigError`] for a header that cannot be used, and for an entry shorter than /8
    /// (IPv4) or /16 (IPv6) unless it is private (`fc00::/7`, `fe80::/10`) or `trust_everyone`.
    pub fn new(
        header: &str,
        trusted: &[Network],
        trust_everyone: bool,
    ) -> Result<ClientIpResolver, ClientIpConfigError> {
        if header.eq_ignore_ascii_case("forwarded") {
            return Err(ClientIpConfigError::Forwarded);
        }
        if header.is_empty() || header.len() > MAX_BYTES || !header.bytes().all(is_token_byte) {
            return Err(ClientIpConfigError::Header(header.escape_debug().take(64).collect()));
        }
        let too_wide = trusted.iter().find(|entry| !trust_everyone && is_too_wide(entry));
        if let Some(entry) = too_wide {
            let shortest = shortest_prefix(entry);
            return Err(ClientIpConfigError::TooWide { entry: *entry, shortest });
        }
        Ok(ClientIpResolver {
            header: header.into(),
            trusted: trusted.into(),
            walked_past: TrustedSet::new(trusted.iter()),
            known_proxies: TrustedSet::new(trusted.iter().filter(|entry| !is_too_wide(entry))),
            masked: Box::default(),
        })
    }
}

/// Private IPv6 space is large on paper only: whoever sends from it is in the same site.
fn is_too_wide(entry: &Network) -> bool {
    let private = [
        Network::new(IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
        Network::new(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    ];
    entry.prefix() < shortest_prefix(entry)
        && !private.iter().flatten().any(|private| private.covers(entry))
}

/// The bytes of a field name (RFC 9110, 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
