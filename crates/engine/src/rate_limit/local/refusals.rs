//! Refusals that need not be asked for again until their window frees.
//!
//! Forgetting one early costs a question, never an admission, so there is a plain bound: when it
//! is reached those that are over go, and if none is, nothing more is remembered.

use std::mem::size_of;

use ahash::RandomState;
use hashbrown::HashTable;

use super::key::Key;
use crate::network::Network;
use crate::quota::Quota;

/// What one refusal costs in bytes, with the table half empty.
const COST: usize = 2 * (size_of::<Refusal>() + 1);

pub(super) struct Refusals {
    most: usize,
    table: HashTable<Refusal>,
    /// No refusal that is remembered is over before this.
    earliest: u64,
}

struct Refusal {
    key: Key,
    /// Under this quota; another one is another question.
    limit: u32,
    period: u64,
    until: u64,
}

impl Refusals {
    pub(super) fn new(max_bytes: usize) -> Refusals {
        Refusals { most: max_bytes / COST, table: HashTable::new(), earliest: u64::MAX }
    }

    /// When the window frees, if that lies ahead.
    pub(super) fn find(&mut self, key: &Key, hash: u64, quota: Quota, now: u64) -> Option<u64> {
        if self.table.is_empty() {
            return None;
        }
        let found = self.table.find_entry(hash, |refusal| refusal.key == *key).ok()?;
        let Refusal { limit, period, until, .. } = *found.get();
        if until > now && limit == quota.limit && period == quota.period_micros() {
            return Some(until);
        }
        found.remove();
        None
    }

    pub(super) fn insert(
        &mut self,
        key: Key,
        hash: u64,
        quota: Quota,
        until: u64,
        now: u64,
        hasher: &RandomState,
    ) {
        let refusal = Refusal { key, limit: quota.limit, period: quota.period_micros(), until };
        if let Some(known) = self.table.find_mut(hash, |refusal| refusal.key == key) {
            *known = refusal;
        } else {
            if self.table.len() >= self.most && self.earliest <= now {
                self.table.retain(|refusal| refusal.until > now);
                self.earliest =
                    self.table.iter().map(|refusal| refusal.until).min().unwrap_or(u64::MAX);
            }
            if self.table.len() >= self.most {
                return;
            }
            self.table.insert_unique(hash, refusal, |refusal| refusal.key.hash(hasher));
        }
        self.earliest = self.earliest.min(until);
    }

    /// Forgets those of addresses within `network`.
    pub(super) fn forget(&mut self, network: &Network) {
        self.table.retain(|refusal| !refusal.key.is_within(network));
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.allocation_size()
    }
}
