//! Looks at the figures now and then, so that what grew of late can be told from what grew once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Counts, Guard};
use ipwarden_engine::spool::SpoolStatus;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Condition, asked_for_scan};
use crate::db::Db;

/// For how long what went wrong counts as trouble.
pub const LATELY: Duration = Duration::from_secs(600);
/// How often the figures are looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// How long the store may take to say when the last scan ran.
const PATIENCE: Duration = Duration::from_secs(5);

/// Figures that only grow, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records that never reached the store and never will.
    pub lost: u64,
    /// Segments that could not be read to their end, or went missing.
    pub unread: u64,
    /// Requests of trusted proxies that did not name their client readably.
    pub unresolved: u64,
}

impl Totals {
    pub(super) fn of(spool: &SpoolStatus, counts: &Counts) -> Totals {
        Totals {
            lost: spool.dropped + spool.evicted,
            unread: spool.damaged + spool.missing,
            unresolved: counts.unresolved,
        }
    }
}

/// The figures as they were in the last ten minutes, and what the store last said of the scan.
#[derive(Debug, Default)]
pub struct Watch {
    /// By the steady clock in microseconds, oldest first; the first may be older than that.
    seen: Mutex<VecDeque<(u64, Totals)>>,
    scan: Mutex<Option<Condition>>,
}

impl Watch {
    /// Remembers how the figures are now.
    pub fn note(&self, totals: Totals, now: Moment) {
        let mut seen = self.seen.lock();
        seen.push_back((now.steady, totals));
        // One from before stays: from it on is reckoned.
        while seen.get(1).is_some_and(|(at, _)| Some(*at) <= since(now)) {
            seen.pop_front();
        }
    }

    /// By how much they have grown lately.
    pub fn lately(&self, totals: Totals, now: Moment) -> Totals {
        let seen = self.seen.lock();
        let before = seen.iter().rev().find(|(at, _)| Some(*at) <= since(now));
        let before = before.map_or(Totals::default(), |(_, totals)| *totals);
        Totals {
            lost: totals.lost.saturating_sub(before.lost),
            unread: totals.unread.saturating_sub(before.unread),
            unresolved: totals.unresolved.saturating_sub(before.unresolved),
        }
    }

    /// How the scan stood when the store was last asked; nothing before that.
    pub(super) fn scan(&self) -> Option<Condition> {
        self.scan.lock().clone()
    }
}

/// Ten minutes ago; nothing in a process that is younger, of which all is late.
fn since(now: Moment) -> Option<u64> {
    now.steady.checked_sub(u64::try_from(LATELY.as_micros()).unwrap_or(u64::MAX))
}

/// Looks until it is told to stop.
pub(crate) async fn follow(watch: Arc<Watch>, guard: Arc<Guard>, db: Db, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        watch.note(Totals::of(&guard.spool().status(), &guard.counts()), Moment::now());
        let scan = tokio::select! {
            () = stop.cancelled() => return,
            scan = asked_for_scan(&db, Moment::now(), PATIENCE) => scan,
        };
        *watch.scan.lock() = Some(scan);
    }
}
