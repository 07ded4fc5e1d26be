//! What is promised while things break: counts are asserted, times are printed (and asserted at ten
//! times their goal). The short form; each test prints the seed of its random choices, and takes
//! another from `IPWARDEN_TEST_SEED`.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod blocks;
mod check;
mod clock;
mod disk;
mod hostile;
mod kill;
mod load;
mod million;
mod operators;
mod partition;
mod postgres;
mod quotas;
mod readiness;
mod redis;
mod redis_emptied;
mod rolling;
mod spool;
mod stop;

use ipwarden_testbed::report::{seed, short_or_long};
use tokio::sync::{Mutex, MutexGuard};

/// One at a time: each wants the whole machine.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
