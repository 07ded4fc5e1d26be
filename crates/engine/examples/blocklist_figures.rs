//! Measures the blocklist: `cargo run --release -p ipwarden-engine --example blocklist_figures [networks ..]`.
//!
//! Networks are drawn at random: six in ten single addresses, three in ten /24s (IPv6: /64s), the
//! rest /25 to /31 (IPv6: /32 to /63). "Dependent" look-ups each wait for the answer of the one
//! before, as far as the processor does not guess it; "independent" ones may overlap. Times are the
//! median of five rounds.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and prints"
)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use fastrand::Rng;
use ipwarden_engine::blocklist::{ListEntry, RangeMap, disk};
use ipwarden_engine::network::Network;

const LOOK_UPS: usize = 1 << 20;

fn main() {
    let sizes = std::env::args().skip(1).map(|size| size.parse().expect("a number of networks"));
    let mut sizes: Vec<usize> = sizes.collect();
    if sizes.is_empty() {
        sizes = vec![1_000_000, 10_000_000];
    }
    println!(
        "networks  IPv4  | build ms: sorted, not | bytes each | hit/miss ns: dependent | independent"
    );
    for size in sizes {
        for v4_percent in [100, 90, 0] {
            look_ups(size, v4_percent);
        }
    }
    copy_on_disk(1_000_000);
}

fn look_ups(size: usize, v4_percent: usize) {
    let mut random = Rng::with_seed(1);
    let unsorted: Vec<ListEntry> = (0..size).map(|_| draw(&mut random, v4_percent)).collect();
    let mut sorted = unsorted.clone();
    sorted.sort_unstable_by_key(|entry| entry.network);
    let of_sorted = median_ms(|| RangeMap::build(sorted.iter().copied()));
    let of_unsorted = median_ms(|| RangeMap::build(unsorted.iter().copied()));

    let map = RangeMap::build(sorted);
    let hits: Vec<IpAddr> =
        (0..LOOK_UPS).map(|_| unsorted[random.usize(..size)].network.address()).collect();
    let misses: Vec<IpAddr> =
        std::iter::repeat_with(|| draw(&mut random, v4_percent).network.address())
            .filter(|address| map.find(*address).is_none())
            .take(LOOK_UPS)
            .collect();
    println!(
        "{size:>8}  {v4_percent:>3} % | {of_sorted:>14.0}, {of_unsorted:>5.0} | {:>10.1} | {:>14.0} / {:>5.0} | {:>5.0} / {:>5.0}",
        map.bytes() as f64 / size as f64,
        dependent_ns(&map, &hits),
        dependent_ns(&map, &misses),
        independent_ns(&map, &hits),
        independent_ns(&map, &misses),
    );
}

fn draw(random: &mut Rng, v4_percent: usize) -> ListEntry {
    let (single, narrow) = (random.u8(..10) < 6, random.u8(..4) < 3);
    let network = if random.usize(..100) < v4_percent {
        let prefix = if single {
            32
        } else if narrow {
            24
        } else {
            random.u8(25..32)
        };
        Network::new(IpAddr::V4(random.u32(..).into()), prefix)
    } else {
        // Global unicast, 2000::/3.
        let prefix = if single {
            128
        } else if narrow {
            64
        } else {
            random.u8(32..64)
        };
        Network::new(IpAddr::V6((1 << 125 | random.u128(..) >> 3).into()), prefix)
    };
    ListEntry {
        network: network.expect("the prefix fits the family"),
        ends: random.bool().then(|| random.i64(1_800_000_000_000_000..1_900_000_000_000_000)),
        by_scan: random.bool(),
    }
}

fn dependent_ns(map: &RangeMap, addresses: &[IpAddr]) -> f64 {
    let ms = median_ms(|| {
        let (mut at, mut seen) = (0, 0);
        for _ in 0..addresses.len() {
            let by_scan = map.find(addresses[at]).is_some_and(|hit| hit.by_scan);
            seen += usize::from(by_scan);
            at = (at + 1 + usize::from(by_scan)) % LOOK_UPS;
        }
        seen
    });
    ms * 1e6 / addresses.len() as f64
}

fn independent_ns(map: &RangeMap, addresses: &[IpAddr]) -> f64 {
    let ms = median_ms(|| addresses.iter().filter(|address| map.find(**address).is_some()).count());
    ms * 1e6 / addresses.len() as f64
}

fn copy_on_disk(size: usize) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("lists.snapshot");
    let mut random = Rng::with_seed(1);
    let entries: Vec<ListEntry> = (0..size).map(|_| draw(&mut random, 90)).collect();
    let encode = median_ms(|| disk::encode(1, 0, entries.iter().copied(), []));
    let save = median_ms(|| {
        disk::save(&path, 1, 0, entries.iter().copied(), []).expect("the disk has room")
    });
    let load = median_ms(|| disk::load(&path).expect("it was just written"));
    let start = median_ms(|| {
        let snapshot = disk::load(&path).expect("it was just written").expect("it is there");
        RangeMap::build(snapshot.blocked())
    });
    println!(
        "copy of {size} on disk: encode {encode:.0} ms, save {save:.0} ms, load {load:.0} ms, load and build {start:.0} ms"
    );
}

fn median_ms<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut rounds = [(); 5].map(|()| {
        let start = Instant::now();
        black_box(work());
        start.elapsed().as_secs_f64() * 1e3
    });
    rounds.sort_by(f64::total_cmp);
    rounds[2]
}
