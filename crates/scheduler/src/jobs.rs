//! What each job does.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Days, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_core::anonymise;
use ipwarden_core::changes;
use ipwarden_core::config::Config;
use ipwarden_core::db::{
    Db, DbError, forgotten, idempotency_keys, list_changes, nodes, partitions,
};
use ipwarden_core::forget;
use ipwarden_core::lists;
use ipwarden_core::redis::RedisPool;
use ipwarden_core::scan::{self, Outcome, Terms};
use ipwarden_engine::clock::Moment;

/// Days whose partitions are made before they begin; so many a scheduler may be away.
const DAYS_AHEAD: u64 = 3;

/// Who is further behind than this with the lists reloads them whole.
const KEEP_CHANGES: TimeDelta = TimeDelta::days(7);

/// Something that is done by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Judges the hours that ended, and those that records came late for, and counts them.
    Scan,
    /// Takes what has ended off the lists.
    EndBlocks,
    /// Says that this scheduler lives.
    Heartbeat,
    /// Makes the partitions of the coming days.
    MakeDays,
    /// Drops records that are older than the retention, and what was counted of their hours.
    DropDays,
    /// Cuts the addresses in old records, if that is wanted.
    Anonymise,
    /// Forgets changes of the lists that nobody asks for any more, answers that are kept no longer, and what is
    /// left of those who were forgotten.
    Forget,
}

/// What the jobs work on.
pub struct Work {
    /// The store.
    pub db: Db,
    /// Carries the hint that a list changed, in a fleet.
    pub redis: Option<RedisPool>,
    /// What the scan judges by.
    pub terms: Arc<Terms>,
    /// How long records are kept.
    pub retention: TimeDelta,
    /// How long their addresses stay whole; `None` for as long as they are kept.
    pub anonymise_after: Option<TimeDelta>,
    /// Who this is among the schedulers.
    pub node: String,
    /// Since when.
    pub started_at: DateTime<Utc>,
}

impl Work {
    /// What the configuration says, on a machine with its own addresses.
    pub fn of(config: &Config, db: Db, redis: Option<RedisPool>, now: Moment) -> Work {
        Work {
            db,
            redis,
            terms: Arc::new(Terms::of(config, lists::own_addresses())),
            retention: TimeDelta::from_std(config.request_log.retention)
                .expect("the configuration allows a hundred years at most"),
            anonymise_after: config
                .request_log
                .anonymise_after
                .map(|after| TimeDelta::from_std(after).expect("it is within the retention")),
            // `nodes` also holds the `api` of the same host.
            node: format!("scheduler@{}", config.node_name()),
            started_at: date(now),
        }
    }

    async fn announce(&self, version: Option<i64>) {
        let (Some(redis), Some(version)) = (&self.redis, version) else { return };
        if let Err(error) = changes::announce(redis, version).await {
            tracing::debug!(%error, "no hint was sent; the replicas find out by themselves");
        }
    }
}

impl Job {
    /// Does it once, now.
    ///
    /// # Errors
    /// The store's.
    pub async fn run(self, work: &Work) -> Result<(), DbError> {
        let (db, now) = (&work.db, date(Moment::now()));
        match self {
            Job::Scan => scan(work).await,
            Job::EndBlocks => {
                let (_, version) = lists::prune_ended(db, now).await?;
                work.announce(version).await;
                Ok(())
            }
            Job::Heartbeat => heartbeat(work, now).await,
            Job::MakeDays => {
                let today = db.clock(now).await?.date_naive();
                let days = (0..=DAYS_AHEAD).filter_map(|n| today.checked_add_days(Days::new(n)));
                partitions::ensure(db, &days.collect::<BTreeSet<_>>()).await
            }
            Job::DropDays => {
                // Never by the clock of one machine among many: what is dropped is gone.
                let now = db.clock(now).await?;
                let dropped = partitions::drop_old(db, work.retention, now).await?;
                if dropped > 0 {
                    tracing::info!(dropped, "records older than the retention were dropped");
                }
                scan::forget_old(db, work.retention, now).await.map(drop)
            }
            Job::Anonymise => {
                let Some(after) = work.anonymise_after else { return Ok(()) };
                let (span, now) = (work.terms.rules.span, db.clock(now).await?);
                let cut = anonymise::run(db, after, span, now).await?;
                if cut > 0 {
                    tracing::info!(records = cut, "addresses in old records were cut");
                }
                Ok(())
            }
            Job::Forget => forget_old(db, now).await,
        }
    }
}

async fn scan(work: &Work) -> Result<(), DbError> {
    match scan::run_due(&work.db, &work.terms, &work.node, || date(Moment::now())).await? {
        Outcome::Busy => tracing::debug!("another scheduler scans"),
        Outcome::Done(judged) => {
            work.announce(judged.iter().filter_map(|judged| judged.version).max()).await;
            scan::count_due(&work.db, &work.node, || date(Moment::now())).await?;
        }
    }
    Ok(())
}

async fn heartbeat(work: &Work, now: DateTime<Utc>) -> Result<(), DbError> {
    let (node, started_at) = (work.node.clone(), work.started_at);
    let beat = work.db.run(move |conn| {
        async move {
            let now = conn.clock(now).await?;
            nodes::beat(conn, &node, "scheduler", started_at, now).await
        }
        .boxed()
    });
    beat.await.map(drop)
}

async fn forget_old(db: &Db, now: DateTime<Utc>) -> Result<(), DbError> {
    db.transaction(move |conn| {
        async move {
            let now = conn.clock(now).await?;
            list_changes::prune(conn, now - KEEP_CHANGES).await?;
            idempotency_keys::prune(conn, now).await?;
            forgotten::prune(conn, now - forgotten::KEPT).await?;
            Ok(())
        }
        .boxed()
    })
    .await?;
    forget::tidy(db, now).await
}

pub(crate) fn date(now: Moment) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(now.wall).unwrap_or_default()
}
