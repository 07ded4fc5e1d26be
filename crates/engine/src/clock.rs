//! The one place that reads the clocks. Everything else takes a [`Moment`] as an argument.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment as both clocks of the machine tell it.
///
/// The wall clock can be stepped by an operator or NTP, so nothing that limits or expires in this
/// process is measured by it; records are dated by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds since the Unix epoch, UTC; may jump.
    pub wall: i64,
    /// Microseconds since the first look in this process; never goes back.
    pub steady: u64,
}

impl Moment {
    /// Reads both clocks. Only entry points call this.
    #[expect(clippy::disallowed_methods, reason = "this is where time enters")]
    pub fn now() -> Moment {
        static START: OnceLock<Instant> = OnceLock::new();
        let steady = START.get_or_init(Instant::now).elapsed();
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Moment { wall, steady: u64::try_from(steady.as_micros()).unwrap_or(u64::MAX) }
    }
}
