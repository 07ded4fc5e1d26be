//! Counting in Redis, exactly over all replicas; and what happens while it is away.
//!
//! Every decision that needs Redis is atomic and on one key, on Redis's own time; a single server is asked
//! for those of the same moment in one call of the script (`batch.rs`). Those that need none: a refusal is
//! remembered until its window frees, and a client that this replica alone has admitted to its limit is
//! refused, so that a flood from a limited client never reaches Redis.
//!
//! # When Redis fails
//! A command unanswered for 20 ms is decided in this process, by this replica's share of the quota
//! against its own log, in which everything that it admitted stands, whoever decided it. Three such
//! in a row, 50 ms without any answer on a connection, or a refused connection open the breaker:
//! then nothing is asked until a probe (with backoff and jitter, at most 10 connections a second) is
//! answered. So each loss, return or emptying of Redis admits at most max(limit, live replicas)
//! more per key.
//!
//! The 20 ms begin when a command is handed to the connection's writer, which runs on the same
//! thread and writes at its next turn; waiting for one of the 128 turns, or for the first
//! connection of a worker, is not part of them. Time in which the thread was held up by requests of
//! its own counts as a quarter of them at most (`crate::redis::patience`), so that a busy worker does
//! not take its own delay for that of Redis. Timeouts run on the runtime's timer, not on `now`.
//!
//! # Cancellation
//! A dropped take gives its turn back. If its command was already handed over, Redis may count it,
//! and once at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{LimiterState, Local, LocalOptions, Taken};
use crate::clock::Moment;
use crate::network::Network;
use crate::quota::{Bucket, Quota};
use crate::redis::RedisUrl;

mod batch;
mod breaker;
mod script;
mod worker;

pub use breaker::BreakerState;
pub use script::redis_key;
pub(super) use worker::RedisWorker;

use breaker::Breaker;

/// How the limiter uses Redis. The defaults are what the design promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisOptions {
    /// The memory for this replica's own log and remembered refusals.
    pub local: LocalOptions,
    /// How long a command may be unanswered before it is decided locally; 20 ms.
    pub patience: Duration,
    /// How long a connection with commands outstanding may be silent before it is given up; 50 ms.
    pub silence: Duration,
    /// How long a connection may take to be made; 250 ms.
    pub connect_patience: Duration,
    /// How many commands of this replica are in flight at most; 128.
    pub most_in_flight: usize,
}

impl Default for RedisOptions {
    fn default() -> RedisOptions {
        RedisOptions {
            local: LocalOptions::default(),
            patience: Duration::from_millis(20),
            silence: Duration::from_millis(50),
            connect_patience: Duration::from_millis(250),
            most_in_flight: 128,
        }
    }
}

/// What all workers of this replica share.
#[derive(Debug)]
pub struct Redis {
    url: RedisUrl,
    options: RedisOptions,
    local: Local,
    breaker: Arc<Breaker>,
    turns: Arc<Semaphore>,
    fallbacks: AtomicU64,
    interruptions: AtomicU64,
}

impl Redis {
    /// Connects to nothing yet: each worker does when it first needs to.
    pub fn new(url: RedisUrl, options: RedisOptions) -> Redis {
        Redis {
            url,
            options,
            local: Local::new(options.local),
            breaker: Arc::new(Breaker::new()),
            turns: Arc::new(Semaphore::new(options.most_in_flight.max(1))),
            fallbacks: AtomicU64::new(0),
            interruptions: AtomicU64::new(0),
        }
    }

    /// Says how many replicas live, this one included; 0 counts as 1.
    pub fn set_live_replicas(&self, live: u32) {
        self.local.set_live_replicas(live);
    }

    pub(super) fn forget(&self, network: &Network) {
        self.local.forget(network);
    }

    /// How Redis and the replica's own log are doing.
    pub fn state(&self) -> LimiterState {
        LimiterState {
            breaker: Some(self.breaker.state()),
            in_flight: self.options.most_in_flight.max(1) - self.turns.available_permits(),
            fallbacks: self.fallbacks.load(Ordering::Relaxed),
            losses: self.breaker.era(),
            returns: self.breaker.returns(),
            interruptions: self.interruptions.load(Ordering::Relaxed),
            ..self.local.state()
        }
    }
}

impl RedisWorker {
    /// The refusal that is certain without asking.
    pub(super) fn refusal(
        &self,
        policy: &str,
        bucket: Bucket<'_>,
        quota: Quota,
        now: Moment,
    ) -> Option<Taken> {
        self.redis.local.refusal(policy, bucket, quota, now)
    }

    /// Takes one request from the quota, if any is left over all replicas.
    pub(super) async fn take(
        self: &Arc<Self>,
        policy: &str,
        bucket: Bucket<'_>,
        quota: Quota,
        now: Moment,
    ) -> Taken {
        let Redis { local, fallbacks, .. } = &*self.redis;
        let asked = Instant::now();
        let answer = self.ask(policy, bucket, quota).await;
        let now = after(now, asked.elapsed());
        match answer {
            Some(taken) if taken.admitted => {
                local.note(policy, bucket, quota, now);
                taken
            }
            Some(refusal) => {
                local.remember(policy, bucket, quota, now, refusal.frees_in);
                refusal
            }
            None => {
                fallbacks.fetch_add(1, Ordering::Relaxed);
                local.take(policy, bucket, quota, now)
            }
        }
    }
}

/// The moment at which an answer is here. What it says of the window is counted from then on, so
/// that nothing is promised earlier than Redis will keep it.
fn after(now: Moment, span: Duration) -> Moment {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    Moment {
        wall: now.wall.saturating_add_unsigned(micros),
        steady: now.steady.saturating_add(micros),
    }
}
