//! The blocklist in memory: nine in ten networks IPv4, drawn as `crates/engine/examples/blocklist_figures.rs`
//! draws them, which measures more shapes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipwarden_engine::blocklist::{ListEntry, RangeMap};
use ipwarden_engine::network::Network;

use super::{nanoseconds, seconds};
use crate::document::Findings;

const LOOK_UPS: usize = 1 << 20;

pub(super) fn measure(millions: usize, findings: &mut Findings) {
    let count = millions * 1_000_000;
    let mut random = Rng::with_seed(1);
    let mut entries: Vec<ListEntry> = (0..count).map(|_| draw(&mut random)).collect();
    // As the store hands them over.
    entries.sort_unstable_by_key(|entry| entry.network);
    let build = seconds(|| RangeMap::build(entries.iter().copied()));
    let map = RangeMap::build(entries.iter().copied());
    let hits: Vec<IpAddr> =
        (0..LOOK_UPS).map(|_| entries[random.usize(..count)].network.address()).collect();
    let independent = nanoseconds(LOOK_UPS, || {
        hits.iter().filter(|address| map.find(**address).is_some()).count()
    });
    // Each look-up waits for the answer of the one before.
    let dependent = nanoseconds(LOOK_UPS, || {
        let mut at = 0;
        for _ in 0..LOOK_UPS {
            let by_scan = map.find(hits[at]).is_some_and(|hit| hit.by_scan);
            at = (at + 1 + usize::from(by_scan)) % LOOK_UPS;
        }
        at
    });
    let key = |what: &str| format!("lists {millions}M {what}");
    let of = format!("{millions} million networks");
    let name = |what: &str| format!("{of}: {what}");
    findings.note(&key("independent"), independent, name("look-up that hits, independent"), "ns");
    findings.note(&key("dependent"), dependent, name("look-up that hits, dependent"), "ns");
    findings.note(&key("build"), build * 1e3, name("build"), "ms");
    findings.note(&key("bytes"), map.bytes() as f64 / count as f64, name("memory each"), "B");
}

fn draw(random: &mut Rng) -> ListEntry {
    let (kind, v4) = (random.u8(..10), random.u8(..10) > 0);
    let (single, whole, between) = if v4 { (32, 24, 25..32) } else { (128, 64, 32..64) };
    let prefix = match kind {
        0..6 => single,
        6..9 => whole,
        _ => random.u8(between),
    };
    let address = match v4 {
        true => IpAddr::V4(Ipv4Addr::from_bits(random.u32(..))),
        // Global unicast, 2000::/3.
        false => IpAddr::V6(Ipv6Addr::from_bits(1 << 125 | random.u128(..) >> 3)),
    };
    let network = Network::new(address, prefix).expect("the prefix fits the family");
    let ends = random.bool().then(|| random.i64(1_800_000_000_000_000..1_900_000_000_000_000));
    ListEntry { network, ends, by_scan: random.bool() }
}
