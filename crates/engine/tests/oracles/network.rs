//! Networks against `std::net` and `ipnet`.
//!
//! An input is text: what is read as a network, and then addresses to look for in it. What is
//! judged: which texts are networks, that the canonical text is read back as the same network,
//! which addresses it holds, and that a refusal is one short line for a terminal.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ipwarden_engine::network::{self, Network};

/// Judges one input.
///
/// # Panics
/// If a network breaks a promise.
pub(crate) fn network(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let mut rows = input.split('\n');
    let text = rows.next().unwrap_or_default();
    let parsed = match (Network::parse(text), reference(text)) {
        (Ok(parsed), Some(reference)) => {
            assert_eq!(as_ipnet(parsed.network), reference, "{text:?}");
            parsed
        }
        (Err(error), None) => {
            let message = error.to_string();
            assert!(message.len() < 1_500 && !message.contains(char::is_control), "{message:?}");
            return;
        }
        (found, reference) => panic!("{text:?} is {found:?} instead of {reference:?}"),
    };
    let network = parsed.network;

    let written = network.to_string();
    let again = Network::parse(&written).expect("the canonical text is a network");
    assert_eq!((again.network, again.masked), (network, false));
    assert_eq!(again.network.to_string(), written);
    assert_eq!(written.contains('/'), !network.is_address());
    // Only a mapped text with so short a prefix that it stays IPv6 keeps an address of its own.
    let given: Option<IpAddr> = text.split('/').next().and_then(|address| address.parse().ok());
    let is_own =
        |address: IpAddr| [address, network::canonical(address)].contains(&network.address());
    assert_eq!(parsed.masked, !given.is_some_and(is_own), "{text:?}");
    assert_eq!(Network::new(network.address(), network.prefix()), Ok(network));

    holds_what_it_should(network, network.address());
    holds_what_it_should(network, network.last_address());
    let mut before = network;
    for address in rows.filter_map(|row| row.parse::<IpAddr>().ok()) {
        holds_what_it_should(network, address);
        let other = Network::of_client(address, network.prefix());
        let both = [network, other].map(as_ipnet);
        let covers = both[0].contains(&both[1]);
        assert_eq!(network.covers(&other), covers, "{network} and {other}");
        assert_eq!(network.overlaps(&other), covers || both[1].contains(&both[0]));
        if other.covers(&before) {
            assert!(other <= before, "a network precedes what lies inside it");
        }
        before = other;
    }
}

fn holds_what_it_should(network: Network, address: IpAddr) {
    let canonical = network::canonical(address);
    let holds = as_ipnet(network).contains(&canonical);
    assert_eq!(network.contains(address), holds, "{network} and {address}");
    let place = network::bits(canonical);
    let in_ranges = network.ranges().any(|(first, last)| first <= place && place <= last);
    // A mapped address has the place of its IPv4 address, where no IPv6 range may be.
    assert_eq!(in_ranges, holds, "the ranges of {network} and {address}");
}

/// Reads a network with `std::net` and `ipnet` alone.
fn reference(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        None => (text.parse::<IpAddr>().ok()?, None),
        Some((address, digits)) => {
            let prefix: u8 = digits.parse().ok()?;
            (address.parse().ok()?, (prefix.to_string() == digits).then_some(prefix)?.into())
        }
    };
    let network = match (address, address.to_canonical()) {
        (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix.unwrap_or(128) >= 96 => {
            Ipv4Net::new(mapped, prefix.unwrap_or(128).checked_sub(96)?).ok()?.into()
        }
        (IpAddr::V6(v6), _) => IpNet::from(Ipv6Net::new(v6, prefix.unwrap_or(128)).ok()?),
        (IpAddr::V4(v4), _) => Ipv4Net::new(v4, prefix.unwrap_or(32)).ok()?.into(),
    };
    Some(network.trunc())
}

fn as_ipnet(network: Network) -> IpNet {
    IpNet::new(network.address(), network.prefix()).expect("a prefix of its family")
}
