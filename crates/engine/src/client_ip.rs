//! Who a request comes from, when proxies stand in between.
//!
//! The peer of the connection is the client, unless it is a trusted proxy. Then exactly one header
//! is read, from the right: past trusted addresses, and the first that is not trusted is the
//! client. No name is ever looked up, and no other header is ever fallen back to.
//!
//! # Security
//! - **Whoever is trusted may say who the client is.** Every entry of the trusted list is an
//!   address that only your own proxies can send from. A range that others can send from, such as
//!   a whole cloud provider's, lets them appear as anyone: unlimited, unblockable, or as a victim.
//! - **Every trusted proxy must append to the header, or replace it.** What stands left of the
//!   deciding element is whatever the client wrote, and is never read: it changes no answer.
//! - **The header must be the one that the proxies write.** A header that they pass on untouched
//!   is the client's. This is why there is no list of headers, and why `Forwarded` is refused: its
//!   grammar (RFC 7239) is not read here.
//! - At an element that is no address the walk stops: the answer is the last hop that was good,
//!   and is marked as degraded. Skipping the element would make the forgeable one behind it count.
//! - An answer that is a trusted proxy itself, or degraded, stands for many clients. See
//!   [`ClientIp::is_proxy`]: it must not be limited, flagged or blocked like one of them.

use std::net::IpAddr;

use crate::network::{Network, canonical};

mod config;
mod element;
#[cfg(test)]
mod tests;
mod trusted;

pub use config::{ClientIpConfigError, TRUST_EVERYONE};
use trusted::TrustedSet;

/// At most this many elements of the header are looked at, from the right. Empty ones do not count.
pub const MAX_ELEMENTS: u8 = 64;

/// At most this many bytes of the header are looked at, from the right.
pub const MAX_BYTES: usize = 8 * 1024;

/// The header that counts unless another is configured.
pub const DEFAULT_HEADER: &str = "X-Forwarded-For";

/// The client of one request, and how much the answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp {
    /// The client's address, canonical.
    pub ip: IpAddr,
    /// Where the address was found.
    pub source: Source,
    /// How many elements of the header were believed: 0 for the peer, 1 for the rightmost.
    pub hops: u8,
    /// The walk ended before it reached a client: at an element that is no address, or at a bound.
    pub degraded: bool,
    /// The address is itself a trusted proxy: its own request, or one without the header.
    pub trusted: bool,
}

impl ClientIp {
    /// Whether the address may stand for more than one client, so that the quota policy `proxy`
    /// applies and the scan never flags or blocks it.
    #[inline]
    pub fn is_proxy(&self) -> bool {
        self.degraded || self.trusted
    }
}

/// Where a client's address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is the other end of the connection.
    Peer,
    /// A trusted proxy named it in the configured header.
    Header,
}

/// Finds the client of a request. Made once, at start-up, from the configuration.
#[derive(Clone, Debug)]
pub struct ClientIpResolver {
    header: Box<str>,
    trusted: Box<[Network]>,
    walked_past: TrustedSet,
    /// The part of the trusted that names proxies. An entry so wide that it needs
    /// [`TRUST_EVERYONE`] does not tell a proxy from a client.
    known_proxies: TrustedSet,
    masked: Box<[(String, Network)]>,
}

impl ClientIpResolver {
    /// The one header that counts, as configured; header names are compared without case.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// The trusted proxies, as configured.
    pub fn trusted(&self) -> &[Network] {
        &self.trusted
    }

    /// Entries that were written with host bits, and as what they are read: worth a warning.
    pub fn masked(&self) -> &[(String, Network)] {
        &self.masked
    }

    /// Whether an address, in whatever form, may say who the client is.
    #[inline]
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        self.walked_past.contains(canonical(address))
    }

    /// Finds the client behind `peer`, the other end of the connection.
    ///
    /// `lines` are the values of all fields called [`ClientIpResolver::header`], in the order in
    /// which they came; together they are one list (RFC 9110, 5.3). Nothing is allocated, and the
    /// work is bounded by [`MAX_ELEMENTS`] and [`MAX_BYTES`].
    #[inline]
    pub fn resolve(&self, peer: IpAddr, lines: &[&[u8]]) -> ClientIp {
        let peer = canonical(peer);
        match self.walked_past.contains(peer) {
            true => self.walk(peer, lines),
            false => ClientIp {
                ip: peer,
                source: Source::Peer,
                hops: 0,
                degraded: false,
                trusted: false,
            },
        }
    }

    fn walk(&self, peer: IpAddr, lines: &[&[u8]]) -> ClientIp {
        let mut last_good = peer;
        let mut hops = 0;
        for element in element::from_the_right(lines) {
            let found = element.ok().filter(|_| hops < MAX_ELEMENTS).and_then(element::parse);
            let Some(address) = found else {
                return self.answer(last_good, hops, true);
            };
            last_good = address;
            hops += 1;
            if !self.walked_past.contains(address) {
                break;
            }
        }
        self.answer(last_good, hops, false)
    }

    fn answer(&self, ip: IpAddr, hops: u8, degraded: bool) -> ClientIp {
        match hops {
            0 => ClientIp { ip, source: Source::Peer, hops, degraded, trusted: true },
            _ => {
                let trusted = self.known_proxies.contains(ip);
                ClientIp { ip, source: Source::Header, hops, degraded, trusted }
            }
        }
    }
}
