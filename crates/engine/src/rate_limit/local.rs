//! Counting in this process: a sliding log per (policy, bucket), in bounded memory.
//!
//! Logs lie in shards; a take costs one hash and one lock. Time is the steady clock's, so steps of
//! the wall clock change nothing. Logs that have run out are reclaimed a few at a time as others
//! are taken from, without a thread and without pauses.
//!
//! When memory is full, whoever has most credit left among some that are looked at is forgotten
//! and counted. Clients without credit stay until their window frees. If only those are met,
//! newcomers share one log per /24 (IPv4), /48 (IPv6) or 1/65,536 of all identities, in room set
//! aside for that; when that is full too, one log per policy.
//!
//! An address is kept as it is. An identity is kept as a 128-bit hash under a key drawn at random
//! at start: nobody outside can find two that collide, and a chance collision (of a million
//! identities: 1 in 10^26) would let two share a quota.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ahash::RandomState;
use parking_lot::Mutex;

use super::{LimiterState, Taken};
use crate::clock::Moment;
use crate::network::Network;
use crate::quota::{Bucket, Quota};

mod entry;
mod key;
mod refusals;
mod shard;

use key::Key;
use shard::Shard;

/// The most shards there are; fewer when memory is small. A take holds its lock for a fiftieth of what a
/// request costs its thread, so threads seldom meet in one of so many; more would push one another out of the
/// nearest cache.
const MOST_SHARDS: usize = 64;

/// The least memory that is worth a shard of its own, in bytes.
const SMALLEST_SHARD: usize = 64 * 1024;

/// How much memory counting may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// The bound for all logs together, in bytes; 256 MB by default, which holds the logs of
    /// about 3.6 million clients with default quotas.
    pub max_bytes: usize,
}

impl Default for LocalOptions {
    fn default() -> LocalOptions {
        LocalOptions { max_bytes: 256_000_000 }
    }
}

/// Sliding logs of this process.
pub struct Local {
    shards: Box<[Padded]>,
    /// Shared by all shards: the high bits of a hash choose the shard, the rest the place in it.
    hasher: RandomState,
    live_replicas: AtomicU32,
    most_live_replicas: AtomicU32,
    shared_takes: AtomicU64,
}

/// Keeps the locks of neighbouring shards out of one cache line.
#[repr(align(128))]
struct Padded(Mutex<Shard>);

impl Local {
    /// Empty logs within the given memory.
    pub fn new(options: LocalOptions) -> Local {
        let affordable = (options.max_bytes / SMALLEST_SHARD).clamp(1, MOST_SHARDS);
        let count = 1 << affordable.ilog2();
        let hasher = RandomState::new();
        let shards = (0..count)
            .map(|_| Padded(Mutex::new(Shard::new(options.max_bytes / count, hasher.clone()))))
            .collect();
        Local {
            shards,
            hasher,
            live_replicas: AtomicU32::new(1),
            most_live_replicas: AtomicU32::new(1),
            shared_takes: AtomicU64::new(0),
        }
    }

    /// Takes one request from this replica's share of the quota, if any is left.
    #[inline]
    pub fn take(&self, policy: &str, bucket: Bucket<'_>, quota: Quota, now: Moment) -> Taken {
        let share = quota.share(self.live_replicas.load(Ordering::Relaxed));
        self.in_log(bucket, |shard, key, hash| shard.take(key, hash, policy, share, now))
    }

    /// Counts a request that was admitted elsewhere, so that its share is known here.
    pub(super) fn note(&self, policy: &str, bucket: Bucket<'_>, quota: Quota, now: Moment) {
        self.in_log(bucket, |shard, key, hash| shard.note(key, hash, policy, quota, now));
    }

    /// The refusal of the whole quota that is certain without asking elsewhere, if it is.
    pub(super) fn refusal(
        &self,
        policy: &str,
        bucket: Bucket<'_>,
        quota: Quota,
        now: Moment,
    ) -> Option<Taken> {
        let key = Key::of(bucket, &self.hasher);
        let hash = key.hash(&self.hasher);
        self.shard(hash).lock().refusal(key, hash, policy, quota, now)
    }

    /// Remembers that elsewhere nothing is left of this quota until it frees.
    pub(super) fn remember(
        &self,
        policy: &str,
        bucket: Bucket<'_>,
        quota: Quota,
        now: Moment,
        frees_in: Duration,
    ) {
        let key = Key::of(bucket, &self.hasher);
        let hash = key.hash(&self.hasher);
        self.shard(hash).lock().remember(key, hash, policy, quota, now, frees_in);
    }

    /// Uses the client's own log, or the one it shares while there is no room for another.
    #[inline]
    fn in_log<T>(&self, bucket: Bucket<'_>, act: impl Fn(&mut Shard, Key, u64) -> Option<T>) -> T {
        let mut key = Key::of(bucket, &self.hasher);
        loop {
            let hash = key.hash(&self.hasher);
            if let Some(done) = act(&mut self.shard(hash).lock(), key, hash) {
                if key.is_shared() {
                    self.shared_takes.fetch_add(1, Ordering::Relaxed);
                }
                return done;
            }
            key = key.coarser();
        }
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // hashbrown takes the low bits for the place and the top 7 for its tags.
        let at = (hash >> 32) as usize & (self.shards.len() - 1);
        &self.shards[at].0
    }

    /// Forgets what addresses within `network` have used of their quotas.
    pub(super) fn forget(&self, network: &Network) {
        for Padded(shard) in &self.shards {
            shard.lock().forget(network);
        }
    }

    /// Says how many replicas live, this one included; 0 counts as 1.
    pub fn set_live_replicas(&self, live: u32) {
        self.live_replicas.store(live.max(1), Ordering::Relaxed);
        self.most_live_replicas.fetch_max(live, Ordering::Relaxed);
    }

    /// How many logs there are and what they cost.
    pub fn state(&self) -> LimiterState {
        let mut state = LimiterState {
            shared_takes: self.shared_takes.load(Ordering::Relaxed),
            live_replicas: self.live_replicas.load(Ordering::Relaxed),
            most_live_replicas: self.most_live_replicas.load(Ordering::Relaxed),
            ..LimiterState::default()
        };
        for Padded(shard) in &self.shards {
            let shard = shard.lock();
            state.keys += shard.len();
            state.bytes += shard.bytes();
            state.evictions += shard.evictions();
            state.remembered_refusals += shard.refusals();
        }
        state
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}
