//! Which networks are blocked and which are allowed, as one immutable snapshot in memory.
//!
//! A [`Lists`] is built whole, off the path of a request, and swapped whole; a look-up takes no lock,
//! allocates nothing and does no I/O. It answers two questions about a client address: is it allowed,
//! and if not, is it blocked and until when. Allowed beats blocked, always.
//!
//! What is deliberately absent: reasons, origins and who made an entry. Those are for people, who ask
//! the store; here an entry costs about as much memory as its address. Nothing here reads a clock
//! either: `store_now`, the store's clock in microseconds since the Unix epoch, is an argument, so
//! that an entry ends on every replica at the same moment.

use std::fmt;
use std::net::IpAddr;

use crate::network::Network;

pub mod disk;
mod flatten;
mod ranges;
mod term;
#[cfg(test)]
mod tests;

pub use ranges::RangeMap;

/// One network of the blocklist or of the allowlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Whom it is about.
    pub network: Network,
    /// When it ends, in microseconds since the Unix epoch by the store's clock; `None` never ends.
    pub ends: Option<i64>,
    /// Whether nobody but the scan asked for it.
    pub by_scan: bool,
}

/// What the entries that cover an address come to: of all of them the one that ends last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// When it ends, in microseconds since the Unix epoch by the store's clock, rounded up to the
    /// whole second; `None` never ends.
    pub ends: Option<i64>,
    /// Whether that entry was made by the scan alone.
    pub by_scan: bool,
}

/// A block that is in force for an address.
pub type Block = Hit;

/// The blocklist and the allowlist as they stood at one version.
pub struct Lists {
    /// The version of the store that this is a picture of; 0 is the empty beginning.
    pub version: i64,
    blocked: RangeMap,
    allowed: RangeMap,
}

impl Lists {
    /// Lists without any entry, at version 0.
    pub fn empty() -> Lists {
        Lists { version: 0, blocked: RangeMap::default(), allowed: RangeMap::default() }
    }

    /// Builds both lists, from entries in any order that may overlap, nest and repeat.
    ///
    /// Takes time in proportion to n log n, some 100 ms for a million networks: not for an async thread.
    pub fn build<B, A>(version: i64, blocked: B, allowed: A) -> Lists
    where
        B: IntoIterator<Item = ListEntry>,
        A: IntoIterator<Item = ListEntry>,
    {
        Lists { version, blocked: RangeMap::build(blocked), allowed: RangeMap::build(allowed) }
    }

    /// Whether the allowlist covers `ip` at `store_now` (microseconds since the Unix epoch).
    pub fn is_allowed(&self, ip: IpAddr, store_now: i64) -> bool {
        self.allowed.find_active(ip, store_now).is_some()
    }

    /// The block that keeps `ip` out at `store_now` (microseconds since the Unix epoch); an address
    /// that is allowed has none.
    pub fn find_block(&self, ip: IpAddr, store_now: i64) -> Option<Block> {
        let block = self.blocked.find_active(ip, store_now)?;
        (!self.is_allowed(ip, store_now)).then_some(block)
    }

    /// The blocklist alone, without regard to time or to the allowlist.
    pub fn blocked(&self) -> &RangeMap {
        &self.blocked
    }

    /// The allowlist alone, without regard to time.
    pub fn allowed(&self) -> &RangeMap {
        &self.allowed
    }
}

impl fmt::Debug for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lists")
            .field("version", &self.version)
            .field("blocked", &self.blocked)
            .field("allowed", &self.allowed)
            .finish()
    }
}
