//! Why a text is no network, and what would be right.
//!
//! The texts come from terminals, files and strangers, so what is quoted from them is escaped and
//! cut.

use std::net::{IpAddr, Ipv4Addr};

use super::{Network, parse_address};

/// A text is no address or CIDR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Nothing was written.
    #[error("an address or a CIDR is missing; write one like 203.0.113.9 or 203.0.113.0/24")]
    Empty,
    /// Several addresses, or a range, in one text.
    #[error("`{0}` is more than one address; give each by itself, and a range as CIDRs")]
    Several(String),
    /// A word where an address belongs.
    #[error("`{0}` is no address; host names are not resolved, write the address itself")]
    HostName(String),
    /// An address with a port behind it.
    #[error("`{0}` names a port; write {1} alone")]
    Port(String, IpAddr),
    /// An address in brackets.
    #[error("`{0}` stands in brackets; write {1}")]
    Brackets(String, IpAddr),
    /// An IPv6 address with a zone.
    #[error(
        "`{0}` has a zone, which means something on one machine only; leave out `%` and what follows"
    )]
    Zone(String),
    /// A number with a leading zero, which some read as octal.
    #[error(
        "`{0}` has a number with a leading zero, which some programs read as octal; write it without"
    )]
    LeadingZero(String),
    /// A wildcard in place of a number.
    #[error("`{0}` has a wildcard; write a CIDR, such as 203.0.113.0/24 for 203.0.113.*")]
    Wildcard(String),
    /// An IPv4 address that is not four numbers.
    #[error("`{0}` is no IPv4 address; write four numbers from 0 to 255, such as 203.0.113.9")]
    Octets(String),
    /// Something with colons that is no IPv6 address.
    #[error("`{0}` is no IPv6 address; write one such as 2001:db8::9")]
    Groups(String),
    /// A slash with nothing behind it, or with what is no number.
    #[error("`/{0}` is no prefix length; write a plain number from 0 to {1}")]
    Prefix(String, u8),
    /// A prefix with more bits than an address has.
    #[error("/{prefix} is longer than an address; the longest prefix here is /{longest}")]
    PrefixTooLong {
        /// The number as it was written.
        prefix: String,
        /// 32 for IPv4, 128 for IPv6.
        longest: u8,
    },
    /// A dotted mask in place of the prefix length.
    #[error("a mask is written as a prefix length; write {}", with_prefix(.0))]
    DottedMask(Network),
    /// A dotted mask that is no prefix.
    #[error("/{0} is no mask of leading bits; write a prefix length from 0 to 32")]
    BrokenMask(Ipv4Addr),
}

/// Says what is wrong with an address part that `std::net` refused.
pub(super) fn diagnose(text: &str, address: &str) -> NetworkError {
    let quoted = || quote(text);
    let is_wordlike = address.chars().any(|c| c.is_alphabetic());
    if text.is_empty() {
        return NetworkError::Empty;
    }
    if is_several(address) {
        return NetworkError::Several(quoted());
    }
    if address.contains('%') {
        return NetworkError::Zone(quoted());
    }
    if let Some(inner) = address.strip_prefix('[') {
        let inside = inner.split(']').next().unwrap_or(inner);
        return match parse_address(inside.as_bytes()) {
            Some(bare) if inner.ends_with(']') => NetworkError::Brackets(quoted(), bare),
            Some(bare) => NetworkError::Port(quoted(), bare),
            None => NetworkError::Groups(quoted()),
        };
    }
    if let Some((host, port)) = address.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(bare) = host.parse::<Ipv4Addr>()
    {
        return NetworkError::Port(quoted(), bare.into());
    }
    if address.contains(':') {
        return NetworkError::Groups(quoted());
    }
    if address.contains('*') {
        return NetworkError::Wildcard(quoted());
    }
    let is_hexadecimal = address.split('.').any(|part| part.starts_with("0x"));
    if is_wordlike && !is_hexadecimal {
        return NetworkError::HostName(quoted());
    }
    let has_leading_zero = address.split('.').any(|part| part.len() > 1 && part.starts_with('0'));
    if has_leading_zero && !is_hexadecimal {
        return NetworkError::LeadingZero(quoted());
    }
    NetworkError::Octets(quoted())
}

/// Says what is wrong with the part behind the slash.
pub(super) fn diagnose_prefix(text: &str, address: IpAddr, digits: &str) -> NetworkError {
    if is_several(digits) {
        return NetworkError::Several(quote(text));
    }
    let longest = super::longest_prefix(address);
    if address.is_ipv4()
        && let Ok(mask) = digits.parse::<Ipv4Addr>()
    {
        let leading = mask.to_bits().leading_ones();
        let prefix = u8::try_from(leading).expect("32 bits have at most 32 leading ones");
        return match Network::new(address, prefix) {
            Ok(network) if super::mask_v4(prefix) == mask.to_bits() => {
                NetworkError::DottedMask(network)
            }
            _ => NetworkError::BrokenMask(mask),
        };
    }
    let is_number = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    match is_number {
        true => NetworkError::PrefixTooLong { prefix: quote(digits), longest },
        false => NetworkError::Prefix(quote(digits), longest),
    }
}

/// A list, or a range such as `1.2.3.4-1.2.3.9`: of hyphens only one between addresses, since host
/// names hold them too.
fn is_several(text: &str) -> bool {
    let is_address = |text: &str| parse_address(text.as_bytes()).is_some();
    let ends = text.rsplit_once('-');
    text.trim().contains([',', ';', ' ', '\t', '\n', '\r'])
        || ends.is_some_and(|(first, last)| is_address(first) || is_address(last))
}

/// A dotted mask is answered with its prefix even where that is /32, which usually goes unwritten.
fn with_prefix(network: &Network) -> String {
    format!("{}/{}", network.address(), network.prefix())
}

/// At most 64 characters, none of which can steer a terminal or a log.
fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        quoted.push('…');
    }
    quoted
}
