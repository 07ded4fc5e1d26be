//! How often each verdict was given and recorded. Each worker counts on a cache line of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::record::RecordVerdict;

/// Requests by verdict since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Served.
    pub allowed: u64,
    /// Refused with 403.
    pub blocked: u64,
    /// Refused with 429.
    pub throttled: u64,
    /// Served, although a policy in dry run was used up; counted under `allowed` too.
    pub would_limit: u64,
    /// Requests of trusted proxies whose header did not name the client readably.
    pub unresolved: u64,
    /// Requests of trusted proxies on their own behalf: probes, or a proxy that sets no header.
    pub of_proxies: u64,
}

#[derive(Default)]
pub(super) struct Counters(Mutex<Vec<Arc<OfWorker>>>);

#[derive(Default)]
#[repr(align(64))]
pub(super) struct OfWorker {
    allowed: AtomicU64,
    blocked: AtomicU64,
    throttled: AtomicU64,
    would_limit: AtomicU64,
    unresolved: AtomicU64,
    of_proxies: AtomicU64,
}

impl Counters {
    pub(super) fn of_worker(&self) -> Arc<OfWorker> {
        let own = Arc::new(OfWorker::default());
        self.0.lock().push(own.clone());
        own
    }

    pub(super) fn sum(&self) -> Counts {
        self.0.lock().iter().fold(Counts::default(), |sum, worker| Counts {
            allowed: sum.allowed + worker.allowed.load(Relaxed),
            blocked: sum.blocked + worker.blocked.load(Relaxed),
            throttled: sum.throttled + worker.throttled.load(Relaxed),
            would_limit: sum.would_limit + worker.would_limit.load(Relaxed),
            unresolved: sum.unresolved + worker.unresolved.load(Relaxed),
            of_proxies: sum.of_proxies + worker.of_proxies.load(Relaxed),
        })
    }
}

impl OfWorker {
    pub(super) fn count(&self, verdict: RecordVerdict) {
        let counter = match verdict {
            RecordVerdict::Allowed => &self.allowed,
            RecordVerdict::Blocked => &self.blocked,
            RecordVerdict::Throttled => &self.throttled,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn of_proxy(&self, degraded: bool) {
        let counter = if degraded { &self.unresolved } else { &self.of_proxies };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn would_limit(&self) {
        self.would_limit.fetch_add(1, Relaxed);
    }
}
