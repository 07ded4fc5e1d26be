//! Which networks of a list may be put, however many there are.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ipwarden_engine::network::Network;
use ipwarden_engine::target::{self, Refused};

use super::{Import, OnRefused, Wish};
use crate::db::{Conn, DbError, allowed_ips};
use crate::lists::{Actor, Notice, Rails};

type Railed = Result<(BTreeMap<Network, Wish>, Vec<Refused>), Vec<Refused>>;

/// What of it may be blocked, and what may not.
pub(super) async fn rail(
    conn: &mut Conn,
    mut wanted: BTreeMap<Network, Wish>,
    import: &Import,
    actor: &Actor,
    rails: &Rails,
    at: DateTime<Utc>,
) -> Result<Railed, DbError> {
    let listed = allowed_ips::listed(conn, at).await?;
    let allowed: BTreeSet<Network> = listed.into_iter().map(|row| row.network).collect();
    let mut refused = Vec::new();
    for network in wanted.keys() {
        let touched: Vec<Network> = touched(&allowed, network).into_iter().collect();
        let rails = target::Rails {
            trusted: &rails.trusted,
            allowed: &touched,
            own: &rails.own,
            operator: actor.address,
        };
        refused.extend(target::check(network, &rails).err().map(|why| (*network, why)));
    }
    if !refused.is_empty() && import.refused == OnRefused::Stop {
        return Ok(Err(refused.into_iter().map(|(_, why)| why).collect()));
    }
    if import.refused == OnRefused::Skip {
        for (network, _) in &refused {
            wanted.remove(network);
        }
    }
    Ok(Ok((wanted, refused.into_iter().map(|(_, why)| why).collect())))
}

/// One of the networks of `all` that overlap with this one, in a few look-ups however many there are.
fn touched(all: &BTreeSet<Network>, network: &Network) -> Option<Network> {
    let wider = (0..=network.prefix())
        .filter_map(|prefix| Network::new(network.address(), prefix).ok())
        .find(|wider| all.contains(wider));
    // A network precedes what lies inside it.
    wider.or_else(|| all.range(network..).next().copied().filter(|next| network.covers(next)))
}

/// What is surprising about networks that are to be allowed.
pub(super) fn wide<'a>(
    wanted: &'a BTreeMap<Network, Wish>,
    rails: &'a Rails,
) -> impl Iterator<Item = Notice> + 'a {
    wanted.keys().copied().filter_map(|network| {
        let nothing = target::Rails::default();
        if matches!(target::check(&network, &nothing), Err(Refused::TooWide { .. })) {
            return Some(Notice::AllowsMany(network));
        }
        let proxy = rails.trusted.iter().copied().find(|proxy| proxy.overlaps(&network));
        proxy.map(|proxy| Notice::AllowsProxy { network, proxy })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_found_on_both_sides() {
        let all: BTreeSet<Network> = ["10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        for (text, hit) in [
            ("10.1.2.3", Some("10.0.0.0/8")),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.0.0.0/7", Some("10.0.0.0/8")),
            ("192.0.2.0/24", Some("192.0.2.7")),
            ("192.0.2.8", None),
            ("9.0.0.0/8", None),
            ("2001:db8::/32", Some("2001:db8:1::/48")),
            ("2001:db8:1::5", Some("2001:db8:1::/48")),
            ("2001:db8:2::/48", None),
        ] {
            let found = touched(&all, &text.parse().unwrap());
            assert_eq!(found, hit.map(|hit| hit.parse().unwrap()), "{text}");
        }
    }
}
