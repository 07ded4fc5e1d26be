//! Which passes were taken: bounded, and never forgetful while a pass still holds.

use std::collections::HashSet;

use super::{LIFE, SKEW, micros};

/// The most passes that are remembered; 16 bytes each, and about as much again. Past that none is taken
/// until old ones end: 16,000 a second can go on for ever.
pub(super) const MOST: usize = 1 << 20;

/// Nonces of passes that were taken, in two generations: a nonce is forgotten after one to two spans, and a
/// pass holds for one.
pub(super) struct Replay {
    recent: HashSet<u128, ahash::RandomState>,
    before: HashSet<u128, ahash::RandomState>,
    /// When `recent` began. All times are wall clock, in microseconds: passes are dated by it.
    began: i64,
    /// Passes that were issued before this may have been taken by an earlier process.
    since: i64,
    /// The latest time that was seen. A clock that is set back makes no pass hold again whose nonce is
    /// forgotten; until it has caught up, requests are counted.
    latest: i64,
    most: usize,
}

/// Whether a pass counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Once {
    First,
    Again,
    Ended,
    Untimely,
    Full,
}

impl Replay {
    pub(super) fn new(now: i64) -> Replay {
        Replay::with_room_for(MOST, now)
    }

    pub(super) fn with_room_for(most: usize, now: i64) -> Replay {
        let (recent, before) = (HashSet::default(), HashSet::default());
        Replay { recent, before, began: now, since: now, latest: now, most }
    }

    pub(super) fn take(&mut self, nonce: u128, ends: i64, now: i64) -> Once {
        self.latest = self.latest.max(now);
        let (now, life, skew) = (self.latest, micros(LIFE), micros(SKEW));
        self.forget(now, life + skew);
        if ends <= now {
            return Once::Ended;
        }
        if ends > now + life + skew || ends - life < self.since {
            return Once::Untimely;
        }
        if self.before.contains(&nonce) || self.recent.contains(&nonce) {
            return Once::Again;
        }
        if self.recent.len() + self.before.len() >= self.most {
            return Once::Full;
        }
        self.recent.insert(nonce);
        Once::First
    }

    fn forget(&mut self, now: i64, span: i64) {
        if now - self.began < span {
            return;
        }
        self.before = match now - self.began < 2 * span {
            true => std::mem::take(&mut self.recent),
            false => HashSet::default(),
        };
        self.recent = HashSet::default();
        self.began = now;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.before.len()
    }
}
