//! Both lists as the store has them: what the rows of each network come to.

use std::collections::BTreeMap;

use ipwarden_engine::blocklist::{ListEntry, Lists, disk};
use ipwarden_engine::network::Network;

use super::news::{ListNews, News};
use crate::db::entries::Listed;

/// Both lists, network by network.
#[derive(Default)]
pub(super) struct Held {
    blocked: BTreeMap<Network, Term>,
    allowed: BTreeMap<Network, Term>,
}

/// What the rows of one network come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// The latest of all ends, in microseconds since the Unix epoch by the store's clock.
    ends: Option<i64>,
    /// Whether the scan made every one of them.
    by_scan: bool,
}

impl Term {
    fn of(row: &Listed) -> Term {
        Term { ends: row.expires_at.map(|ends| ends.timestamp_micros()), by_scan: row.by_scan }
    }

    fn and(self, other: Term) -> Term {
        Term {
            ends: self.ends.zip(other.ends).map(|(one, other)| one.max(other)),
            by_scan: self.by_scan && other.by_scan,
        }
    }
}

impl Held {
    /// What these entries come to, each network of which is there once.
    pub(super) fn of(
        blocked: impl Iterator<Item = ListEntry>,
        allowed: impl Iterator<Item = ListEntry>,
    ) -> Held {
        let term =
            |entry: ListEntry| (entry.network, Term { ends: entry.ends, by_scan: entry.by_scan });
        Held { blocked: blocked.map(term).collect(), allowed: allowed.map(term).collect() }
    }

    /// Brings both lists up to date; says whether anything is different now.
    pub(super) fn apply(&mut self, news: News) -> bool {
        let blocked = apply(&mut self.blocked, news.blocked);
        let allowed = apply(&mut self.allowed, news.allowed);
        blocked || allowed
    }

    /// The lists for the guard.
    pub(super) fn lists(&self, version: i64) -> Lists {
        Lists::build(version, entries(&self.blocked), entries(&self.allowed))
    }

    /// The same for the disk.
    pub(super) fn encode(&self, version: i64, made: i64) -> Vec<u8> {
        disk::encode(version, made, entries(&self.blocked), entries(&self.allowed))
    }

    /// How many networks are blocked and how many allowed.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.blocked.len(), self.allowed.len())
    }
}

fn apply(list: &mut BTreeMap<Network, Term>, news: ListNews) -> bool {
    match news {
        ListNews::Whole(rows) => {
            // The old map goes first: two of a million networks need not be in memory together.
            list.clear();
            *list = merged(rows).into_iter().collect();
            true
        }
        ListNews::Of { networks, rows } => {
            let current: BTreeMap<Network, Term> = merged(rows).into_iter().collect();
            let mut changed = false;
            for network in networks {
                let before = match current.get(&network) {
                    Some(term) => list.insert(network, *term),
                    None => list.remove(&network),
                };
                changed |= before != current.get(&network).copied();
            }
            changed
        }
    }
}

/// One term per network, sorted.
fn merged(rows: Vec<Listed>) -> Vec<(Network, Term)> {
    let mut terms: Vec<(Network, Term)> =
        rows.iter().map(|row| (row.network, Term::of(row))).collect();
    drop(rows);
    terms.sort_unstable_by_key(|(network, _)| *network);
    terms.dedup_by(|(next, term), (network, kept)| {
        let same = next == network;
        if same {
            *kept = kept.and(*term);
        }
        same
    });
    terms
}

fn entries(list: &BTreeMap<Network, Term>) -> impl Iterator<Item = ListEntry> {
    list.iter().map(|(network, term)| ListEntry {
        network: *network,
        ends: term.ends,
        by_scan: term.by_scan,
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn row(network: &str, by_scan: bool, ends: Option<i64>) -> Listed {
        let expires_at = ends.map(|ends| DateTime::from_timestamp_micros(ends).unwrap());
        Listed { network: network.parse().unwrap(), by_scan, expires_at }
    }

    fn check(rows: &[Listed], ends: Option<i64>, by_scan: bool) {
        let terms = merged(rows.to_vec());
        assert_eq!(terms, [(rows[0].network, Term { ends, by_scan })]);
        let turned = merged(rows.iter().rev().copied().collect());
        assert_eq!(turned, terms);
    }

    #[test]
    fn rows_of_one_network_come_to_the_latest_end_of_all() {
        let first = row("192.0.2.1", false, Some(1));
        check(&[first], Some(1), false);
        check(
            &[first, row("192.0.2.1", false, Some(3)), row("192.0.2.1", false, Some(2))],
            Some(3),
            false,
        );
        check(&[first, row("192.0.2.1", false, None)], None, false);
    }

    #[test]
    fn a_network_is_by_the_scan_only_if_nobody_else_lists_it() {
        let scan = row("192.0.2.1", true, None);
        check(&[scan, scan], None, true);
        check(&[scan, row("192.0.2.1", false, Some(1))], None, false);
    }

    #[test]
    fn networks_that_are_news_but_have_no_rows_are_gone() {
        let mut list = merged(vec![row("192.0.2.1", false, None), row("192.0.2.2", false, None)])
            .into_iter()
            .collect();
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let gone = ListNews::Of { networks: networks(&["192.0.2.1", "192.0.2.3"]), rows: vec![] };
        assert!(apply(&mut list, gone.clone()));
        assert_eq!(list.keys().copied().collect::<Vec<_>>(), networks(&["192.0.2.2"]));
        assert!(!apply(&mut list, gone), "the second time nothing changes");
    }
}
