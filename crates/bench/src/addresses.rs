//! Clients and blocked networks: drawn at random, the same ones in every run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipwarden_engine::blocklist::ListEntry;
use ipwarden_engine::network::Network;

/// Clients are drawn below this first octet, blocked networks from it on.
const FIRST_BLOCKED: u8 = 128;

/// Distinct clients, nine in ten of them IPv4, none of them in a [`blocked`] network.
pub fn clients(count: usize) -> Vec<IpAddr> {
    let mut random = Rng::with_seed(1);
    let mut clients = std::collections::HashSet::with_capacity(count);
    let mut ordered = Vec::with_capacity(count);
    while ordered.len() < count {
        let client = match random.u8(..10) {
            // 2400::/12 is in use all over Asia; blocked networks lie in 2a00::/12.
            0 => IpAddr::V6(Ipv6Addr::from_bits(0x2400 << 112 | random.u128(..) >> 12)),
            _ => {
                let [_, b, c, d] = random.u32(..).to_be_bytes();
                // Neither 0/8, 10/8 nor 127/8.
                IpAddr::V4(Ipv4Addr::new(random.u8(11..FIRST_BLOCKED - 1), b, c, d))
            }
        };
        if clients.insert(client) {
            ordered.push(client);
        }
    }
    ordered
}

/// The client of a number below 2^24, another one for each.
pub fn numbered(number: u32) -> IpAddr {
    let [_, b, c, d] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(11, b, c, d))
}

/// Networks to block, nine in ten of them IPv4: six in ten single addresses, three in ten /24s
/// (IPv6: /64s), the rest /25 to /31 (IPv6: /33 to /63).
pub fn blocked(count: usize) -> Vec<Network> {
    let mut random = Rng::with_seed(2);
    std::iter::repeat_with(|| drawn(&mut random)).take(count).collect()
}

/// The same as entries without an end.
pub fn entries(networks: impl IntoIterator<Item = Network>) -> impl Iterator<Item = ListEntry> {
    networks.into_iter().map(|network| ListEntry { network, ends: None, by_scan: false })
}

/// Networks that hold every client.
pub fn everyone() -> [Network; 2] {
    ["0.0.0.0/1", "2400::/12"].map(|text| text.parse().expect("a network"))
}

fn drawn(random: &mut Rng) -> Network {
    let (kind, v6) = (random.u8(..10), random.u8(..10) == 0);
    let (address, prefix) = if v6 {
        let address = IpAddr::V6(Ipv6Addr::from_bits(0x2a00 << 112 | random.u128(..) >> 12));
        (address, [128, 64, random.u8(33..64)][class(kind)])
    } else {
        let [_, b, c, d] = random.u32(..).to_be_bytes();
        let address = Ipv4Addr::new(random.u8(FIRST_BLOCKED..224), b, c, d);
        (IpAddr::V4(address), [32, 24, random.u8(25..32)][class(kind)])
    };
    Network::new(address, prefix).expect("the prefix fits the family")
}

fn class(kind: u8) -> usize {
    match kind {
        0..6 => 0,
        6..9 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ipwarden_engine::blocklist::RangeMap;

    use super::*;

    #[test]
    fn clients_are_distinct_and_none_is_in_a_blocked_network() {
        let clients = clients(20_000);
        assert_eq!(clients.iter().collect::<HashSet<_>>().len(), 20_000);
        let map = RangeMap::build(entries(blocked(20_000)));
        assert_eq!(clients.iter().filter(|client| map.find(**client).is_some()).count(), 0);
        let map = RangeMap::build(entries(everyone()));
        assert!(clients.iter().all(|client| map.find(*client).is_some()));
    }
}
