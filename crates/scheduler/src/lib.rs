//! What happens by the clock: the one list of jobs, in a fleet run by the `scheduler`, embedded by `api`.
//!
//! Promises: every job can run on any number of schedulers at once and at any time, so nobody elects
//! a leader; the scan, which may not, has a lease. Each job runs once at the start, for what
//! was missed, and never beside itself. A job that fails says so and is run again when its time
//! comes.
//!
//! Times are UTC, where every hour comes once, by the clock of this machine: it only says when to look
//! what there is to do, and what is done is dated by the store. Whoever has computed the next time of a
//! job in a wrong year waits until then: so, when somebody has set the clock, every job is run once and
//! its times are computed anew.
//! What the jobs do is `ipwarden-core`'s.
#![warn(missing_docs)]

mod jobs;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use ipwarden_engine::clock::Moment;
use tokio::sync::Mutex;
use tokio_cron_scheduler::{Job as CronJob, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::jobs::{Job, Work};
use crate::steps::Steps;

/// Every job and when it runs: second, minute, hour, day of the month, month, day of the week.
pub const JOBS: [(Job, &str); 7] = [
    // Ten seconds after the hour, when its last records are in; then every five minutes what came late.
    (Job::Scan, "10 */5 * * * *"),
    (Job::EndBlocks, "*/5 * * * * *"),
    (Job::Heartbeat, "*/5 * * * * *"),
    (Job::MakeDays, "20 30 * * * *"),
    (Job::DropDays, "40 40 * * * *"),
    (Job::Anonymise, "30 20 * * * *"),
    (Job::Forget, "50 50 * * * *"),
];

/// How often somebody looks whether the clock was set.
const LOOK: Duration = Duration::from_secs(1);

/// How long the end of the process waits for jobs; what they had not committed is done by the next.
const LAST_JOBS: Duration = Duration::from_secs(2);

/// Runs all jobs by the clock until `stop`.
///
/// # Errors
/// When the clock of the jobs cannot be started; no failure of a job is one.
pub async fn run(work: Work, stop: CancellationToken) -> Result<(), JobSchedulerError> {
    let (work, running) = (Arc::new(work), TaskTracker::new());
    // Held while the job runs, so that it never runs beside itself.
    let jobs = JOBS.map(|(job, times)| (job, times, Arc::new(Mutex::new(()))));
    let mut steps = Steps::since(Moment::now());
    loop {
        let mut clock = JobScheduler::new().await?;
        for (job, times, turn) in &jobs {
            let (job, work, turn, running) = (*job, work.clone(), turn.clone(), running.clone());
            let start = move || {
                running.spawn(run_once(job, work.clone(), turn.clone()));
            };
            start();
            clock.add(CronJob::new(*times, move |_, _| start())?).await?;
        }
        clock.start().await?;
        let set = stop.run_until_cancelled(until_set(&mut steps)).await.is_some();
        clock.shutdown().await?;
        if !set {
            break;
        }
        tracing::info!("the clock of this machine was set: every job is run now");
    }
    running.close();
    if tokio::time::timeout(LAST_JOBS, running.wait()).await.is_err() {
        tracing::info!("a job is cut short; the next scheduler does it again");
    }
    Ok(())
}

async fn until_set(steps: &mut Steps) {
    loop {
        tokio::time::sleep(LOOK).await;
        if steps.noticed(Moment::now()) {
            return;
        }
    }
}

async fn run_once(job: Job, work: Arc<Work>, turn: Arc<Mutex<()>>) {
    let Ok(_turn) = turn.try_lock() else { return };
    if let Err(error) = job.run(&work).await {
        tracing::warn!(?job, %error, "a job failed; it is run again when its time comes");
    }
}
