//! Notices that somebody set the clock of this machine. Pure.

use ipwarden_engine::clock::Moment;

/// Clocks that are slewed differ by less between two looks; a smaller step delays a job by as much.
const STEP_US: u64 = 2_000_000;

/// How far the wall clock was ahead of the steady one when somebody last looked.
pub(crate) struct Steps {
    ahead: i64,
}

impl Steps {
    pub(crate) fn since(now: Moment) -> Steps {
        Steps { ahead: ahead(now) }
    }

    /// Whether it was set since the last look. A machine that slept counts as one whose clock was set.
    pub(crate) fn noticed(&mut self, now: Moment) -> bool {
        let before = std::mem::replace(&mut self.ahead, ahead(now));
        self.ahead.abs_diff(before) >= STEP_US
    }
}

fn ahead(now: Moment) -> i64 {
    now.wall.saturating_sub_unsigned(now.steady)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, steady_seconds: u64) -> Moment {
        let at: chrono::DateTime<chrono::Utc> = text.parse().expect("a date");
        Moment { wall: at.timestamp_micros(), steady: steady_seconds * 1_000_000 }
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_once_and_one_that_goes_on_is_not() {
        let mut steps = Steps::since(at("2026-03-01T12:00:00Z", 100));
        for (wall, steady, noticed) in [
            ("2026-03-01T12:00:01Z", 101, false),
            ("2026-03-01T12:00:02.1Z", 102, false),
            ("2040-01-01T00:00:00Z", 103, true),
            ("2040-01-01T00:00:01Z", 104, false),
            ("2026-03-01T12:00:05Z", 105, true),
            ("1970-01-01T00:00:00Z", 106, true),
            ("1969-06-01T00:00:00Z", 107, true),
            ("2026-03-01T12:00:08Z", 108, true),
            ("2026-03-01T12:00:09Z", 109, false),
            ("2026-03-01T11:00:10Z", 110, true),
            ("2026-03-01T11:10:10Z", 710, false),
        ] {
            assert_eq!(steps.noticed(at(wall, steady)), noticed, "{wall}");
        }
    }
}
