//! The loop of a feeder: when to ask the store.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::redis::RedisUrl;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Feeder, date, hints};
use crate::db::{DataVersion, Db, DbError};

/// How often the store is asked when nobody hints at anything.
const POLL: Duration = Duration::from_secs(1);
/// How often SQLite is looked at; a look costs 3 us.
const LOOK: Duration = Duration::from_millis(250);
/// SQLite is asked this often even if nobody seems to have committed: its file may have been replaced.
const DISTRUST: Duration = Duration::from_secs(5);
/// How often the store's clock is compared with ours.
const COMPARE_CLOCKS: Duration = Duration::from_secs(5);
/// A comparison over a longer round trip says too little.
const LONGEST_TRIP: Duration = Duration::from_millis(500);
/// After new lists rest for this many times what building them took, so that a flood of changes to a long
/// list takes a share of a core and not all of it. Waiting for the store takes nothing of any core.
const REST: u32 = 3;
const LONGEST_REST: Duration = Duration::from_millis(500);

impl Feeder {
    /// Puts into force what there is: the copy on disk at once, then what the store says. To be
    /// awaited before the first request is served, and followed by [`Feeder::run`].
    ///
    /// A store that does not answer is no error: see [`Status`](super::Status). This is an entry
    /// point: it reads the clocks.
    pub async fn start(&mut self) {
        self.load_copy().await;
        self.step(&mut None).await;
    }

    /// Follows the store until `stop`, then writes the copy on disk if it is outdated.
    ///
    /// Hints are heard on `redis`. This is an entry point: it reads the clocks.
    pub async fn run(mut self, redis: Option<RedisUrl>, stop: CancellationToken) {
        self.fill();
        let (nudge, status) = (self.nudge.clone(), self.status.subscribe());
        let hints = async {
            match redis {
                Some(redis) => hints::listen(redis, nudge, status).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            never = hints => match never {},
            never = self.follow() => match never {},
        }
        if let Some(version) = self.version
            && self.copy.is_outdated()
        {
            self.copy.save(self.held.clone(), (version, self.made), Moment::now()).await;
        }
        self.copy.written().await;
    }

    async fn follow(&mut self) -> Infallible {
        let (mut eye, mut compared) = (Eye::default(), None);
        loop {
            // Before the question, so that whatever is committed after it is noticed.
            eye.look(&self.db).await;
            if self.step(&mut compared).await {
                sleep((self.built_in * REST).min(LONGEST_REST)).await;
            }
            self.wait_for_a_reason(&mut eye).await;
        }
    }

    /// Asks the store once, its clock now and then; says whether there was anything new.
    async fn step(&mut self, compared: &mut Option<Moment>) -> bool {
        let Ok(fresh) = self.refresh(Moment::now()).await else { return false };
        let now = Moment::now();
        if compared.is_none_or(|at| since(at, now) >= COMPARE_CLOCKS) {
            // A store that has just answered; if it fails now, that is no trouble of the lists.
            match self.compare_clocks(now).await {
                Ok(()) => *compared = Some(now),
                Err(error) => tracing::debug!(%error, "the clocks are compared with the next step"),
            }
        }
        fresh
    }

    /// Returns when it is time to ask the store.
    async fn wait_for_a_reason(&mut self, eye: &mut Eye) {
        let start = Moment::now();
        let (step, whole) = if self.db.is_sqlite() { (LOOK, DISTRUST) } else { (POLL, POLL) };
        loop {
            let nudge = self.nudge.clone();
            if timeout(step, nudge.notified()).await.is_ok() {
                return;
            }
            let now = Moment::now();
            self.save_copy_if_due(now).await;
            if since(start, now) >= whole || eye.look(&self.db).await {
                return;
            }
        }
    }

    /// Finds out what the store's clock shows: the embedded store's is this machine's.
    async fn compare_clocks(&self, before: Moment) -> Result<(), DbError> {
        let hasty = self.db.with_timeout(LONGEST_TRIP);
        let store_now = hasty.clock(date(before)).await?.timestamp_micros();
        if self.db.is_sqlite() {
            (self.set_clock)(store_now, before);
            return Ok(());
        }
        let trip = Moment::now().steady - before.steady;
        if Duration::from_micros(trip) <= LONGEST_TRIP {
            let wall = before.wall + trip.cast_signed() / 2;
            (self.set_clock)(store_now, Moment { wall, steady: before.steady + trip / 2 });
        }
        Ok(())
    }
}

fn since(start: Moment, now: Moment) -> Duration {
    Duration::from_micros(now.steady - start.steady)
}

/// Notices commits to SQLite; sees nothing of PostgreSQL.
#[derive(Default)]
struct Eye {
    watch: Option<DataVersion>,
    seen: Option<i64>,
}

impl Eye {
    /// Whether anybody has committed since the last look, or may have.
    async fn look(&mut self, db: &Db) -> bool {
        let Db::Sqlite(pool) = db else { return false };
        let watch = match self.watch.take() {
            Some(watch) => Ok(watch),
            None => pool.watch().await,
        };
        let Ok(mut watch) = watch else { return true };
        let looked = tokio::task::spawn_blocking(move || (watch.look(), watch)).await;
        let Ok((Ok(version), watch)) = looked else { return true };
        self.watch = Some(watch);
        self.seen.replace(version) != Some(version)
    }
}
