//! Whether Redis is worth asking, for all workers of this replica together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};
use tokio::time::Instant;

/// As many unanswered commands in a row open the breaker.
const MOST_MISSES: u32 = 3;

/// As many attempts to connect again in one second, at most.
const ATTEMPTS_PER_SECOND: usize = 10;

/// What is known of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerState {
    /// Redis answers and decides.
    Closed,
    /// Redis does not answer; this replica decides by its share.
    Open,
    /// As open, and Redis is being tried.
    HalfOpen,
}

/// Closed at first: only failure opens it, and only an answered probe closes it.
#[derive(Debug)]
pub(super) struct Breaker {
    state: AtomicU8,
    misses: AtomicU32,
    /// Counts how often it opened. A connection from before is not used after.
    era: AtomicU64,
    /// Counts how often it closed again.
    returns: AtomicU64,
    /// Wakes those who wait for a turn when it opens.
    opened: Notify,
    probing: AtomicBool,
    /// When the last attempts to connect again were, oldest first.
    attempts: Mutex<VecDeque<Instant>>,
}

/// The right to probe, which one task has at a time; given back when dropped, so that another
/// takes over if its runtime ends.
pub(super) struct Probing(Arc<Breaker>);

impl Breaker {
    pub(super) fn new() -> Breaker {
        Breaker {
            state: AtomicU8::new(BreakerState::Closed as u8),
            misses: AtomicU32::new(0),
            era: AtomicU64::new(0),
            returns: AtomicU64::new(0),
            opened: Notify::new(),
            probing: AtomicBool::new(false),
            attempts: Mutex::new(VecDeque::with_capacity(ATTEMPTS_PER_SECOND)),
        }
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) == BreakerState::Closed as u8
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state.load(Ordering::Acquire) {
            0 => BreakerState::Closed,
            1 => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    #[inline]
    pub(super) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    pub(super) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Relaxed)
    }

    /// A command was answered in time.
    #[inline]
    pub(super) fn answered(&self) {
        // Mostly zero already: read before the write that would own the cache line.
        if self.misses.load(Ordering::Relaxed) != 0 {
            self.misses.store(0, Ordering::Relaxed);
        }
    }

    /// A command was not answered in time, or with an error; says whether that opened the breaker.
    pub(super) fn missed(&self) -> bool {
        self.misses.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_MISSES && self.open()
    }

    /// Opens it if it is closed, and says whether it did.
    pub(super) fn open(&self) -> bool {
        let (closed, open) = (BreakerState::Closed as u8, BreakerState::Open as u8);
        let opened =
            self.state.compare_exchange(closed, open, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if opened {
            self.era.fetch_add(1, Ordering::AcqRel);
            self.opened.notify_waiters();
        }
        opened
    }

    /// Ends when the breaker opens, if that is after the first poll.
    pub(super) fn opened(&self) -> Notified<'_> {
        self.opened.notified()
    }

    /// The right to probe, unless another task has it.
    pub(super) fn begin_probing(self: &Arc<Self>) -> Option<Probing> {
        (!self.probing.swap(true, Ordering::AcqRel)).then(|| Probing(Arc::clone(self)))
    }

    /// Whether one more attempt to connect keeps their number per second in bounds; if so it counts.
    pub(super) fn may_connect_again(&self) -> bool {
        let now = Instant::now();
        let mut attempts = self.attempts.lock();
        while attempts.front().is_some_and(|oldest| now - *oldest >= Duration::from_secs(1)) {
            attempts.pop_front();
        }
        let may = attempts.len() < ATTEMPTS_PER_SECOND;
        if may {
            attempts.push_back(now);
        }
        may
    }
}

impl Probing {
    /// Redis is being tried.
    pub(super) fn half_open(&self) {
        self.0.state.store(BreakerState::HalfOpen as u8, Ordering::Release);
    }

    /// Redis did not answer the probe.
    pub(super) fn open_again(&self) {
        self.0.state.store(BreakerState::Open as u8, Ordering::Release);
    }

    /// Redis answered the probe.
    pub(super) fn close(self) {
        self.0.misses.store(0, Ordering::Relaxed);
        self.0.returns.fetch_add(1, Ordering::Relaxed);
        self.0.state.store(BreakerState::Closed as u8, Ordering::Release);
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.probing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_misses_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let breaker = Breaker::new();
        assert!(!breaker.missed() && !breaker.missed());
        breaker.answered();
        assert!(!breaker.missed() && !breaker.missed());
        assert!(breaker.is_closed());
        assert!(breaker.missed(), "the third opens it");
        assert!(!breaker.missed(), "and no other does so again");
        assert_eq!((breaker.state(), breaker.era()), (BreakerState::Open, 1));
    }

    #[test]
    fn one_task_probes_at_a_time_and_only_its_success_closes_the_breaker() {
        let breaker = Arc::new(Breaker::new());
        assert!(breaker.open() && !breaker.open());
        let probing = breaker.begin_probing().unwrap();
        assert!(breaker.begin_probing().is_none());
        probing.half_open();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(!breaker.is_closed());
        probing.open_again();
        assert_eq!(breaker.state(), BreakerState::Open);
        drop(probing);
        breaker.begin_probing().expect("the last prober is gone").close();
        assert!(breaker.is_closed());
        assert!(!breaker.missed() && !breaker.missed(), "misses begin anew");
        assert!(breaker.missed());
        assert_eq!((breaker.era(), breaker.returns()), (2, 1));
    }

    #[test]
    fn ten_attempts_to_connect_again_are_allowed_in_one_second() {
        let breaker = Breaker::new();
        let before = Instant::now();
        let allowed = (0..100).filter(|_| breaker.may_connect_again()).count();
        assert!(allowed == 10 || before.elapsed() >= Duration::from_secs(1), "{allowed}");
    }
}
