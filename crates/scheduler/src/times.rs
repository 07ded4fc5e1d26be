//! When a job is due. Pure.

use ipwarden_engine::clock::Moment;

/// Every so many seconds, UTC; whole minutes, hours and days begin with a multiple of their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How many seconds from one time to the next.
    pub every: i64,
    /// How many seconds after each multiple of that.
    pub after: i64,
}

impl Times {
    /// Counts the times until `now`. A job is due when this is another number than it was when
    /// somebody last looked, larger or not. So no clock can stop a job: none waits for a time that was
    /// computed in a wrong year, and a clock that jumps makes it run once.
    pub(crate) fn count(self, now: Moment) -> i64 {
        (now.wall.div_euclid(1_000_000) - self.after).div_euclid(self.every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: Times = Times { every: 300, after: 10 };

    fn at(text: &str) -> Moment {
        let at: chrono::DateTime<chrono::Utc> = text.parse().expect("a date");
        Moment { wall: at.timestamp_micros(), ..Moment::now() }
    }

    fn is_due(times: Times, before: &str, now: &str) -> bool {
        times.count(at(before)) != times.count(at(now))
    }

    #[test]
    fn a_job_is_due_once_at_each_of_its_times() {
        for (before, now, due) in [
            ("2026-03-01T11:59:59Z", "2026-03-01T12:00:09Z", false),
            ("2026-03-01T12:00:09.9Z", "2026-03-01T12:00:10Z", true),
            ("2026-03-01T12:00:10Z", "2026-03-01T12:05:09.9Z", false),
            ("2026-03-01T12:05:09Z", "2026-03-01T12:05:11Z", true),
            ("2026-03-01T23:55:10Z", "2026-03-02T00:00:10Z", true),
        ] {
            assert_eq!(is_due(FIVE_MINUTES, before, now), due, "{before} {now}");
        }
        let hourly = Times { every: 3_600, after: 30 * 60 + 20 };
        assert!(is_due(hourly, "2026-03-01T12:30:19Z", "2026-03-01T12:30:20Z"));
        assert!(!is_due(hourly, "2026-03-01T12:30:20Z", "2026-03-01T13:30:19Z"));
    }

    #[test]
    fn a_clock_that_jumps_makes_a_job_run_once_and_stops_none() {
        let years = ["2040-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1969-06-01T00:00:00Z"];
        for year in years {
            assert!(is_due(FIVE_MINUTES, "2026-03-01T12:02:00Z", year), "{year}");
            assert!(is_due(FIVE_MINUTES, year, "2026-03-01T12:02:00Z"), "and back from {year}");
        }
        assert!(is_due(FIVE_MINUTES, "2026-03-01T12:02:00Z", "2026-03-01T12:05:10Z"), "as ever");
    }
}
