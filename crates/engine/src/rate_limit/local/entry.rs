//! One client's sliding log, in 48 bytes while no more than five requests lie in its window.

use std::collections::VecDeque;
use std::mem::size_of;

use super::super::{GRAINS, LARGEST_EXACT_LIMIT};
use super::key::Key;
use crate::quota::Quota;

/// Moments that fit into an entry itself.
const INLINE: usize = 5;

/// Whose log, and when its admitted requests were; all moments in microseconds of the steady clock.
///
/// Moments never decrease from one to the next: a request whose clock was read before another's
/// but which comes later counts as simultaneous with it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// The upper half of the newest inline moment.
    newest_high: u32,
    moments: Moments,
}

#[derive(Debug)]
enum Moments {
    /// The lower halves, oldest first. All lie less than 2^32 us (71 minutes) before the newest,
    /// so that and `newest_high` tell them whole.
    Inline { len: u8, low: [u32; INLINE] },
    /// More of them, or a longer span.
    Spilled(Box<Spill>),
}

#[derive(Debug, Default)]
struct Spill {
    marks: VecDeque<Mark>,
    /// The sum of all counts.
    total: u32,
}

/// Requests that leave the window together.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: u64,
    count: u32,
}

impl Entry {
    pub(super) fn new(key: Key) -> Entry {
        Entry { key, newest_high: 0, moments: Moments::Inline { len: 0, low: [0; INLINE] } }
    }

    /// How many admitted requests are in the log.
    pub(super) fn count(&self) -> u32 {
        match &self.moments {
            Moments::Inline { len, .. } => u32::from(*len),
            Moments::Spilled(spill) => spill.total,
        }
    }

    /// Forgets the requests that have left the window that ends now.
    pub(super) fn prune(&mut self, now: u64, period: u64) {
        let newest_high = self.newest_high;
        match &mut self.moments {
            Moments::Inline { len, low } => {
                let held = usize::from(*len);
                let gone = (0..held)
                    .take_while(|at| whole(newest_high, low, held, *at) + period <= now)
                    .count();
                if gone > 0 {
                    low.copy_within(gone..held, 0);
                    *len -= gone as u8;
                }
            }
            Moments::Spilled(spill) => {
                while let Some(oldest) = spill.marks.front().filter(|mark| mark.at + period <= now)
                {
                    spill.total -= oldest.count;
                    spill.marks.pop_front();
                }
            }
        }
    }

    /// When the request leaves the window that has `before` admitted ones before it, or now.
    pub(super) fn leaves_at(&self, before: u32, period: u64) -> Option<u64> {
        let at = match &self.moments {
            Moments::Inline { len, low } => {
                let (held, before) = (usize::from(*len), before as usize);
                (before < held).then(|| whole(self.newest_high, low, held, before))?
            }
            Moments::Spilled(spill) => {
                let mut passed = 0;
                let leaves = |mark: &&Mark| {
                    passed += mark.count;
                    passed > before
                };
                spill.marks.iter().find(leaves)?.at
            }
        };
        Some(at + period)
    }

    /// Counts a request that was admitted now.
    pub(super) fn push(&mut self, now: u64, quota: Quota) {
        if let Moments::Inline { len, low } = &mut self.moments {
            let held = usize::from(*len);
            let (oldest, newest) = match held {
                0 => (now, now),
                _ => {
                    let moment = |at| whole(self.newest_high, low, held, at);
                    (moment(0), moment(held - 1).max(now))
                }
            };
            if held < INLINE && newest - oldest <= u64::from(u32::MAX) {
                low[held] = newest as u32;
                self.newest_high = (newest >> 32) as u32;
                *len += 1;
                return;
            }
            self.moments = Moments::Spilled(Box::new(spilled(self.newest_high, low, held)));
        }
        if let Moments::Spilled(spill) = &mut self.moments {
            spill.push(counted_at(now, quota));
        }
    }

    /// The memory it has beyond its own size, in bytes.
    pub(super) fn spilled_bytes(&self) -> usize {
        match &self.moments {
            Moments::Inline { .. } => 0,
            Moments::Spilled(spill) => {
                size_of::<Spill>() + spill.marks.capacity() * size_of::<Mark>()
            }
        }
    }

    /// Gives back spilled memory that is no longer needed.
    pub(super) fn tighten(&mut self) {
        let Moments::Spilled(spill) = &mut self.moments else { return };
        let (Some(first), Some(last)) = (spill.marks.front(), spill.marks.back()) else { return };
        if spill.total as usize <= INLINE && last.at - first.at <= u64::from(u32::MAX) {
            let newest_high = (last.at >> 32) as u32;
            let mut low = [0; INLINE];
            let each = spill
                .marks
                .iter()
                .flat_map(|mark| std::iter::repeat_n(mark.at as u32, mark.count as usize));
            for (slot, moment) in low.iter_mut().zip(each) {
                *slot = moment;
            }
            let len = spill.total as u8;
            self.newest_high = newest_high;
            self.moments = Moments::Inline { len, low };
        } else if spill.marks.capacity() > 4 * spill.marks.len() {
            spill.marks.shrink_to(2 * spill.marks.len());
        }
    }
}

impl Spill {
    fn push(&mut self, at: u64) {
        self.total += 1;
        match self.marks.back_mut() {
            Some(newest) if newest.at >= at => newest.count += 1,
            _ => self.marks.push_back(Mark { at, count: 1 }),
        }
    }
}

/// The moment at which a request counts: its own, or the end of its grain under a large limit.
fn counted_at(now: u64, quota: Quota) -> u64 {
    if quota.limit <= LARGEST_EXACT_LIMIT {
        return now;
    }
    let grain = (quota.period_micros() / GRAINS).max(1);
    (now / grain + 1) * grain
}

/// The whole of inline moment `at`, of which there are `held`.
#[inline]
fn whole(newest_high: u32, low: &[u32; INLINE], held: usize, at: usize) -> u64 {
    let newest_low = low[held - 1];
    let newest = u64::from(newest_high) << 32 | u64::from(newest_low);
    newest - u64::from(newest_low.wrapping_sub(low[at]))
}

fn spilled(newest_high: u32, low: &[u32; INLINE], held: usize) -> Spill {
    let mut spill = Spill::default();
    spill.marks.reserve_exact(2 * INLINE);
    for at in 0..held {
        spill.push(whole(newest_high, low, held, at));
    }
    spill
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_48_bytes() {
        assert_eq!(size_of::<Entry>(), 48);
    }
}
