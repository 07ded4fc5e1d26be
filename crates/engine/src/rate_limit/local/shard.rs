//! A part of all logs, behind one lock, within its part of the memory.

use std::mem::size_of;
use std::time::Duration;

use ahash::RandomState;
use hashbrown::HashTable;

use super::super::Taken;
use super::entry::Entry;
use super::key::Key;
use super::refusals::Refusals;
use crate::clock::Moment;
use crate::network::Network;
use crate::quota::Quota;

/// What one log costs in bytes with its place in the index, at the worst filling of both.
const COST: usize = size_of::<Entry>() * 9 / 8 + 12;

/// What both may take beyond that in bytes, however few logs there are: the smallest step in which
/// they grow.
const LEAST_STEP: usize = 8;
const LEAST_COST: usize = LEAST_STEP * size_of::<Entry>() + 64;

/// One part in this many of the memory is set aside for shared logs.
const SET_ASIDE: usize = 16;

/// One part in this many of the memory may hold remembered refusals.
const REFUSALS: usize = 8;

/// So many logs are looked at together for what has run out, once in eight times as many takes.
const RECLAIMED: u8 = 4;

/// How many logs are looked at for the one with most credit left.
const LOOK_AT: usize = 32;

/// How many more are looked at while none of them has credit.
const LOOK_ON: usize = 256;

/// Logs in no order, found through an index, so that memory grows in small steps and a hand can
/// go round.
pub(super) struct Shard {
    max_bytes: usize,
    hasher: RandomState,
    classes: Vec<Class>,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    spilled_bytes: usize,
    /// Whether a log has taken more memory since that was last looked at.
    grown: bool,
    refusals: Refusals,
    evictions: u64,
    /// The next log that is looked at for reclaiming.
    hand: usize,
    takes: u8,
}

/// A policy as it applies to networks or to identities.
struct Class {
    policy: Box<str>,
    is_identity: bool,
    /// As last seen; what reclaiming goes by.
    quota: Quota,
}

impl Shard {
    pub(super) fn new(max_bytes: usize, hasher: RandomState) -> Shard {
        Shard {
            max_bytes,
            hasher,
            classes: Vec::new(),
            index: HashTable::new(),
            entries: Vec::new(),
            spilled_bytes: 0,
            grown: false,
            refusals: Refusals::new(max_bytes / REFUSALS),
            evictions: 0,
            hand: 0,
            takes: 0,
        }
    }

    /// Takes from the log of this key, or answers `None` if there is neither one nor room for it.
    pub(super) fn take(
        &mut self,
        key: Key,
        hash: u64,
        policy: &str,
        quota: Quota,
        now: Moment,
    ) -> Option<Taken> {
        let at = self.log(key, hash, policy, quota, now)?;
        let taken = self.take_from(at, quota, now.steady);
        self.tidy(now);
        Some(taken)
    }

    /// Counts what was admitted elsewhere, or answers `None` as [`Shard::take`] does.
    pub(super) fn note(
        &mut self,
        key: Key,
        hash: u64,
        policy: &str,
        quota: Quota,
        now: Moment,
    ) -> Option<()> {
        let at = self.log(key, hash, policy, quota, now)?;
        self.entries[at].prune(now.steady, quota.period_micros());
        self.push(at, quota, now.steady);
        self.tidy(now);
        Some(())
    }

    /// The refusal that is certain without asking elsewhere: one that is remembered, or one that
    /// this log alone justifies.
    pub(super) fn refusal(
        &mut self,
        mut key: Key,
        hash: u64,
        policy: &str,
        quota: Quota,
        now: Moment,
    ) -> Option<Taken> {
        key.class = self.class(policy, key.is_identity(), quota);
        let now = now.steady;
        let remembered = self.refusals.find(&key, hash, quota, now);
        let frees_at = remembered.or_else(|| {
            let at = self.find(&key, hash)?;
            let (entry, period) = (&mut self.entries[at], quota.period_micros());
            entry.prune(now, period);
            let beyond = entry.count().checked_sub(quota.limit)?;
            entry.leaves_at(beyond, period)
        })?;
        let frees_in = Duration::from_micros(frees_at.saturating_sub(now));
        Some(Taken { admitted: false, remaining: 0, frees_in })
    }

    /// Remembers a refusal until the window frees, if there is room for it.
    pub(super) fn remember(
        &mut self,
        mut key: Key,
        hash: u64,
        policy: &str,
        quota: Quota,
        now: Moment,
        frees_in: Duration,
    ) {
        key.class = self.class(policy, key.is_identity(), quota);
        let until = now.steady + Quota::new(1, frees_in).period_micros();
        self.refusals.insert(key, hash, quota, until, now.steady, &self.hasher);
    }

    fn find(&self, key: &Key, hash: u64) -> Option<usize> {
        self.index.find(hash, |at| self.entries[*at as usize].key == *key).map(|at| *at as usize)
    }

    /// The place of this key's log, which is made if there is room.
    fn log(
        &mut self,
        mut key: Key,
        hash: u64,
        policy: &str,
        quota: Quota,
        now: Moment,
    ) -> Option<usize> {
        key.class = self.class(policy, key.is_identity(), quota);
        if let Some(at) = self.find(&key, hash) {
            self.takes = self.takes.wrapping_add(1);
            return Some(at);
        }
        self.reclaim(2, now.steady);
        if !self.has_room(&key) && !self.make_room(now.steady) && !key.is_everyone() {
            return None;
        }
        Some(self.insert(key, hash))
    }

    /// What keeps memory in bounds after a log was used; logs may change places.
    fn tidy(&mut self, now: Moment) {
        if self.grown {
            while self.used() > self.max_bytes && self.make_room(now.steady) {}
            // Where only clients without credit were met, the next take looks further.
            self.grown = self.used() > self.max_bytes;
        }
        // Neighbours together, so that there are fewer cache misses than logs.
        if self.takes.is_multiple_of(8 * RECLAIMED) {
            self.reclaim(usize::from(RECLAIMED), now.steady);
        }
    }

    fn push(&mut self, at: usize, quota: Quota, now: u64) {
        let entry = &mut self.entries[at];
        let before = entry.spilled_bytes();
        entry.push(now, quota);
        let more = entry.spilled_bytes() - before;
        self.spilled_bytes += more;
        self.grown |= more > 0;
    }

    fn take_from(&mut self, at: usize, quota: Quota, now: u64) -> Taken {
        let period = quota.period_micros();
        let entry = &mut self.entries[at];
        entry.prune(now, period);
        let mut count = entry.count();
        let admitted = count < quota.limit;
        if admitted {
            self.push(at, quota, now);
            count += 1;
        }
        let beyond = count.saturating_sub(quota.limit);
        let frees_at = self.entries[at].leaves_at(beyond, period).unwrap_or(now);
        Taken {
            admitted,
            remaining: quota.limit.saturating_sub(count),
            frees_in: Duration::from_micros(frees_at.saturating_sub(now)),
        }
    }

    /// The number of a policy in this shard, noting its quota.
    fn class(&mut self, policy: &str, is_identity: bool, quota: Quota) -> u16 {
        let known = self
            .classes
            .iter()
            .position(|class| class.is_identity == is_identity && *class.policy == *policy);
        let at = known.unwrap_or_else(|| {
            // Nobody writes 65,535 policies; should somebody, the last ones share their logs.
            if self.classes.len() <= usize::from(u16::MAX) {
                self.classes.push(Class { policy: policy.into(), is_identity, quota });
            }
            self.classes.len() - 1
        });
        self.classes[at].quota = quota;
        at as u16
    }

    fn insert(&mut self, key: Key, hash: u64) -> usize {
        let at = self.entries.len();
        if at == self.entries.capacity() {
            // In steps of an eighth, so that little is unused and little is moved at once.
            self.entries.reserve_exact((at / 8).max(LEAST_STEP));
        }
        self.entries.push(Entry::new(key));
        let Shard { index, entries, hasher, .. } = self;
        index.insert_unique(hash, at as u32, |at| entries[*at as usize].key.hash(hasher));
        at
    }

    fn remove(&mut self, at: usize) {
        self.spilled_bytes -= self.entries[at].spilled_bytes();
        let hash = self.entries[at].key.hash(&self.hasher);
        if let Ok(place) = self.index.find_entry(hash, |other| *other as usize == at) {
            place.remove();
        }
        let last = self.entries.len() - 1;
        if at != last {
            let hash = self.entries[last].key.hash(&self.hasher);
            if let Some(place) = self.index.find_mut(hash, |other| *other as usize == last) {
                *place = at as u32;
            }
        }
        self.entries.swap_remove(at);
        let len = self.entries.len();
        if self.entries.capacity() > len + len / 4 + 2 * LEAST_STEP {
            let room = len + len / 8;
            self.entries.shrink_to(room);
            let Shard { index, entries, hasher, .. } = self;
            index.shrink_to(room, |at| entries[*at as usize].key.hash(hasher));
        }
    }

    /// Forgets the logs and refusals of addresses within `network`.
    pub(super) fn forget(&mut self, network: &Network) {
        let mut at = 0;
        while at < self.entries.len() {
            match self.entries[at].key.is_within(network) {
                // The last takes its place.
                true => self.remove(at),
                false => at += 1,
            }
        }
        self.refusals.forget(network);
    }

    /// Looks at so many logs, removes those that have run out and gives back what others need
    /// no longer.
    fn reclaim(&mut self, how_many: usize, now: u64) {
        for _ in 0..how_many.min(self.entries.len()) {
            let at = self.next_at_hand();
            if self.is_over(at, now) {
                self.remove(at);
                self.hand = at;
            } else {
                let entry = &mut self.entries[at];
                let before = entry.spilled_bytes();
                entry.tighten();
                self.spilled_bytes = self.spilled_bytes + entry.spilled_bytes() - before;
            }
        }
    }

    /// Removes a log that has run out or, of those it meets, the one with most credit left; says whether
    /// any was removed.
    fn make_room(&mut self, now: u64) -> bool {
        let mut best: Option<(usize, Credit)> = None;
        for looked in 0..LOOK_ON.min(self.entries.len()) {
            if looked >= LOOK_AT && best.is_some() {
                break;
            }
            let at = self.next_at_hand();
            if self.is_over(at, now) {
                self.remove(at);
                return true;
            }
            let credit = self.credit(at);
            if credit.left > 0 && best.as_ref().is_none_or(|(_, most)| credit.is_more_than(most)) {
                best = Some((at, credit));
            }
        }
        match best {
            Some((at, _)) => {
                self.remove(at);
                self.evictions += 1;
                true
            }
            None => false,
        }
    }

    fn next_at_hand(&mut self) -> usize {
        if self.hand >= self.entries.len() {
            self.hand = 0;
        }
        self.hand += 1;
        self.hand - 1
    }

    /// Prunes a log and says whether nothing is left of it.
    fn is_over(&mut self, at: usize, now: u64) -> bool {
        let entry = &mut self.entries[at];
        entry.prune(now, self.classes[usize::from(entry.key.class)].quota.period_micros());
        entry.count() == 0
    }

    fn credit(&self, at: usize) -> Credit {
        let entry = &self.entries[at];
        let limit = self.classes[usize::from(entry.key.class)].quota.limit;
        Credit { left: limit.saturating_sub(entry.count()), limit }
    }

    fn has_room(&self, key: &Key) -> bool {
        let aside = if key.is_shared() { 0 } else { self.max_bytes / SET_ASIDE };
        self.used() + COST <= self.max_bytes - aside
    }

    /// What the logs cost in bytes: never less than they occupy, also after the next one is inserted.
    fn used(&self) -> usize {
        let at_worst = self.entries.len() * COST + LEAST_COST;
        at_worst.max(self.held()) + self.spilled_bytes + self.refusals.bytes()
    }

    fn held(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.index.allocation_size()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the logs and their index really occupy.
    pub(super) fn bytes(&self) -> usize {
        self.held() + self.spilled_bytes + self.refusals.bytes()
    }

    /// Logs with credit that were forgotten.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Refusals that are remembered, some of which may be over.
    pub(super) fn refusals(&self) -> usize {
        self.refusals.len()
    }
}

/// What is left of a quota, comparable between quotas by its share of the limit.
struct Credit {
    left: u32,
    limit: u32,
}

impl Credit {
    fn is_more_than(&self, other: &Credit) -> bool {
        u64::from(self.left) * u64::from(other.limit)
            > u64::from(other.left) * u64::from(self.limit)
    }
}
