//! Counts admitted requests and refuses what goes past a quota.
//!
//! Exact: in no span of one period is more than the limit admitted, however requests race. A
//! refused request is not counted. Past a limit of 1,000 admissions are counted in grains of a
//! 64th of the period: still never more than the limit, but credit returns up to one grain late.
//!
//! Counting is done in this process, or in Redis for all replicas together. Nothing here decides
//! whose request it is or which quota applies.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::network::Network;
use crate::quota::{Bucket, Quota};
use crate::redis::RedisUrl;

mod fields;
mod local;
mod redis;

pub use fields::{push_limit_field, push_number, push_policy_field};
pub use local::{Local, LocalOptions};
pub use redis::{BreakerState, Redis, RedisOptions, redis_key};

use redis::RedisWorker;

/// The largest limit that is counted request by request, and not in grains.
pub const LARGEST_EXACT_LIMIT: u32 = 1_000;

/// Grains per period that limits above [`LARGEST_EXACT_LIMIT`] are counted in.
const GRAINS: u64 = 64;

/// The limiter of this process; clones share their counters.
#[derive(Clone, Debug)]
pub enum Limiter {
    /// Counts in this process alone.
    Local(Arc<Local>),
    /// Counts in Redis, for all replicas together.
    Redis(Arc<Redis>),
}

/// One worker's way to the limiter.
#[derive(Clone, Debug)]
pub struct WorkerLimiter(Way);

#[derive(Clone, Debug)]
enum Way {
    Local(Arc<Local>),
    Redis(Arc<RedisWorker>),
}

/// What came of an attempt to take one request from a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether the request is within the quota, and counted.
    pub admitted: bool,
    /// How many more would be admitted now.
    pub remaining: u32,
    /// The time until there is more: until the oldest admitted request leaves the window, or,
    /// after a refusal, until a request would be admitted.
    pub frees_in: Duration,
}

/// The limiter as `/readyz?verbose` and metrics show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimiterState {
    /// Logs held in this process: of clients seen within their period, and some not yet reclaimed.
    pub keys: usize,
    /// Memory of those logs in bytes.
    pub bytes: usize,
    /// Logs with credit left that were forgotten because memory was full, since the start.
    pub evictions: u64,
    /// Takes from an entry that newcomers share because memory was full, since the start.
    pub shared_takes: u64,
    /// Refusals by Redis that are remembered, some of which may be over.
    pub remembered_refusals: usize,
    /// What is known of Redis; `None` without it.
    pub breaker: Option<BreakerState>,
    /// Commands on their way to Redis or back.
    pub in_flight: usize,
    /// Takes that were decided in this process because Redis did not answer, since the start.
    pub fallbacks: u64,
    /// How often Redis was lost, since the start.
    pub losses: u64,
    /// How often it came back.
    pub returns: u64,
    /// How often a connection broke and was made again without Redis counting as lost; it may
    /// have been restarted meanwhile, and empty.
    pub interruptions: u64,
    /// Replicas believed to live, this one included.
    pub live_replicas: u32,
    /// The most that were believed to live at one time.
    pub most_live_replicas: u32,
}

impl LimiterState {
    /// How much more than a quota of this limit one client may have been admitted over all
    /// replicas, since the start, because of what befell Redis as this replica saw it.
    ///
    /// Each loss, return and emptying may admit max(limit, live replicas) more. A bound, not a
    /// count. What it cannot see: an emptying by an operator, which leaves connections alone.
    pub fn extra_admissions_possible(&self, limit: u32) -> u64 {
        let each = u64::from(limit.max(self.most_live_replicas));
        (self.losses + self.returns + self.interruptions) * each
    }
}

impl Limiter {
    /// A limiter that counts in this process; its counters end with it.
    pub fn local(options: LocalOptions) -> Limiter {
        Limiter::Local(Arc::new(Local::new(options)))
    }

    /// A limiter that counts in Redis. It connects when it is first taken from, and while Redis is
    /// away goes on with this replica's share.
    pub fn redis(url: RedisUrl, options: RedisOptions) -> Limiter {
        Limiter::Redis(Arc::new(Redis::new(url, options)))
    }

    /// The limiter as one worker thread uses it: with Redis it holds a connection of its own, which
    /// lives on the Tokio runtime that it is first taken from.
    pub fn worker(&self) -> WorkerLimiter {
        match self {
            Limiter::Local(local) => WorkerLimiter(Way::Local(Arc::clone(local))),
            Limiter::Redis(redis) => {
                WorkerLimiter(Way::Redis(Arc::new(RedisWorker::new(Arc::clone(redis)))))
            }
        }
    }

    /// Says how many replicas live, this one included, so that each takes its share of every
    /// quota where they do not count together. 0 counts as 1.
    pub fn set_live_replicas(&self, live: u32) {
        match self {
            Limiter::Local(local) => local.set_live_replicas(live),
            Limiter::Redis(redis) => redis.set_live_replicas(live),
        }
    }

    /// Forgets what addresses within `network` have used of their quotas, as far as that is counted in
    /// this process; what Redis counts, it holds under [`redis_key`].
    pub fn forget(&self, network: &Network) {
        match self {
            Limiter::Local(local) => local.forget(network),
            Limiter::Redis(redis) => redis.forget(network),
        }
    }

    /// How the limiter is doing now.
    pub fn state(&self) -> LimiterState {
        match self {
            Limiter::Local(local) => local.state(),
            Limiter::Redis(redis) => redis.state(),
        }
    }
}

impl WorkerLimiter {
    /// Takes one request of `bucket` from the quota of `policy`, if any is left.
    ///
    /// Each (policy, bucket) has a log of its own. The quota may differ from take to take: what
    /// was admitted stays counted. Windows in this process are measured on `now.steady` alone.
    pub async fn take(&self, policy: &str, bucket: Bucket<'_>, quota: Quota, now: Moment) -> Taken {
        match self.take_here(policy, bucket, quota, now) {
            Some(taken) => taken,
            None => self.ask(policy, bucket, quota, now).await,
        }
    }

    /// The same where nobody has to be asked: in process always, with Redis for a refusal that is certain.
    #[inline]
    pub fn take_here(
        &self,
        policy: &str,
        bucket: Bucket<'_>,
        quota: Quota,
        now: Moment,
    ) -> Option<Taken> {
        match &self.0 {
            Way::Local(local) => Some(local.take(policy, bucket, quota, now)),
            Way::Redis(worker) => worker.refusal(policy, bucket, quota, now),
        }
    }

    /// What [`WorkerLimiter::take_here`] leaves open.
    pub async fn ask(&self, policy: &str, bucket: Bucket<'_>, quota: Quota, now: Moment) -> Taken {
        match &self.0 {
            Way::Local(local) => local.take(policy, bucket, quota, now),
            Way::Redis(worker) => worker.take(policy, bucket, quota, now).await,
        }
    }
}
