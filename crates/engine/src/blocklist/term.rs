//! When an entry ends and whether the scan made it, in four bytes that compare.

use super::{Hit, ListEntry};

/// 2020-01-01T00:00:00Z in microseconds since the Unix epoch: the seconds of a [`Term`] count from here.
const EPOCH: i64 = 1_577_836_800_000_000;
const SECOND: u64 = 1_000_000;
/// Ends in 2088 or later count as never.
const NEVER: u32 = u32::MAX >> 1;

/// The end of an entry and its origin, ordered so that the greater of two is the one that answers.
///
/// The upper 31 bits are whole seconds since 2020, rounded up, so that no entry ends early; the
/// lowest bit is set unless the scan made it. Hence the entry that ends last is the greatest, one
/// without an end is greater than any other, and of two that end together the one a person made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Term(u32);

impl Term {
    pub(super) fn of(entry: &ListEntry) -> Term {
        let seconds = match entry.ends {
            None => NEVER,
            Some(ends) => {
                let since = u64::try_from(ends.saturating_sub(EPOCH)).unwrap_or(0);
                u32::try_from(since.div_ceil(SECOND)).map_or(NEVER, |seconds| seconds.min(NEVER))
            }
        };
        Term(seconds << 1 | u32::from(!entry.by_scan))
    }

    pub(super) fn is_active(self, store_now: i64) -> bool {
        let since = u64::try_from(store_now.saturating_sub(EPOCH)).unwrap_or(0);
        u64::from(self.seconds()) > (since / SECOND).min(u64::from(NEVER) - 1)
    }

    pub(super) fn hit(self) -> Hit {
        let ends = match self.seconds() {
            NEVER => None,
            seconds => Some(EPOCH + i64::from(seconds) * SECOND.cast_signed()),
        };
        Hit { ends, by_scan: self.0 & 1 == 0 }
    }

    fn seconds(self) -> u32 {
        self.0 >> 1
    }
}
