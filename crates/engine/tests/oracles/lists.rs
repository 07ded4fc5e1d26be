//! The lists against a search through all entries, one by one.
//!
//! An input is bytes: entries and questions of twelve bytes each. What is judged: who is allowed, who is
//! blocked, until when and by whom, on every address at a border of an entry and on those asked
//! for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipwarden_engine::blocklist::{Hit, ListEntry, Lists};
use ipwarden_engine::network::{self, Network};

/// Seconds of the beginning of 2020 since the Unix epoch: entries end around it.
const BASE: i64 = 1_577_836_800;
const SECOND: i64 = 1_000_000;

/// Judges one input.
///
/// # Panics
/// If the lists break a promise.
pub(crate) fn lists(input: &[u8]) {
    let (mut blocked, mut allowed, mut places) = (Vec::new(), Vec::new(), Vec::new());
    let mut now = BASE * SECOND;
    for word in input.as_chunks::<12>().0.iter().take(300) {
        let [kind, prefix, e0, e1, rest @ ..] = *word;
        let address = address(kind, rest);
        let ends = i64::from(u16::from_le_bytes([e0, e1]));
        let network = Network::of_client(address, 128);
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let network = Network::new(network.address(), prefix % (longest + 1)).unwrap_or(network);
        let entry = ListEntry {
            network,
            // Some end between two seconds, some before 2020, some never.
            ends: (kind & 8 == 0).then_some(BASE * SECOND + (ends - 256) * SECOND / 4),
            by_scan: kind & 16 != 0,
        };
        places.extend([network.address(), network.last_address()].map(network::bits));
        match kind & 3 {
            0 | 1 => blocked.push(entry),
            2 => allowed.push(entry),
            _ => {
                places.push(network::bits(address));
                now = BASE * SECOND + ends * SECOND / 4;
            }
        }
    }
    let lists = Lists::build(7, blocked.clone(), allowed.clone());
    let mut around: Vec<u128> =
        places.iter().flat_map(|at| [at.wrapping_sub(1), *at, at.wrapping_add(1)]).collect();
    around.sort_unstable();
    around.dedup();
    for place in around {
        let ip = network::canonical(Ipv6Addr::from_bits(place).into());
        let is_allowed = answer(&allowed, ip, Some(now)).is_some();
        assert_eq!(lists.is_allowed(ip, now), is_allowed, "{ip} at {now}");
        let block = answer(&blocked, ip, Some(now)).filter(|_| !is_allowed);
        assert_eq!(lists.find_block(ip, now), block, "{ip} at {now}");
        assert_eq!(lists.blocked().find(ip), answer(&blocked, ip, None), "{ip} at any time");
        assert_eq!(lists.allowed().find(ip), answer(&allowed, ip, None), "{ip} at any time");
    }
}

/// IPv4, IPv6 around the place of IPv4, or IPv6 in a few crowded networks.
fn address(kind: u8, rest: [u8; 8]) -> IpAddr {
    let low = u64::from_be_bytes(rest);
    match kind >> 5 {
        0..=3 => Ipv4Addr::from_bits((low >> 32) as u32).into(),
        4 => Ipv6Addr::from_bits(u128::from(low) << 64 | u128::from(low)).into(),
        5 => Ipv6Addr::from_bits(0xffff << 32 ^ u128::from(low)).into(),
        6 => Ipv6Addr::from_bits(u128::from(low)).into(),
        _ => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low) << 32).into(),
    }
}

/// Of the entries that cover an address, and that have not ended if a time is given, what the one
/// that ends last says; a person's before the scan's.
fn answer(entries: &[ListEntry], ip: IpAddr, now: Option<i64>) -> Option<Hit> {
    let covering = entries.iter().filter(|entry| entry.network.contains(ip));
    let hits =
        covering.map(|entry| Hit { ends: entry.ends.map(whole_second), by_scan: entry.by_scan });
    let running = hits.filter(|hit| now.is_none_or(|now| hit.ends.is_none_or(|ends| ends > now)));
    running.max_by_key(|hit| (hit.ends.unwrap_or(i64::MAX), !hit.by_scan))
}

/// Ends are kept in whole seconds since 2020, rounded up, so that no entry ends early.
fn whole_second(ends: i64) -> i64 {
    let since = (ends - BASE * SECOND).max(0);
    BASE * SECOND + (since + SECOND - 1) / SECOND * SECOND
}
