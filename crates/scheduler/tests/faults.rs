//! The scan while schedulers race, are killed and stopped, and their clocks jump: every window once,
//! in order, and findings as if nothing had happened.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "faults/bed.rs"]
mod bed;
#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/hours.rs"]
mod hours;
#[path = "faults/kill.rs"]
mod kill;
#[path = "faults/pause.rs"]
mod pause;

use tokio::sync::{Mutex, MutexGuard};

/// One at a time: each wants the whole machine.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
