//! What is as it should be, and what is not, for `/readyz?verbose` and the gauge of degradation.
//!
//! A text says what to do about it. Nothing in here names an address, a path or a secret: the answer is
//! open to all who reach it. What went wrong once (records lost, headers that could not be read) is
//! degraded for [`LATELY`], not until the next start: the figures of `/metrics` never forget it.

use std::io::ErrorKind;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::rate_limit::{BreakerState, LimiterState};
use ipwarden_engine::spool::SpoolStatus;

use crate::changes::{Source, Status};
use crate::context::Context;
use crate::db::{Db, scan_runs};
use crate::recorder::RecorderStatus;

pub(crate) use self::watch::follow;
pub use self::watch::{LATELY, Totals, Watch};

#[cfg(test)]
mod tests;
mod watch;

/// The scan is late when none has finished for so long.
const SCAN_LATE: TimeDelta = TimeDelta::hours(2);
/// A record is shipped within a second; one that has waited for so long is held up.
const HELD_UP: Duration = Duration::from_secs(60);
/// In a spool that is as full as this, records that have waited for so long are in danger.
const NEARLY_FULL: (u64, Duration) = (80, Duration::from_secs(10));

/// How one part stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Of the part.
    pub name: &'static str,
    /// Whether it works less well than it should.
    pub degraded: bool,
    /// A phrase for people.
    pub text: String,
}

impl Condition {
    fn good(name: &'static str, text: impl Into<String>) -> Condition {
        Condition { name, degraded: false, text: text.into() }
    }

    fn degraded(name: &'static str, text: impl Into<String>) -> Condition {
        Condition { name, degraded: true, text: text.into() }
    }
}

/// Every part. The store has `patience` to say when the last scan ran.
pub async fn conditions(context: &Context, now: Moment, patience: Duration) -> Vec<Condition> {
    let mut all = of_this_process(context, now);
    all.push(asked_for_scan(&context.db, now, patience).await);
    all
}

/// Every part, without asking anybody: of the scan what the store said last.
pub fn known(context: &Context, now: Moment) -> Vec<Condition> {
    let mut all = of_this_process(context, now);
    all.extend(context.watch.scan());
    all
}

fn of_this_process(context: &Context, now: Moment) -> Vec<Condition> {
    let spool = context.guard.spool().status();
    let counts = context.guard.counts();
    let lately = context.watch.lately(Totals::of(&spool, &counts), now);
    let trouble = context.geo.trouble();
    vec![
        lists(&context.feed.status().borrow()),
        quotas(&context.guard.limiter().state(), context.db.is_sqlite()),
        request_log(
            &spool,
            context.recorder.status(),
            lately,
            context.config.request_log.spool_bytes,
            now,
        ),
        places(context.geo.files().len(), trouble),
        clients(lately.unresolved, counts.of_proxies),
    ]
}

fn lists(status: &Status) -> Condition {
    const DO: &str = "the store does not answer: does it run, and does database_url lead to it?";
    let text = format!(
        "version {}, {} blocked, {} allowed",
        status.version, status.blocked, status.allowed
    );
    match (status.source, &status.trouble) {
        (Source::Store, None) => Condition::good("lists", text),
        (Source::Store, Some(_)) => Condition::degraded("lists", format!("{text}; {DO}")),
        (Source::Disk, _) => Condition::degraded("lists", format!("{text}, from the disk; {DO}")),
        (Source::None, _) => Condition::degraded("lists", format!("none; {DO}")),
    }
}

fn quotas(state: &LimiterState, in_one_process: bool) -> Condition {
    let keys = format!("{} clients in memory", state.keys);
    let share = format!("this replica's share of each, 1 of {}", state.live_replicas);
    match state.breaker {
        Some(BreakerState::Closed) => {
            Condition::good("quotas", format!("counted in Redis; {keys}"))
        }
        Some(_) => Condition::degraded(
            "quotas",
            format!("Redis does not answer: {share}; does it run, and does redis_url lead to it?"),
        ),
        None if in_one_process => {
            Condition::good("quotas", format!("counted in this process; {keys}"))
        }
        None => Condition::degraded(
            "quotas",
            format!("no Redis: {share}; set redis_url to count for all replicas together"),
        ),
    }
}

fn request_log(
    spool: &SpoolStatus,
    recorder: RecorderStatus,
    lately: Totals,
    bound: u64,
    now: Moment,
) -> Condition {
    const NAME: &str = "request log";
    let waiting = format!("{} bytes in {} segments of the spool", spool.bytes, spool.segments);
    let age = age_of_oldest(spool, now);
    let full = spool.bytes.saturating_mul(100) / bound.max(1);
    let trouble = if let Some(why) = spool.stalled {
        Some(match why {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "the disk of data_dir is full and records are dropped: free some of it".to_owned()
            }
            why => format!(
                "data_dir cannot be written ({why}) and records are dropped: the log of this \
                 process says more"
            ),
        })
    } else if full >= NEARLY_FULL.0 && age >= NEARLY_FULL.1 {
        Some(format!(
            "the spool is {full} % full, and at its bound the oldest records go: see that the store \
             takes records, or raise request_log.spool_bytes"
        ))
    } else if recorder.failing {
        Some(
            "the store takes no records, which wait for it: does it run, and does database_url lead \
             to it?"
                .to_owned(),
        )
    } else if recorder.refused > 0 {
        Some(format!(
            "the store refuses the records of {} segments: the log of this process says why",
            recorder.refused
        ))
    } else if age >= HELD_UP {
        Some(format!(
            "the oldest record has waited for {} s: the log of this process says why",
            age.as_secs()
        ))
    } else {
        None
    };
    let minutes = LATELY.as_secs() / 60;
    let says_why = format!("in the last {minutes} minutes: the log of this process says why");
    let lost = (lately.lost > 0).then(|| format!("{} records were lost {says_why}", lately.lost));
    let unread = (lately.unread > 0)
        .then(|| format!("{} segments could not be read whole {says_why}", lately.unread));
    let troubles: Vec<String> = [trouble, lost, unread].into_iter().flatten().collect();
    match troubles.is_empty() {
        true => Condition::good(NAME, format!("{} shipped; {waiting}", recorder.shipped)),
        false => Condition::degraded(NAME, format!("{}; {waiting}", troubles.join("; "))),
    }
}

/// How long the oldest record has waited for the store; zero if none waits.
pub fn age_of_oldest(spool: &SpoolStatus, now: Moment) -> Duration {
    let age = spool.oldest.map_or(0, |oldest| now.wall.saturating_sub(oldest));
    Duration::from_micros(u64::try_from(age).unwrap_or(0))
}

fn places(files: usize, unusable: usize) -> Condition {
    match (files, unusable) {
        (0, 0) => Condition::good("places", "no files; places are unknown"),
        (files, 0) => Condition::good("places", format!("{files} files")),
        (files, unusable) => Condition::degraded(
            "places",
            format!(
                "{unusable} files cannot be used, {files} are in use: the log of this process says \
                 which and why; replace them or take them out of geo.files"
            ),
        ),
    }
}

fn clients(unresolved: u64, of_proxies: u64) -> Condition {
    let own = format!("{of_proxies} requests were of trusted proxies themselves");
    match unresolved {
        0 => Condition::good("clients", own),
        unresolved => Condition::degraded(
            "clients",
            format!(
                "trusted proxies did not name the client of {unresolved} requests readably in the \
                 last {} minutes: do they send what client_ip.header names? {own}",
                LATELY.as_secs() / 60
            ),
        ),
    }
}

/// How the scan stands, by the store, which has `patience` to say it.
async fn asked_for_scan(db: &Db, now: Moment, patience: Duration) -> Condition {
    let now = DateTime::<Utc>::from_timestamp_micros(now.wall).unwrap_or_default();
    let asked = db.run(move |conn| {
        async move {
            let now = conn.clock(now).await?;
            Ok((scan_runs::last_finished(conn, now).await?, now))
        }
        .boxed()
    });
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok((last, now))) => scan(Some(last), now),
        Ok(Err(_)) | Err(_) => scan(None, now),
    }
}

/// By when the last one finished, if the store says it.
fn scan(last: Option<Option<DateTime<Utc>>>, now: DateTime<Utc>) -> Condition {
    match last {
        Some(Some(finished)) if now - finished < SCAN_LATE => {
            Condition::good("scan", format!("last finished at {}", finished.format("%H:%M:%SZ")))
        }
        Some(Some(finished)) => Condition::degraded(
            "scan",
            format!("none since {}: does a scheduler run?", finished.format("%Y-%m-%dT%H:%M:%SZ")),
        ),
        Some(None) => Condition::degraded("scan", "none has run yet: does a scheduler run?"),
        None => Condition::degraded(
            "scan",
            "the store does not say: does it run, and does database_url lead to it?",
        ),
    }
}
