use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

mod disk;

const SECOND: i64 = 1_000_000;
/// 2026-11-22T00:00:00Z.
const NOW: i64 = 1_795_305_600 * SECOND;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn entry(network: &str, ends: Option<i64>) -> ListEntry {
    ListEntry { network: network.parse().unwrap(), ends, by_scan: false }
}

fn forever(networks: &[&str]) -> Vec<ListEntry> {
    networks.iter().map(|network| entry(network, None)).collect()
}

fn check(entries: &[ListEntry], covered: &[&str], free: &[&str]) {
    let map = RangeMap::build(entries.iter().copied());
    for address in covered {
        assert!(map.find(ip(address)).is_some(), "{address} is not covered by {map:?}");
    }
    for address in free {
        assert_eq!(map.find(ip(address)), None, "{address} is covered by {map:?}");
    }
}

#[test]
fn an_empty_list_covers_nothing() {
    check(
        &[],
        &[],
        &["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
    );
    assert!(RangeMap::default().is_empty());
    assert_eq!(Lists::empty().version, 0);
}

#[test]
fn the_first_and_the_last_address_of_a_network_are_in_it_and_their_neighbours_are_not() {
    check(
        &forever(&["192.0.2.64/26", "2001:db8:0:1::/64"]),
        &["192.0.2.64", "192.0.2.127", "2001:db8:0:1::", "2001:db8:0:1:ffff:ffff:ffff:ffff"],
        &["192.0.2.63", "192.0.2.128", "2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:db8:0:2::"],
    );
}

#[test]
fn the_outermost_addresses_can_be_listed_alone() {
    check(
        &forever(&["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        &["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        &["0.0.0.1", "255.255.255.254", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"],
    );
}

#[test]
fn a_whole_family_can_be_listed_and_leaves_the_other_alone() {
    let v4 = ["0.0.0.0", "192.0.2.1", "255.255.255.255"];
    let v6 = ["::", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
    check(&forever(&["0.0.0.0/0"]), &v4, &v6);
    check(&forever(&["::/0"]), &v6, &v4);
}

#[test]
fn networks_that_touch_become_one_range_and_keep_their_outer_bounds() {
    let entries = forever(&["192.0.2.0/25", "192.0.2.128/25", "192.0.3.0/24"]);
    check(
        &entries,
        &["192.0.2.0", "192.0.2.127", "192.0.2.128", "192.0.3.255"],
        &["192.0.1.255", "192.0.4.0"],
    );
    assert_eq!(RangeMap::build(entries).ranges(), 1);
}

#[test]
fn a_mapped_address_is_looked_up_as_the_ipv4_address_it_stands_for() {
    check(&forever(&["192.0.2.0/24"]), &["::ffff:192.0.2.9"], &["::ffff:192.0.3.9", "::192.0.2.9"]);
}

#[test]
fn of_nested_networks_the_one_that_ends_last_answers() {
    let map = RangeMap::build([
        entry("10.0.0.0/8", Some(NOW + 5 * SECOND)),
        entry("10.2.0.0/16", Some(NOW + 9 * SECOND)),
        entry("10.2.3.0/24", Some(NOW + 7 * SECOND)),
        entry("10.2.3.4", None),
    ]);
    let ends = |address| map.find(ip(address)).map(|hit| hit.ends);
    assert_eq!(ends("10.1.0.0"), Some(Some(NOW + 5 * SECOND)));
    assert_eq!(ends("10.2.0.0"), Some(Some(NOW + 9 * SECOND)));
    assert_eq!(ends("10.2.3.3"), Some(Some(NOW + 9 * SECOND)));
    assert_eq!(ends("10.2.3.4"), Some(None));
    assert_eq!(ends("10.2.3.5"), Some(Some(NOW + 9 * SECOND)));
    assert_eq!(ends("10.3.0.0"), Some(Some(NOW + 5 * SECOND)));
    assert_eq!(ends("11.0.0.0"), None);
}

#[test]
fn of_two_that_end_together_the_one_that_a_person_made_answers() {
    let mine = entry("192.0.2.0/24", Some(NOW));
    let scans = ListEntry { network: "192.0.2.9".parse().unwrap(), by_scan: true, ..mine };
    for entries in [[mine, scans], [scans, mine]] {
        assert_eq!(
            RangeMap::build(entries).find(ip("192.0.2.9")),
            Some(Hit { ends: Some(NOW), by_scan: false })
        );
    }
    assert_eq!(
        RangeMap::build([scans]).find(ip("192.0.2.9")),
        Some(Hit { ends: Some(NOW), by_scan: true })
    );
}

#[test]
fn a_block_is_in_force_until_its_end_rounded_up_to_the_second() {
    let lists = Lists::build(
        1,
        [entry("192.0.2.1", Some(NOW + 1)), entry("192.0.2.2", Some(NOW + SECOND))],
        [],
    );
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(
            lists.find_block(ip(address), NOW + SECOND - 1).unwrap().ends,
            Some(NOW + SECOND)
        );
        assert_eq!(lists.find_block(ip(address), NOW + SECOND), None);
    }
}

#[test]
fn ends_beyond_what_is_counted_err_on_the_side_of_the_list() {
    let far = 5_000_000_000 * SECOND;
    let lists = Lists::build(
        1,
        [
            entry("192.0.2.1", Some(far)),
            entry("192.0.2.2", None),
            entry("192.0.2.3", Some(i64::MIN)),
        ],
        [],
    );
    assert_eq!(lists.find_block(ip("192.0.2.1"), NOW), Some(Block { ends: None, by_scan: false }));
    assert_eq!(
        lists.find_block(ip("192.0.2.2"), i64::MAX),
        Some(Block { ends: None, by_scan: false })
    );
    assert_eq!(lists.find_block(ip("192.0.2.3"), NOW), None);
    assert_eq!(lists.find_block(ip("192.0.2.3"), i64::MIN), None);
}

#[test]
fn allowed_beats_blocked_whichever_is_narrower() {
    let lists = Lists::build(
        1,
        forever(&["10.0.0.0/8", "192.0.2.1"]),
        forever(&["10.1.0.0/16", "192.0.2.0/24"]),
    );
    assert!(lists.find_block(ip("10.0.0.1"), NOW).is_some());
    for address in ["10.1.0.1", "192.0.2.1"] {
        assert!(lists.is_allowed(ip(address), NOW));
        assert_eq!(lists.find_block(ip(address), NOW), None);
    }
}

#[test]
fn an_allowance_that_has_ended_shields_from_no_block() {
    let lists = Lists::build(1, forever(&["192.0.2.1"]), [entry("192.0.2.0/24", Some(NOW))]);
    assert_eq!(lists.find_block(ip("192.0.2.1"), NOW - 1), None);
    assert!(lists.find_block(ip("192.0.2.1"), NOW).is_some());
}

#[test]
fn unblocking_one_of_nested_networks_leaves_the_others() {
    let check_blocked = |entries: &[&str], expect: bool, address| {
        let lists = Lists::build(1, forever(entries), []);
        assert_eq!(
            lists.find_block(ip(address), NOW).is_some(),
            expect,
            "{address} in {entries:?}"
        );
    };
    check_blocked(&["10.2.0.0/16", "10.2.3.4"], true, "10.2.3.4");
    check_blocked(&["10.2.0.0/16", "10.2.3.4"], true, "10.2.3.9");
    check_blocked(&["10.2.3.4"], false, "10.2.3.9");
}

#[test]
fn a_list_long_enough_for_the_bitmap_answers_like_a_short_one() {
    // Every other /26 of 10.0.0.0/10, and one network of many /24s.
    let networks = (0..32_768u32)
        .map(|n| Network::new(IpAddr::V4((0x0a00_0000 | n << 7).into()), 26).unwrap());
    let wide: Network = "172.16.0.0/12".parse().unwrap();
    let map = RangeMap::build(networks.chain([wide]).map(|network| ListEntry {
        network,
        ends: None,
        by_scan: false,
    }));
    assert_eq!(map.ranges(), 32_769);
    for n in (0..4 << 20).step_by(31) {
        let address = IpAddr::V4((0x0a00_0000u32 | n).into());
        assert_eq!(map.find(address).is_some(), n & 64 == 0, "{address}");
    }
    for (address, expect) in [
        ("9.255.255.255", false),
        ("10.64.0.0", false),
        ("172.15.255.255", false),
        ("172.16.0.0", true),
        ("172.24.1.2", true),
        ("172.31.255.255", true),
        ("172.32.0.0", false),
    ] {
        assert_eq!(map.find(ip(address)).is_some(), expect, "{address}");
    }
}

/// The same answer by looking at every entry.
fn naive(entries: &[ListEntry], address: IpAddr) -> Option<Hit> {
    let rounded = |ends: i64| ends + (SECOND - ends.rem_euclid(SECOND)) % SECOND;
    let covering = entries.iter().filter(|entry| entry.network.contains(address));
    covering
        .max_by_key(|entry| (entry.ends.is_none(), entry.ends.map(rounded), !entry.by_scan))
        .map(|entry| Hit { ends: entry.ends.map(rounded), by_scan: entry.by_scan })
}

/// Networks that crowd into few places, so that they nest, repeat and touch.
fn network() -> impl Strategy<Value = Network> {
    let v4 = (
        prop_oneof![Just(0u32), Just(0x0a02_0304), Just(u32::MAX), any::<u32>()],
        0..=32u8,
        0..16u32,
        0..=28u32,
    )
        .prop_map(|(at, prefix, bits, place)| (IpAddr::V4((at ^ bits << place).into()), prefix));
    let v6 = (
        prop_oneof![Just(0u128), Just(0x2001_0db8 << 96), Just(u128::MAX), any::<u128>()],
        0..=128u8,
        0..16u128,
        0..=124u32,
    )
        .prop_map(|(at, prefix, bits, place)| (IpAddr::V6((at ^ bits << place).into()), prefix));
    prop_oneof![v4, v6].prop_map(|(address, prefix)| {
        Network::new(address, prefix.min(if address.is_ipv4() { 32 } else { 128 })).unwrap()
    })
}

fn list_entry() -> impl Strategy<Value = ListEntry> {
    let ends = prop_oneof![
        Just(None),
        (-3..4i64).prop_map(|seconds| Some(NOW + seconds * SECOND)),
        (-3 * SECOND..4 * SECOND).prop_map(|micros| Some(NOW + micros)),
    ];
    (network(), ends, any::<bool>()).prop_map(|(network, ends, by_scan)| ListEntry {
        network,
        ends,
        by_scan,
    })
}

/// The addresses at which an answer may change, and some others.
fn probes(entries: &[ListEntry]) -> Vec<IpAddr> {
    let mut probes: Vec<IpAddr> =
        ["0.0.0.0", "10.2.3.5", "255.255.255.255", "::", "2001:db8::1"].map(ip).into();
    probes.push(IpAddr::V6(u128::MAX.into()));
    for entry in entries {
        let prefix = entry.network.prefix();
        match entry.network.address() {
            IpAddr::V4(first) => {
                let first = first.to_bits();
                let last = first | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                let near = [
                    first.wrapping_sub(1),
                    first,
                    first + (last - first) / 2,
                    last,
                    last.wrapping_add(1),
                ];
                probes.extend(near.map(|bits| IpAddr::V4(bits.into())));
            }
            IpAddr::V6(first) => {
                let first = first.to_bits();
                let last = first | u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
                let near = [
                    first.wrapping_sub(1),
                    first,
                    first + (last - first) / 2,
                    last,
                    last.wrapping_add(1),
                ];
                probes.extend(near.map(|bits| IpAddr::V6(bits.into())));
            }
        }
    }
    probes
}

proptest! {
    #[test]
    fn a_map_answers_like_a_look_at_every_entry(entries in prop::collection::vec(list_entry(), 0..120)) {
        let map = RangeMap::build(entries.iter().copied());
        for address in probes(&entries) {
            prop_assert_eq!(map.find(address), naive(&entries, address), "{}", address);
        }
    }

    #[test]
    fn the_order_of_entries_does_not_matter(entries in prop::collection::vec(list_entry(), 0..60).prop_shuffle()) {
        let map = RangeMap::build(entries.iter().copied());
        let mut sorted = entries.clone();
        sorted.sort_by_key(|entry| entry.network);
        let same = RangeMap::build(sorted);
        prop_assert_eq!(map.ranges(), same.ranges());
        for address in probes(&entries) {
            prop_assert_eq!(map.find(address), same.find(address));
        }
    }

    #[test]
    fn lists_answer_like_a_look_at_every_entry(
        blocked in prop::collection::vec(list_entry(), 0..40),
        allowed in prop::collection::vec(list_entry(), 0..40),
        at in -4 * SECOND..5 * SECOND,
    ) {
        let lists = Lists::build(7, blocked.iter().copied(), allowed.iter().copied());
        let now = NOW + at;
        let active = |hit: &Hit| hit.ends.is_none_or(|ends| ends > now);
        for address in probes(&blocked).into_iter().chain(probes(&allowed)) {
            let is_allowed = naive(&allowed, address).filter(active).is_some();
            let block = naive(&blocked, address).filter(active).filter(|_| !is_allowed);
            prop_assert_eq!(lists.is_allowed(address, now), is_allowed, "{}", address);
            prop_assert_eq!(lists.find_block(address, now), block, "{}", address);
        }
    }
}

#[test]
fn long_lists_of_both_families_answer_like_a_trie() {
    use prefix_trie::PrefixMap;

    let mut random = fastrand::Rng::with_seed(2);
    let (mut map4, mut map6) = (PrefixMap::new(), PrefixMap::new());
    let mut entries = Vec::new();
    for _ in 0..20_000 {
        let v4 = ipnet::Ipv4Net::new(random.u32(..).into(), random.u8(12..=32)).unwrap().trunc();
        let v6 = ipnet::Ipv6Net::new(
            (0x2001 << 112 | random.u128(..) >> 16).into(),
            random.u8(20..=128),
        )
        .unwrap()
        .trunc();
        map4.insert(v4, ());
        map6.insert(v6, ());
        entries.push(entry(&v4.to_string(), None));
        entries.push(entry(&v6.to_string(), None));
    }
    let map = RangeMap::build(entries.iter().copied());
    let mut seen = [0; 2];
    for probe in probes(&entries) {
        let expect = match probe {
            IpAddr::V4(address) => map4.get_lpm(&address.into()).is_some(),
            IpAddr::V6(address) => map6.get_lpm(&address.into()).is_some(),
        };
        assert_eq!(map.find(probe).is_some(), expect, "{probe}");
        seen[usize::from(expect)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 1000), "the probes miss and hit: {seen:?}");
}

#[test]
fn a_network_inside_every_other_is_flattened_in_one_sweep() {
    // Ten thousand repetitions of every prefix around one address, each ending later than the
    // one before: a flattening that looks back over open networks would take minutes.
    let around = ip("10.2.3.4");
    let entries = (0..10_000i64).flat_map(|round| {
        (0..=32u8).map(move |prefix| ListEntry {
            network: Network::new(around, prefix).unwrap(),
            ends: Some(NOW + round * SECOND + i64::from(prefix)),
            by_scan: false,
        })
    });
    let map = RangeMap::build(entries);
    assert_eq!(map.find(around).unwrap().ends, Some(NOW + 10_000 * SECOND));
    assert_eq!(map.find(ip("255.255.255.255")).unwrap().ends, Some(NOW + 9_999 * SECOND));
}
