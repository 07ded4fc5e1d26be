//! What happens by the clock: the one list of jobs, in a fleet run by the `scheduler`, embedded by `api`.
//!
//! Promises: every job can run on any number of schedulers at once and at any time, so nobody elects
//! a leader; the scan, which may not, has a lease. Each job runs once at the start, for what
//! was missed, and never beside itself. A job that fails says so and is run again when its time
//! comes.
//!
//! Times are UTC, where every hour comes once, by the clock of this machine: it only says when to look
//! what there is to do. A clock that jumps to any year and back stops no job (which schedulers that
//! compute their next time do not promise), and what is done is dated by the store.
//! What the jobs do is `ipwarden-core`'s.
#![warn(missing_docs)]

mod jobs;
mod times;

use std::sync::Arc;
use std::time::Duration;

use ipwarden_engine::clock::Moment;
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::jobs::{Job, Work};
pub use crate::times::Times;

/// Every job and when it runs, in seconds.
pub const JOBS: [(Job, Times); 6] = [
    // Ten seconds after the hour, when its last records are in; then every five minutes what came late.
    (Job::Scan, Times { every: 5 * 60, after: 10 }),
    (Job::EndBlocks, Times { every: 5, after: 0 }),
    (Job::Heartbeat, Times { every: 5, after: 0 }),
    (Job::MakeDays, Times { every: 60 * 60, after: 30 * 60 + 20 }),
    (Job::DropDays, Times { every: 60 * 60, after: 40 * 60 + 40 }),
    (Job::Forget, Times { every: 60 * 60, after: 50 * 60 + 50 }),
];

/// How often somebody looks at the clock.
const LOOK: Duration = Duration::from_millis(500);

/// How long the end of the process waits for jobs; what they had not committed is done by the next.
const LAST_JOBS: Duration = Duration::from_secs(2);

/// Runs all jobs by the clock until `stop`. No failure of a job ends it.
pub async fn run(work: Work, stop: CancellationToken) {
    let (work, running) = (Arc::new(work), TaskTracker::new());
    let mut jobs = JOBS.map(|(job, times)| {
        // Held while the job runs, so that it never runs beside itself.
        (job, times, times.count(Moment::now()), Arc::new(Mutex::new(())))
    });
    let start = |job, turn: &Arc<Mutex<()>>| {
        running.spawn(run_once(job, work.clone(), turn.clone()));
    };
    for (job, _, _, turn) in &jobs {
        start(*job, turn);
    }
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let now = Moment::now();
        for (job, times, last, turn) in &mut jobs {
            let count = times.count(now);
            if std::mem::replace(last, count) != count {
                start(*job, turn);
            }
        }
    }
    running.close();
    if tokio::time::timeout(LAST_JOBS, running.wait()).await.is_err() {
        tracing::info!("a job is cut short; the next scheduler does it again");
    }
}

async fn run_once(job: Job, work: Arc<Work>, turn: Arc<Mutex<()>>) {
    let Ok(_turn) = turn.try_lock() else { return };
    if let Err(error) = job.run(&work).await {
        tracing::warn!(?job, %error, "a job failed; it is run again when its time comes");
    }
}
