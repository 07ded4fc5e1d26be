//! Both lists row by row, and what decisions they come to.
//!
//! Two networks are nested or disjoint. So the rows that speak about an address are those of the at most
//! 33 (IPv4) or 129 (IPv6) networks that hold it, each of which is one look into an ordered map; and a
//! block around allowed networks is halved until no half holds any.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use ipwarden_engine::network::Network;

use super::news::{ListNews, Listed};
use super::parts::{around, beside, halves, inside, whole};
use super::{Cause, Decision, Filter, digest};
use crate::db::entries::SCAN;

/// Beyond so many the oldest are forgotten.
const MOST_ENDED: usize = 200_000;

#[derive(Default)]
pub(super) struct Book {
    /// Of the lists; `None` while nothing is held.
    pub(super) version: Option<i64>,
    blocked: BTreeMap<(Network, i64), Block>,
    /// When the last entry of each network ends.
    allowed: BTreeMap<Network, Ends>,
    ended: Ended,
}

struct Block {
    ends: Ends,
    cause: Arc<Cause>,
}

/// In microseconds since the Unix epoch; what never ends is the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ends(i64);

impl Ends {
    pub(super) fn of(ends: Option<i64>) -> Ends {
        Ends(ends.unwrap_or(i64::MAX))
    }

    fn is_after(self, store_now: i64) -> bool {
        self.0 > store_now
    }

    fn get(self) -> Option<i64> {
        (self.0 != i64::MAX).then_some(self.0)
    }
}

/// What blocks that are gone were made for, because a bouncer may keep decisions by their origin.
#[derive(Clone, Default)]
struct Ended {
    causes: HashMap<Network, Vec<(i64, Arc<Cause>)>>,
    oldest: VecDeque<Network>,
    /// Every origin that was ever seen.
    origins: HashSet<Box<str>>,
}

impl Ended {
    fn know(&mut self, rows: &[Listed]) {
        for Listed { cause, .. } in rows {
            if !self.origins.contains(&cause.origin) {
                self.origins.insert(cause.origin.clone());
            }
        }
    }

    fn note(&mut self, value: Network, id: i64, cause: Arc<Cause>) {
        let causes = self.causes.entry(value).or_default();
        if causes.is_empty() {
            self.oldest.push_back(value);
        }
        causes.retain(|(_, known)| known.origin != cause.origin);
        causes.push((id, cause));
        if self.oldest.len() > MOST_ENDED
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.causes.remove(&oldest);
        }
    }
}

impl Book {
    /// What these rows come to, behind what was held `before`.
    pub(super) fn of(
        version: i64,
        blocked: Vec<Listed>,
        allowed: Vec<(Network, Ends)>,
        before: &Book,
    ) -> Book {
        let mut book =
            Book { version: Some(version), ended: before.ended.clone(), ..Book::default() };
        book.allow(allowed);
        book.ended.know(&blocked);
        let rows = blocked.into_iter();
        let rows =
            rows.map(|row| ((row.network, row.id), Block { ends: row.ends, cause: row.cause }));
        book.blocked = rows.collect();
        for ((network, id), block) in &before.blocked {
            if !book.blocked.contains_key(&(*network, *id)) {
                book.ended.note(*network, *id, block.cause.clone());
            }
        }
        book
    }

    /// Forgets what blocks within `network` that are gone were made for.
    pub(super) fn forget_ended(&mut self, network: Option<Network>) {
        let Ended { causes, oldest, .. } = &mut self.ended;
        let is_kept = |value: &Network| network.is_some_and(|network| !network.covers(value));
        causes.retain(|value, _| is_kept(value));
        oldest.retain(is_kept);
    }

    /// Takes in what changed.
    pub(super) fn apply(
        &mut self,
        version: i64,
        blocked: ListNews<Listed>,
        allowed: ListNews<(Network, Ends)>,
    ) {
        self.version = Some(version);
        for network in &allowed.networks {
            self.allowed.remove(network);
        }
        self.allow(allowed.rows);
        let mut gone = Vec::new();
        for network in blocked.networks {
            let keys: Vec<_> = self.rows_of(network).map(|(id, _)| (network, id)).collect();
            gone.extend(keys.into_iter().filter_map(|key| self.blocked.remove_entry(&key)));
        }
        self.ended.know(&blocked.rows);
        for Listed { network, id, ends, cause } in blocked.rows {
            self.blocked.insert((network, id), Block { ends, cause });
        }
        for ((network, id), block) in gone {
            if !self.blocked.contains_key(&(network, id)) {
                self.ended.note(network, id, block.cause);
            }
        }
    }

    fn allow(&mut self, rows: Vec<(Network, Ends)>) {
        for (network, ends) in rows {
            let known = self.allowed.entry(network).or_insert(ends);
            *known = ends.max(*known);
        }
    }

    pub(super) fn holding(&self, network: Network, filter: &Filter, at: i64) -> Vec<Decision> {
        let mut found: Vec<Decision> = Vec::new();
        for block in around(network).filter(|block| self.has(*block, filter, at)) {
            let mut parts = around(network).skip(block.prefix().into());
            let Some(value) = parts.find(|part| !self.is_allowed_in(*part, at)) else { continue };
            if !found.iter().any(|known| known.value == value) {
                found.extend(self.about(value, filter, at));
            }
        }
        found.sort_by_key(|one| std::cmp::Reverse((Ends::of(one.ends), one.value.prefix())));
        found
    }

    pub(super) fn inside(&self, network: Network, filter: &Filter, at: i64) -> Vec<Decision> {
        let mut values = Vec::new();
        for block in around(network).filter(|block| self.has(*block, filter, at)) {
            self.parts_of(block, at, &mut values);
        }
        values.retain(|value| network.covers(value));
        let bounds = inside(network);
        let keys = (*bounds.start(), i64::MIN)..=(*bounds.end(), i64::MAX);
        for (block, _) in self.blocked.range(keys).map(|(key, _)| key) {
            self.parts_of(*block, at, &mut values);
        }
        values.sort_unstable();
        values.dedup();
        values.into_iter().filter_map(|value| self.about(value, filter, at)).collect()
    }

    pub(super) fn about(&self, value: Network, filter: &Filter, at: i64) -> Option<Decision> {
        if !filter.wants_value(&value) || self.is_allowed_in(value, at) {
            return None;
        }
        let own = self.strongest(value, filter, at);
        let of_wider = match self.is_part(value, at) {
            true => around(value)
                .take(value.prefix().into())
                .filter_map(|wider| self.strongest(wider, filter, at))
                .max_by_key(|(_, block)| block.ends),
            false => None,
        };
        match (own, of_wider) {
            (Some((id, own)), None) => Some(own.decides(id, value)),
            (Some((id, own)), Some((_, wider))) if own.ends >= wider.ends => {
                Some(own.decides(id, value))
            }
            (_, Some((id, wider))) => Some(wider.decides(part_id(id, &value), value)),
            (None, None) => None,
        }
    }

    pub(super) fn page(
        &self,
        after: Option<Network>,
        blocks: usize,
        filter: &Filter,
        at: i64,
    ) -> (Vec<Decision>, Option<Network>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |after| Excluded((after, i64::MAX)));
        let (mut decisions, mut parts, mut last) = (Vec::new(), Vec::new(), after);
        let mut seen = 0;
        for ((network, _), _) in self.blocked.range((from, Unbounded)) {
            if last == Some(*network) && seen > 0 {
                continue;
            }
            if seen == blocks {
                return (decisions, last);
            }
            (seen, last) = (seen + 1, Some(*network));
            if !self.has(*network, filter, at) {
                continue;
            }
            parts.clear();
            self.parts_of(*network, at, &mut parts);
            for part in parts.drain(..) {
                // What is a part of a wider block as well was told with that one.
                if !self.is_part_of_wider(part, *network, filter, at) {
                    decisions.extend(self.about(part, filter, at));
                }
            }
        }
        (decisions, None)
    }

    pub(super) fn ended(&self, value: Network) -> Vec<Decision> {
        let mut found: Vec<Decision> = Vec::new();
        for block in around(value).rev() {
            let gone = self.ended.causes.get(&block).into_iter().flatten();
            let gone = gone.map(|(id, cause)| (*id, cause));
            let rows = self.rows_of(block).map(|(id, row)| (id, &row.cause));
            for (id, cause) in gone.chain(rows) {
                if !found.iter().any(|known| known.cause.origin == cause.origin) {
                    let id = if block == value { id } else { part_id(id, &value) };
                    found.push(Decision { id, value, ends: None, cause: cause.clone() });
                }
            }
        }
        if found.is_empty() {
            // It ended before this process began to look, under an origin that nobody knows now.
            let usual = [crate::lists::MANUAL, SCAN].map(Box::<str>::from);
            let mut origins: Vec<_> = self.ended.origins.iter().cloned().chain(usual).collect();
            origins.sort_unstable();
            origins.dedup();
            found.extend(origins.into_iter().map(|origin| {
                let cause = Arc::new(Cause { origin, reason: "".into() });
                Decision { id: part_id(0, &value), value, ends: None, cause }
            }));
        }
        found
    }

    /// The values about which there may be something to say after changes of these networks.
    pub(super) fn touched(&self, blocked: &[Network], allowed: &[Network]) -> Vec<Network> {
        // Sorted, as both maps are.
        let changed_inside = |sorted: &[Network], network: Network| {
            let bounds = inside(network);
            let from = sorted.partition_point(|one| one < bounds.start());
            let to = sorted.partition_point(|one| one <= bounds.end());
            sorted[from..to].to_vec()
        };
        let mut values = Vec::new();
        let exceptions = |block: Network, within: Network, values: &mut Vec<Network>| {
            let known = self.allowed.range(inside(within)).map(|(network, _)| *network);
            for exception in known.chain(changed_inside(allowed, within)) {
                values.extend(beside(block, exception));
            }
        };
        for block in blocked {
            values.push(*block);
            exceptions(*block, *block, &mut values);
        }
        for network in allowed {
            let is_block = |block: &Network| {
                self.rows_of(*block).next().is_some() || blocked.binary_search(block).is_ok()
            };
            for block in around(*network).filter(is_block) {
                values.push(block);
                exceptions(block, *network, &mut values);
            }
            let bounds = inside(*network);
            let keys = (*bounds.start(), i64::MIN)..=(*bounds.end(), i64::MAX);
            let within: Vec<Network> =
                self.blocked.range(keys).map(|((block, _), _)| *block).collect();
            for block in within.into_iter().chain(changed_inside(blocked, *network)) {
                values.push(block);
                exceptions(block, block, &mut values);
            }
        }
        values.sort_unstable();
        values.dedup();
        values
    }

    fn rows_of(&self, network: Network) -> impl Iterator<Item = (i64, &Block)> {
        let keys = (network, i64::MIN)..=(network, i64::MAX);
        self.blocked.range(keys).map(|((_, id), block)| (*id, block))
    }

    /// The row of exactly this network that ends last, if there is one that is wanted and in force.
    fn strongest(&self, network: Network, filter: &Filter, at: i64) -> Option<(i64, &Block)> {
        self.rows_of(network)
            .filter(|(_, block)| block.ends.is_after(at) && filter.wants_cause(&block.cause))
            .max_by_key(|(_, block)| block.ends)
    }

    fn has(&self, network: Network, filter: &Filter, at: i64) -> bool {
        self.strongest(network, filter, at).is_some()
    }

    /// Whether any address of `network` is allowed.
    fn is_allowed_in(&self, network: Network, at: i64) -> bool {
        self.holds_allowed(network, at) || self.is_within_allowed(network, at)
    }

    fn holds_allowed(&self, network: Network, at: i64) -> bool {
        self.allowed.range(inside(network)).any(|(_, ends)| ends.is_after(at))
    }

    fn is_within_allowed(&self, network: Network, at: i64) -> bool {
        let is_allowed =
            |wider: &Network| self.allowed.get(wider).is_some_and(|ends| ends.is_after(at));
        !self.allowed.is_empty() && around(network).any(|wider| is_allowed(&wider))
    }

    /// Whether a block around `value` falls into parts of which this is one.
    fn is_part(&self, value: Network, at: i64) -> bool {
        !self.allowed.is_empty() && whole(value).is_some_and(|whole| self.holds_allowed(whole, at))
    }

    fn is_part_of_wider(&self, part: Network, block: Network, filter: &Filter, at: i64) -> bool {
        self.is_part(part, at)
            && around(block).take(block.prefix().into()).any(|wider| self.has(wider, filter, at))
    }

    /// The largest networks in `block` without allowed addresses.
    fn parts_of(&self, block: Network, at: i64, parts: &mut Vec<Network>) {
        if self.is_within_allowed(block, at) {
            return;
        }
        match halves(block) {
            Some(halves) if self.holds_allowed(block, at) => {
                for half in halves {
                    self.parts_of_half(half, at, parts);
                }
            }
            _ => parts.push(block),
        }
    }

    fn parts_of_half(&self, half: Network, at: i64, parts: &mut Vec<Network>) {
        let is_allowed = self.allowed.get(&half).is_some_and(|ends| ends.is_after(at));
        match halves(half) {
            _ if is_allowed => {}
            Some(quarters) if self.holds_allowed(half, at) => {
                for quarter in quarters {
                    self.parts_of_half(quarter, at, parts);
                }
            }
            _ => parts.push(half),
        }
    }
}

impl Block {
    fn decides(&self, id: i64, value: Network) -> Decision {
        Decision { id, value, ends: self.ends.get(), cause: self.cause.clone() }
    }
}

/// A number for a part of a row, beyond the numbers of rows, and exact in a JSON reader's doubles.
fn part_id(id: i64, value: &Network) -> i64 {
    const BEYOND_ROWS: i64 = 1 << 52;
    let [a, b, c, d, e, f, g, h, ..] = digest(id, value);
    (i64::from_be_bytes([a, b, c, d, e, f, g, h]) & (BEYOND_ROWS - 1)) | BEYOND_ROWS
}
