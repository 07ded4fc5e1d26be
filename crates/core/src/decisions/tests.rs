//! The book against a model that looks at single addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipwarden_engine::network::Network;
use proptest::prelude::*;
use tokio::time::Instant;

use super::book::{Book, Ends};
use super::news::{ListNews, Listed};
use super::{Cause, Decision, Filter};

const NOW: i64 = 1_000;

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

fn row(network: Network, id: i64, ends: Option<i64>, origin: &str) -> Listed {
    let cause = Arc::new(Cause { origin: origin.into(), reason: "".into() });
    Listed { network, id, ends: Ends::of(ends), cause }
}

fn book(blocked: &[(&str, Option<i64>)], allowed: &[&str]) -> Book {
    let rows = blocked.iter().zip(1..);
    let rows = rows.map(|((text, ends), id)| row(network(text), id, *ends, "manual")).collect();
    let allowed = allowed.iter().map(|text| (network(text), Ends::of(None))).collect();
    Book::of(1, rows, allowed, &Book::default())
}

fn values(decisions: &[Decision]) -> Vec<String> {
    decisions.iter().map(|one| one.value.to_string()).collect()
}

fn all(book: &Book, filter: &Filter, blocks: usize) -> Vec<Decision> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = book.page(after, blocks, filter, NOW);
        all.extend(page);
        match next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

/// How long a look-up takes among so many blocks, the median of a thousand.
fn look_up(blocks: u32) -> Duration {
    let first = Ipv4Addr::new(11, 0, 0, 0).to_bits();
    let address = |number: u32| Network::from(IpAddr::from(Ipv4Addr::from(first + number)));
    let rows = (0..blocks).map(|number| row(address(number * 2), number.into(), None, "import"));
    let book = Book::of(1, rows.collect(), Vec::new(), &Book::default());
    let mut times: Vec<Duration> = (0..1_000)
        .map(|number| {
            // Every other one is blocked.
            let network = address(number * (blocks / 500).max(1) / 2);
            let started = Instant::now();
            let found = book.holding(network, &Filter::default(), NOW);
            let took = started.elapsed();
            assert!(found.len() <= 1);
            took
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_look_up_costs_the_same_with_ten_and_with_a_million_blocks() {
    let (few, many) = (look_up(10), look_up(1_000_000));
    eprintln!("a look-up: {few:.1?} with 10 blocks, {many:.1?} with 1,000,000");
    // A map of a million is some levels deeper, and not in the cache of the processor.
    assert!(
        many < few * 20,
        "{few:?} {many:?}: a scan would take a hundred thousand times as long"
    );
}

#[test]
fn a_block_around_an_allowed_network_is_told_in_its_largest_parts_without_it() {
    let book = book(&[("192.0.2.0/24", None)], &["192.0.2.64/26", "192.0.2.2"]);
    let told = all(&book, &Filter::default(), 1);
    assert_eq!(
        values(&told),
        [
            "192.0.2.0/31",
            "192.0.2.3",
            "192.0.2.4/30",
            "192.0.2.8/29",
            "192.0.2.16/28",
            "192.0.2.32/27",
            "192.0.2.128/25"
        ]
    );
    let ids: BTreeSet<i64> = told.iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), told.len(), "each part has a number of its own");
    let holding = |text: &str| values(&book.holding(network(text), &Filter::default(), NOW));
    assert_eq!(holding("192.0.2.3"), ["192.0.2.3"]);
    assert_eq!(holding("192.0.2.200"), ["192.0.2.128/25"]);
    assert_eq!(holding("192.0.2.2"), [""; 0]);
    assert_eq!(holding("192.0.2.0/24"), [""; 0], "not all of it");
    assert_eq!(holding("192.0.3.1"), [""; 0]);
}

#[test]
fn a_block_within_an_allowed_network_is_no_decision() {
    let book = book(&[("192.0.2.1", None), ("192.0.2.0/24", None)], &["192.0.2.0/24"]);
    assert_eq!(all(&book, &Filter::default(), 10), []);
    assert_eq!(book.holding(network("192.0.2.1"), &Filter::default(), NOW), []);
}

#[test]
fn of_several_rows_the_one_that_ends_last_decides_and_the_strongest_comes_first() {
    let book = book(
        &[
            ("192.0.2.1", Some(2_000)),
            ("192.0.2.1", Some(3_000)),
            ("192.0.2.0/24", Some(9_000)),
            ("192.0.0.0/16", None),
            ("192.0.2.1", Some(NOW)),
        ],
        &[],
    );
    let found = book.holding(network("192.0.2.1"), &Filter::default(), NOW);
    assert_eq!(values(&found), ["192.0.0.0/16", "192.0.2.0/24", "192.0.2.1"]);
    assert_eq!(found[2].ends, Some(3_000));
    let inside = book.inside(network("192.0.2.0/24"), &Filter::default(), NOW);
    assert_eq!(values(&inside), ["192.0.2.0/24", "192.0.2.1"]);
}

#[test]
fn a_decision_keeps_its_number_and_its_name_and_shares_them_with_no_other() {
    let book = book(&[("192.0.2.0/24", None), ("192.0.2.1", None)], &["192.0.2.128"]);
    let (once, again) = (all(&book, &Filter::default(), 3), all(&book, &Filter::default(), 1));
    assert_eq!(once, again);
    let names: BTreeSet<String> = once.iter().map(Decision::uuid).collect();
    assert_eq!(names.len(), once.len());
    for name in names {
        assert!(name.len() == 36 && &name[14..15] == "8", "{name}");
    }
}

#[test]
fn what_has_ended_is_told_with_the_origins_that_it_had() {
    let mut book = book(&[("192.0.2.1", None)], &[]);
    let one = network("192.0.2.1");
    let none = || ListNews { networks: vec![], rows: vec![] };
    let set = ListNews { networks: vec![one], rows: vec![row(one, 2, None, "list:bad")] };
    book.apply(2, set, none());
    let gone = ListNews { networks: vec![one], rows: vec![] };
    book.apply(3, gone, none());
    let origins = |value: &str| {
        let ended = book.ended(network(value));
        ended.iter().map(|one| one.cause.origin.to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(origins("192.0.2.1"), BTreeSet::from(["list:bad".into(), "manual".into()]));
    let unknown = BTreeSet::from(["list:bad".into(), "manual".into(), "scan".into()]);
    assert_eq!(origins("192.0.2.9"), unknown, "every origin that it may have had");
}

/// Networks of a small space, so that they nest and repeat.
fn some_network() -> impl Strategy<Value = Network> {
    (0u8..32, 27u8..=32).prop_map(|(host, prefix)| {
        Network::new(std::net::Ipv4Addr::new(192, 0, 2, host).into(), prefix).unwrap()
    })
}

fn some_blocks() -> impl Strategy<Value = Vec<(Network, Option<i64>, bool)>> {
    let ends = prop_oneof![Just(None), (NOW - 1..NOW + 5).prop_map(Some)];
    prop::collection::vec((some_network(), ends, any::<bool>()), 0..8)
}

fn some_allows() -> impl Strategy<Value = BTreeSet<Network>> {
    prop::collection::btree_set(some_network(), 0..5)
}

type Blocks = Vec<(Network, Option<i64>, bool)>;

fn listed(blocks: &Blocks) -> Vec<Listed> {
    let rows = blocks.iter().zip(1..);
    rows.map(|((network, ends, by_scan), id)| {
        row(*network, id, *ends, if *by_scan { "scan" } else { "manual" })
    })
    .collect()
}

fn built(blocks: &Blocks, allows: &BTreeSet<Network>) -> Book {
    let allowed = allows.iter().map(|network| (*network, Ends::of(None))).collect();
    Book::of(1, listed(blocks), allowed, &Book::default())
}

/// When the last block of an address ends, if it is blocked and not allowed.
fn model(blocks: &Blocks, allows: &BTreeSet<Network>, filter: &Filter, host: u8) -> Option<i64> {
    let address = std::net::Ipv4Addr::new(192, 0, 2, host).into();
    if allows.iter().any(|network| network.contains(address)) {
        return None;
    }
    let wanted = |by_scan: bool| filter.origins.is_none() || by_scan;
    blocks
        .iter()
        .filter(|(network, ends, by_scan)| {
            network.contains(address) && ends.is_none_or(|ends| ends > NOW) && wanted(*by_scan)
        })
        .map(|(_, ends, _)| ends.unwrap_or(i64::MAX))
        .max()
}

/// The same as somebody sees it who was told these decisions.
fn seen(told: &[Decision], host: u8) -> Option<i64> {
    let address = std::net::Ipv4Addr::new(192, 0, 2, host).into();
    let holding = told.iter().filter(|one| one.value.contains(address));
    holding.map(|one| one.ends.unwrap_or(i64::MAX)).max()
}

fn filters() -> [Filter; 2] {
    let of_scan = Filter { origins: Some(vec!["scan".to_owned()]), ..Filter::default() };
    [Filter::default(), of_scan]
}

proptest! {
    #[test]
    fn who_is_told_everything_blocks_whom_the_lists_block(
        blocks in some_blocks(),
        allows in some_allows(),
        page in 1usize..5,
    ) {
        let book = built(&blocks, &allows);
        for filter in filters() {
            let told = all(&book, &filter, page);
            let distinct: BTreeSet<Network> = told.iter().map(|one| one.value).collect();
            prop_assert_eq!(distinct.len(), told.len(), "each value once");
            for host in 0..32 {
                let expected = model(&blocks, &allows, &filter, host);
                prop_assert_eq!(seen(&told, host), expected, "{}", host);
                let address = network(&format!("192.0.2.{host}"));
                let found = book.holding(address, &filter, NOW);
                prop_assert_eq!(seen(&found, host), expected, "asked for {}", host);
                prop_assert!(found.iter().all(|one| told.contains(one)));
                let inside = book.inside(network("192.0.2.0/27"), &filter, NOW);
                prop_assert_eq!(inside.len(), told.len());
            }
        }
    }

    #[test]
    fn who_is_told_what_changed_has_what_who_is_told_everything_has(
        before in some_blocks(),
        allowed_before in some_allows(),
        after in some_blocks(),
        allowed_after in some_allows(),
    ) {
        let old = built(&before, &allowed_before);
        let new = built(&after, &allowed_after);
        let networks = |blocks: &Blocks| blocks.iter().map(|(network, ..)| *network).collect::<BTreeSet<_>>();
        let blocked: Vec<Network> = networks(&before).union(&networks(&after)).copied().collect();
        let allowed: Vec<Network> =
            allowed_before.symmetric_difference(&allowed_after).copied().collect();
        for filter in filters() {
            let mut held: BTreeSet<(Network, Option<i64>)> =
                all(&old, &filter, 9).iter().map(|one| (one.value, one.ends)).collect();
            for value in new.touched(&blocked, &allowed) {
                held.retain(|(known, _)| *known != value);
                held.extend(new.about(value, &filter, NOW).map(|one| (one.value, one.ends)));
            }
            let fresh: BTreeSet<_> =
                all(&new, &filter, 9).iter().map(|one| (one.value, one.ends)).collect();
            prop_assert_eq!(&held, &fresh);
        }
    }
}
