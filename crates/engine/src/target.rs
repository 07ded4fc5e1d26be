//! Guard rails for the target of a block: what is refused unless the operator insists.
//!
//! A block answers 403 to whoever comes from it, so a slip of the hand can lock out everyone, the
//! machine itself, or the operator who made it. These rules catch the slips. They do not judge
//! whether a block is wise, and they guard manual blocks and imports alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::network::{Network, Parsed, canonical};

#[cfg(test)]
mod tests;

/// What a block must not reach, as it stands at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rails<'a> {
    /// The trusted proxies: blocking one blocks all who come through it.
    pub trusted: &'a [Network],
    /// The allowlist.
    pub allowed: &'a [Network],
    /// The machine's own addresses.
    pub own: &'a [IpAddr],
    /// Where the operator sits: the API caller, or the first word of `SSH_CONNECTION`.
    pub operator: Option<IpAddr>,
}

/// Why a target is refused: the rule, and the entry that it would hit.
///
/// It is shown with the remedy for a terminal; [`Refused::reason`] is without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}; --force blocks it nevertheless", self.reason())]
pub enum Refused {
    /// The network is wider than any one site.
    TooWide {
        /// The target.
        target: Network,
        /// The shortest prefix that its family allows.
        shortest: u8,
    },
    /// It holds loopback addresses.
    Loopback {
        /// The target.
        target: Network,
        /// `127.0.0.0/8` or `::1`.
        entry: Network,
    },
    /// It holds `0.0.0.0` or `::`.
    Unspecified {
        /// The target.
        target: Network,
    },
    /// It holds the operator's own address.
    Operator {
        /// The target.
        target: Network,
        /// Where the operator sits.
        address: IpAddr,
    },
    /// It holds an address of the machine itself.
    Own {
        /// The target.
        target: Network,
        /// The address.
        address: IpAddr,
    },
    /// It touches a trusted proxy.
    TrustedProxy {
        /// The target.
        target: Network,
        /// The entry of the trusted list.
        entry: Network,
    },
    /// It touches an allowed network.
    Allowed {
        /// The target.
        target: Network,
        /// The entry of the allowlist.
        entry: Network,
    },
}

impl Refused {
    /// The sentence without the remedy, for who words the remedy otherwise (`"force": true`).
    pub fn reason(&self) -> Reason<'_> {
        Reason(self)
    }

    /// The name of the rule, for answers that programs read.
    pub fn rule(&self) -> &'static str {
        match self {
            Refused::TooWide { .. } => "too_wide",
            Refused::Loopback { .. } => "loopback",
            Refused::Unspecified { .. } => "unspecified",
            Refused::Operator { .. } => "operator",
            Refused::Own { .. } => "own_address",
            Refused::TrustedProxy { .. } => "trusted_proxy",
            Refused::Allowed { .. } => "allowed",
        }
    }
}

/// A [`Refused`] as a sentence that names the rule and the entry, and no remedy.
#[derive(Clone, Copy, Debug)]
pub struct Reason<'a>(&'a Refused);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Refused::TooWide { target, shortest } => {
                write!(f, "{target} is wider than /{shortest} and would block whole providers")
            }
            Refused::Loopback { target, entry } => {
                write!(f, "{target} touches {entry}, the loopback of this machine")
            }
            Refused::Unspecified { target } => {
                write!(f, "{target} holds the unspecified address, from which nobody comes")
            }
            Refused::Operator { target, address } => {
                write!(f, "{target} holds {address}, where you come from")
            }
            Refused::Own { target, address } => {
                write!(f, "{target} holds {address}, an address of this machine")
            }
            Refused::TrustedProxy { target, entry } => write!(
                f,
                "{target} touches the trusted proxy {entry}, through which many clients come"
            ),
            Refused::Allowed { target, entry } => {
                write!(f, "{target} touches {entry} on the allowlist, which beats every block")
            }
        }
    }
}

/// Judges the target of a block.
///
/// A target inside a trusted or allowed network is refused like one that covers it.
///
/// # Errors
/// The first rule that it breaks; the widest consequences come first.
pub fn check(target: &Network, rails: &Rails<'_>) -> Result<(), Refused> {
    let target = *target;
    let shortest = shortest_prefix(&target);
    if target.prefix() < shortest {
        return Err(Refused::TooWide { target, shortest });
    }
    let is_hit = |address: &IpAddr| target.contains(*address);
    if let Some(entry) = loopbacks().into_iter().find(|entry| entry.overlaps(&target)) {
        return Err(Refused::Loopback { target, entry });
    }
    if is_hit(&Ipv4Addr::UNSPECIFIED.into()) || is_hit(&Ipv6Addr::UNSPECIFIED.into()) {
        return Err(Refused::Unspecified { target });
    }
    if let Some(address) = rails.operator.filter(is_hit) {
        return Err(Refused::Operator { target, address: canonical(address) });
    }
    if let Some(address) = rails.own.iter().copied().find(is_hit) {
        return Err(Refused::Own { target, address: canonical(address) });
    }
    if let Some(entry) = rails.trusted.iter().copied().find(|entry| entry.overlaps(&target)) {
        return Err(Refused::TrustedProxy { target, entry });
    }
    if let Some(entry) = rails.allowed.iter().copied().find(|entry| entry.overlaps(&target)) {
        return Err(Refused::Allowed { target, entry });
    }
    Ok(())
}

/// What an operator should know about a target that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The text had host bits set; this network is meant instead.
    HostBitsMasked(Network),
    /// Its addresses are shared by many subscribers (RFC 6598).
    SharedUsers(Network),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::HostBitsMasked(network) => {
                write!(f, "the host bits were masked: this is the whole network {network}")
            }
            Notice::SharedUsers(network) => write!(
                f,
                "{network} lies in 100.64.0.0/10 (carrier-grade NAT), where many users share an address"
            ),
        }
    }
}

/// Everything worth saying about a target as it was read.
pub fn notices(target: &Parsed) -> impl Iterator<Item = Notice> {
    let Parsed { network, masked } = *target;
    let masked = masked.then_some(Notice::HostBitsMasked(network));
    masked.into_iter().chain(shared_users_notice(&network))
}

/// Whether many users share the addresses of this network, as far as its number tells (RFC 6598).
pub fn shared_users_notice(network: &Network) -> Option<Notice> {
    let carrier_grade_nat = fixed(Ipv4Addr::new(100, 64, 0, 0).into(), 10);
    carrier_grade_nat.overlaps(network).then_some(Notice::SharedUsers(*network))
}

/// The shortest prefix that may be blocked, or trusted, without insisting: /8 and /16.
pub(crate) fn shortest_prefix(network: &Network) -> u8 {
    if network.is_ipv6() { 16 } else { 8 }
}

fn loopbacks() -> [Network; 2] {
    [fixed(Ipv4Addr::new(127, 0, 0, 0).into(), 8), Network::from(IpAddr::V6(Ipv6Addr::LOCALHOST))]
}

fn fixed(address: IpAddr, prefix: u8) -> Network {
    Network::new(address, prefix).expect("the prefixes written in this file fit their family")
}
