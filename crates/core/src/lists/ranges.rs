//! The blocklist as disjoint ranges, for programs that know no overlaps, no allowlist and no ends of
//! their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::blocklist::{ListEntry, RangeMap};
use ipwarden_engine::network::Network;

use crate::db::entries::Listed;
use crate::db::{Db, DbError, allowed_ips, blocked_ips};

/// How long reading a million rows may take.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// Addresses of one family, from the first to the last, all blocked until the same end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockedRange {
    /// The first of them.
    pub first: IpAddr,
    /// The last of them.
    pub last: IpAddr,
    /// In microseconds since the Unix epoch by the store's clock, in whole seconds; `None` never ends.
    pub ends: Option<i64>,
}

/// Who is blocked and not allowed, ascending, IPv4 first: as few ranges as there can be. Also the store's
/// clock, in microseconds since the Unix epoch.
///
/// # Errors
/// As any statement.
pub async fn blocked_ranges(
    db: &Db,
    now: DateTime<Utc>,
) -> Result<(Vec<BlockedRange>, i64), DbError> {
    let (blocked, allowed, at) = db
        .with_timeout(LIMIT)
        .run(move |conn| {
            async move {
                let at = conn.clock(now).await?;
                let blocked = blocked_ips::listed(conn, at).await?;
                Ok((blocked, allowed_ips::listed(conn, at).await?, at))
            }
            .boxed()
        })
        .await?;
    let [blocked, allowed] = [blocked, allowed].map(|rows| RangeMap::build(rows.iter().map(entry)));
    Ok((without(&blocked, &allowed), at.timestamp_micros()))
}

fn entry(row: &Listed) -> ListEntry {
    let ends = row.expires_at.map(|ends| ends.timestamp_micros());
    ListEntry { network: row.network, ends, by_scan: row.by_scan }
}

/// What is in `blocked` and not in `allowed`.
fn without(blocked: &RangeMap, allowed: &RangeMap) -> Vec<BlockedRange> {
    let holes: Vec<(IpAddr, IpAddr)> =
        allowed.iter().map(|(first, last, _)| (first, last)).collect();
    let mut ranges: Vec<BlockedRange> = Vec::new();
    for (first, last, hit) in blocked.iter() {
        let from = holes.partition_point(|(_, hole_last)| *hole_last < first);
        let mut next = Some(first);
        for (hole_first, hole_last) in holes[from..].iter().take_while(|(hole, _)| *hole <= last) {
            if let Some(first) = next.filter(|first| first < hole_first) {
                push(&mut ranges, first, before(*hole_first), hit.ends);
            }
            next = after(*hole_last);
        }
        if let Some(first) = next.filter(|first| *first <= last && same_family(*first, last)) {
            push(&mut ranges, first, last, hit.ends);
        }
    }
    ranges
}

/// Adds a range, or makes the one before it longer.
fn push(ranges: &mut Vec<BlockedRange>, first: IpAddr, last: IpAddr, ends: Option<i64>) {
    match ranges.last_mut() {
        Some(known) if known.ends == ends && after(known.last) == Some(first) => known.last = last,
        _ => ranges.push(BlockedRange { first, last, ends }),
    }
}

fn same_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// The address before one that is not the first of its family.
fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() - 1).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() - 1).into(),
    }
}

impl BlockedRange {
    /// The largest networks that it is made of, ascending.
    pub fn networks(&self) -> Vec<Network> {
        let (mut networks, mut next) = (Vec::new(), Some(self.first));
        let longest = if self.first.is_ipv4() { 32 } else { 128 };
        while let Some(first) = next.filter(|first| *first <= self.last) {
            let fits = |prefix: &u8| {
                Network::new(first, *prefix).ok().filter(|network| {
                    network.address() == first && network.last_address() <= self.last
                })
            };
            let Some(network) = (0..=longest).find_map(|prefix| fits(&prefix)) else { break };
            networks.push(network);
            next = after(network.last_address());
        }
        networks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, Option<i64>)]) -> RangeMap {
        RangeMap::build(entries.iter().map(|(network, ends)| ListEntry {
            network: network.parse().unwrap(),
            ends: ends.map(|seconds| 1_900_000_000_000_000 + seconds * 1_000_000),
            by_scan: false,
        }))
    }

    fn shown(blocked: &[(&str, Option<i64>)], allowed: &[&str]) -> Vec<String> {
        let allowed: Vec<_> = allowed.iter().map(|network| (*network, None)).collect();
        let ranges = without(&map(blocked), &map(&allowed));
        ranges.iter().map(|range| format!("{}-{}", range.first, range.last)).collect()
    }

    #[test]
    fn overlaps_become_one_range_and_what_touches_is_joined() {
        let blocked = [
            ("192.0.2.0/25", None),
            ("192.0.2.7", Some(5)),
            ("192.0.2.128/25", None),
            ("192.0.3.0/32", Some(5)),
            ("2001:db8::/32", None),
        ];
        assert_eq!(
            shown(&blocked, &[]),
            [
                "192.0.2.0-192.0.2.255",
                "192.0.3.0-192.0.3.0",
                "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
            ]
        );
    }

    #[test]
    fn what_is_allowed_is_left_out_wherever_it_lies() {
        let blocked = [("192.0.2.0/24", None)];
        for (allowed, left) in [
            (vec!["192.0.2.0/24"], vec![]),
            (vec!["192.0.0.0/16"], vec![]),
            (vec!["192.0.2.0"], vec!["192.0.2.1-192.0.2.255"]),
            (vec!["192.0.2.255"], vec!["192.0.2.0-192.0.2.254"]),
            (
                vec!["192.0.2.9", "192.0.2.128/25", "10.0.0.0/8", "2001:db8::/32"],
                vec!["192.0.2.0-192.0.2.8", "192.0.2.10-192.0.2.127"],
            ),
        ] {
            assert_eq!(shown(&blocked, &allowed), left, "{allowed:?}");
        }
        assert_eq!(shown(&[("255.255.255.0/24", None)], &["255.255.255.255"]).len(), 1);
        assert_eq!(shown(&[("0.0.0.0/0", None), ("::/0", None)], &["255.255.255.255"]).len(), 2);
    }

    #[test]
    fn a_range_is_made_of_the_largest_networks() {
        let networks = |first: &str, last: &str| {
            let range = BlockedRange {
                first: first.parse().unwrap(),
                last: last.parse().unwrap(),
                ends: None,
            };
            range.networks().iter().map(Network::to_string).collect::<Vec<_>>()
        };
        assert_eq!(networks("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(networks("192.0.2.1", "192.0.2.1"), ["192.0.2.1"]);
        assert_eq!(
            networks("192.0.2.1", "192.0.2.6"),
            ["192.0.2.1", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6"]
        );
        assert_eq!(networks("2001:db8::", "2001:db8::2"), ["2001:db8::/127", "2001:db8::2"]);
    }
}
