//! The lists at a million networks: what they cost, and that the answers are still right.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::IpAddr;
use std::time::Duration;

use fastrand::Rng;
use ipwarden_engine::blocklist::{ListEntry, Lists, disk};
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;

const NETWORKS: usize = 1_000_000;
/// The goal, at nine IPv4 networks of ten.
const BYTES_EACH: usize = 24;
/// Ten times the goal, for a build with optimisation; without it times are printed only.
const LONGEST_START: Duration = Duration::from_secs(1);

fn draw(random: &mut Rng) -> ListEntry {
    let network = match random.u8(..10) {
        0 => {
            Network::new(IpAddr::V6((1 << 125 | random.u128(..) >> 3).into()), random.u8(48..=128))
        }
        // Never 203.0.113.0/24, which is kept for the one that is added.
        _ => Network::new(IpAddr::V4(random.u32(..0xcb00_0000).into()), random.u8(24..=32)),
    };
    ListEntry { network: network.unwrap(), ends: None, by_scan: false }
}

#[test]
fn a_million_networks_start_from_the_disk_and_one_more_is_found() {
    let mut random = Rng::with_seed(12);
    let mut entries: Vec<ListEntry> = (0..NETWORKS).map(|_| draw(&mut random)).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists.snapshot");
    disk::save(&path, 7, 0, entries.iter().copied(), []).unwrap();

    let began = Moment::now();
    let snapshot = disk::load(&path).unwrap().unwrap();
    let lists = Lists::build(snapshot.version(), snapshot.blocked(), snapshot.allowed());
    let start = Duration::from_micros(Moment::now().steady - began.steady);
    let each = lists.blocked().bytes() / NETWORKS;
    eprintln!("a million networks: from the disk in {start:?}, {each} bytes each");

    assert_eq!(lists.version, 7);
    assert!(each <= BYTES_EACH, "{each} bytes a network");
    assert!(cfg!(debug_assertions) || start < LONGEST_START, "{start:?}");
    for entry in &entries {
        assert!(lists.find_block(entry.network.address(), 0).is_some(), "{}", entry.network);
        assert!(lists.find_block(entry.network.last_address(), 0).is_some(), "{}", entry.network);
    }
    let added: Network = "203.0.113.9".parse().unwrap();
    assert_eq!(lists.find_block(added.address(), 0), None);

    entries.push(ListEntry { network: added, ends: None, by_scan: false });
    let lists = Lists::build(8, entries, []);
    assert!(lists.find_block(added.address(), 0).is_some());
    assert_eq!(lists.find_block("203.0.113.10".parse().unwrap(), 0), None);
}
