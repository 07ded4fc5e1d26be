//! Addresses and CIDRs in one canonical form, so that each is one key wherever it is stored.
//!
//! Canonical means: IPv4-mapped IPv6 (`::ffff:192.0.2.1`) is IPv4, host bits are zero, and a
//! network of one address is written as the bare address. Texts are read strictly, as
//! `std::net` reads them: no leading zeros, no short or hexadecimal forms, no zones, no ports.
//!
//! The two families never contain each other: `::/0` holds no IPv4 address. Names are never
//! looked up here, and NAT64 or 6to4 addresses are not unfolded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod error;
#[cfg(test)]
pub(crate) mod tests;

pub use error::NetworkError;

/// An address or a CIDR in canonical form; cheap to copy.
///
/// Ordered by family, first address, then prefix, so that a network precedes what lies inside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A network as it was read, and whether the text had to be corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The canonical network.
    pub network: Network,
    /// Host bits were set and have been masked (`93.184.0.1/24`); worth a notice to who wrote it.
    pub masked: bool,
}

/// The one form of an address that is compared, counted and stored: mapped IPv6 becomes IPv4.
#[inline]
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
    }
}

/// Reads exactly one address, strictly, and makes it canonical.
#[inline]
pub fn parse_address(text: &[u8]) -> Option<IpAddr> {
    // The longest text std::net accepts is the 45 bytes of a full mapped address.
    if text.len() > 45 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().map(canonical)
}

impl Network {
    /// The network of `prefix` bits around `address`, masked and with mapped IPv6 made IPv4.
    ///
    /// The prefix counts in the family of the address as given: `::ffff:192.0.2.0` with 120 is
    /// `192.0.2.0/24`.
    ///
    /// # Errors
    /// [`NetworkError::PrefixTooLong`] past 32 (IPv4) or 128 (IPv6).
    pub fn new(address: IpAddr, prefix: u8) -> Result<Network, NetworkError> {
        let longest = longest_prefix(address);
        if prefix > longest {
            return Err(NetworkError::PrefixTooLong { prefix: prefix.to_string(), longest });
        }
        let (address, prefix) = match canonical(address) {
            v4 @ IpAddr::V4(_) if address.is_ipv6() && prefix >= 96 => (v4, prefix - 96),
            _ => (address, prefix),
        };
        Ok(Network { address: mask(address, prefix), prefix })
    }

    /// The network a client is counted and limited by: its IPv4 address, or its IPv6 network of
    /// `ipv6_prefix` bits (64 by default; more than 128 counts as 128).
    pub fn of_client(address: IpAddr, ipv6_prefix: u8) -> Network {
        match canonical(address) {
            v4 @ IpAddr::V4(_) => Network { address: v4, prefix: 32 },
            v6 @ IpAddr::V6(_) => {
                let prefix = ipv6_prefix.min(128);
                Network { address: mask(v6, prefix), prefix }
            }
        }
    }

    /// The networks that its clients are counted by, as [`Network::of_client`] tells, if there are at most
    /// `most` of them; else none.
    pub fn clients(&self, ipv6_prefix: u8, most: u32) -> Vec<Network> {
        let Network { prefix, .. } = Network::of_client(self.address, ipv6_prefix);
        let count = 1_u32.checked_shl(prefix.saturating_sub(self.prefix).into());
        let Some(count) = count.filter(|count| *count <= most) else { return Vec::new() };
        let (first, _) = self.first_last();
        let step = 1_u128 << (longest_prefix(self.address) - prefix);
        let client =
            |number: u32| canonical(Ipv6Addr::from(first + u128::from(number) * step).into());
        (0..count).map(|number| Network::of_client(client(number), ipv6_prefix)).collect()
    }

    /// Reads an address or a CIDR and says whether host bits had to be masked.
    ///
    /// Nothing is trimmed: who reads lines trims them.
    ///
    /// # Errors
    /// A [`NetworkError`] whose message says what would be right.
    pub fn parse(text: &str) -> Result<Parsed, NetworkError> {
        let (address_text, prefix_text) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Some(address) = parse_as_given(address_text) else {
            return Err(error::diagnose(text, address_text));
        };
        let longest = longest_prefix(address);
        let prefix = match prefix_text {
            None => longest,
            Some(digits) => parse_prefix(digits, longest)
                .ok_or_else(|| error::diagnose_prefix(text, address, digits))?,
        };
        Ok(Parsed {
            network: Network::new(address, prefix)?,
            masked: mask(address, prefix) != address,
        })
    }

    /// The first address: the one the network is named by.
    #[inline]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its last address; its only one when it is a single address.
    #[must_use]
    pub fn last_address(&self) -> IpAddr {
        let (_, last) = self.first_last();
        canonical(Ipv6Addr::from(last).into())
    }

    /// The number of leading bits that are fixed: 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[inline]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is exactly one address.
    #[inline]
    pub fn is_address(&self) -> bool {
        self.prefix == longest_prefix(self.address)
    }

    /// Whether it is an IPv6 network.
    #[inline]
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether the address, in whatever form, lies in this network.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, canonical(address)) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask_v4(self.prefix) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask_v6(self.prefix) == 0
            }
            _ => false,
        }
    }

    /// Whether every address of `other` lies in this network.
    #[inline]
    pub fn covers(&self, other: &Network) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    /// Whether the two have an address in common; of two CIDRs one then covers the other.
    #[inline]
    pub fn overlaps(&self, other: &Network) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The first and last address in the 128-bit space in which IPv4 lies at `::ffff:0:0/96`.
    ///
    /// An IPv6 network shorter than /96 may span that block although it holds no IPv4 address;
    /// who searches by these bounds alone takes [`Network::ranges`].
    pub fn first_last(&self) -> (u128, u128) {
        let first = bits(self.address);
        let host_bits = match self.address {
            IpAddr::V4(_) => u128::from(!mask_v4(self.prefix)),
            IpAddr::V6(_) => !mask_v6(self.prefix),
        };
        (first, first | host_bits)
    }

    /// The inclusive bounds of all its addresses in the space of [`bits`]: one range, or two
    /// around the block where IPv4 lies, which an IPv6 network does not hold.
    pub fn ranges(&self) -> impl Iterator<Item = (u128, u128)> {
        const IPV4_FIRST: u128 = 0xffff << 32;
        const IPV4_LAST: u128 = IPV4_FIRST | 0xffff_ffff;
        let (first, last) = self.first_last();
        let spans = self.is_ipv6() && first <= IPV4_FIRST && last >= IPV4_LAST;
        let (left, right) = match spans {
            false => (Some((first, last)), None),
            // Neither subtraction nor addition can wrap: the block ends on neither side of the space.
            true => (
                (first < IPV4_FIRST).then_some((first, IPV4_FIRST - 1)),
                (last > IPV4_LAST).then_some((IPV4_LAST + 1, last)),
            ),
        };
        left.into_iter().chain(right)
    }
}

/// The place of an address in the 128-bit space in which IPv4 lies at `::ffff:0:0/96`.
#[inline]
pub fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => 0xffff << 32 | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The network of exactly this address.
impl From<IpAddr> for Network {
    #[inline]
    fn from(address: IpAddr) -> Network {
        let address = canonical(address);
        Network { address, prefix: longest_prefix(address) }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// As [`Network::parse`], masking host bits silently.
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        Network::parse(text).map(|parsed| parsed.network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` would be needed for tables, and needs the whole text first; addresses alone have it.
        if self.is_address() {
            return self.address.fmt(f);
        }
        match f.width() {
            None => write!(f, "{}/{}", self.address, self.prefix),
            Some(_) => f.pad(&format!("{}/{}", self.address, self.prefix)),
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Network;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a CIDR")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Network, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// An address in the family it was written in, so that a prefix behind it can be counted.
fn parse_as_given(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// Digits only, no sign, no leading zero: what every other tool would read as the same number.
fn parse_prefix(digits: &str, longest: u8) -> Option<u8> {
    let canonical = digits == "0" || !digits.starts_with('0');
    let plain = canonical && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|prefix| plain && *prefix <= longest)
}

fn longest_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & mask_v4(prefix)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & mask_v6(prefix)).into(),
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}
