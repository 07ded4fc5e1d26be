//! The one place that reads the clocks. Everything else takes a [`Moment`] as an argument.

use std::cell::Cell;
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

/// For so many microseconds the wall clock is believed to go on as the steady one does, which saves a busy
/// thread half of what reading the clocks costs.
const WALL_IS_STEADY_FOR: u64 = 1_000;

impl Moment {
    /// Reads both clocks; a step of the wall clock is seen within a millisecond. Only entry points call this.
    #[expect(clippy::disallowed_methods, reason = "this is where time enters")]
    pub fn now() -> Moment {
        static START: OnceLock<Instant> = OnceLock::new();
        thread_local! {
            /// When this thread last read the wall clock.
            static READ: Cell<Option<Moment>> = const { Cell::new(None) };
        }
        let steady = START.get_or_init(Instant::now).elapsed();
        let steady = u64::try_from(steady.as_micros()).unwrap_or(u64::MAX);
        if let Some(read) = READ.get()
            && steady - read.steady < WALL_IS_STEADY_FOR
        {
            return Moment { wall: read.wall + (steady - read.steady) as i64, steady };
        }
        let now = Moment { wall: Moment::wall(), steady };
        READ.set(Some(now));
        now
    }

    #[expect(clippy::disallowed_methods, reason = "this is where time enters")]
    fn wall() -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        }
    }
}
