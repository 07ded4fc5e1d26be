//! What is as it should be, and what is not, for `/readyz?verbose` and the gauge of degradation.
//!
//! Nothing in here names an address, a path or a secret: the answer is open to all who reach it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::rate_limit::BreakerState;

use crate::changes::Source;
use crate::context::Context;
use crate::db::scan_runs;

/// The scan is late when none has finished for so long.
const SCAN_LATE: TimeDelta = TimeDelta::hours(2);

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
    let mut all = known(context);
    all.push(scan(context, now, patience).await);
    all
}

/// The parts that this process knows about without asking anybody.
pub fn known(context: &Context) -> Vec<Condition> {
    vec![lists(context), quotas(context), request_log(context), places(context), clients(context)]
}

fn lists(context: &Context) -> Condition {
    let feed = context.feed.status();
    let status = feed.borrow();
    let text = format!(
        "version {}, {} blocked, {} allowed",
        status.version, status.blocked, status.allowed
    );
    match (status.source, &status.trouble) {
        (Source::Store, None) => Condition::good("lists", text),
        (Source::Store, Some(_)) => {
            Condition::degraded("lists", format!("{text}; the store does not answer"))
        }
        (Source::Disk, _) => Condition::degraded(
            "lists",
            format!("{text}, from the disk; the store does not answer"),
        ),
        (Source::None, _) => Condition::degraded("lists", "none, and the store does not answer"),
    }
}

fn quotas(context: &Context) -> Condition {
    let state = context.guard.limiter().state();
    let keys = format!("{} clients in memory", state.keys);
    match state.breaker {
        Some(BreakerState::Closed) => {
            Condition::good("quotas", format!("counted in Redis; {keys}"))
        }
        Some(_) => Condition::degraded(
            "quotas",
            format!(
                "Redis does not answer: this replica's share of each, 1 of {}",
                state.live_replicas
            ),
        ),
        None if context.db.is_sqlite() => {
            Condition::good("quotas", format!("counted in this process; {keys}"))
        }
        None => Condition::degraded(
            "quotas",
            format!("no Redis: this replica's share of each, 1 of {}", state.live_replicas),
        ),
    }
}

fn request_log(context: &Context) -> Condition {
    let (spool, recorder) = (context.guard.spool().status(), context.recorder.status());
    let waiting = format!("{} bytes in {} segments of the spool", spool.bytes, spool.segments);
    if spool.stalled {
        return Condition::degraded("request log", format!("the disk is full; {waiting}"));
    }
    let mut lost = match spool.dropped + spool.evicted {
        0 => String::new(),
        lost => format!("; {lost} records were lost"),
    };
    match spool.damaged + spool.missing {
        0 => {}
        segments => lost += &format!("; {segments} segments could not be read whole"),
    }
    if recorder.failing {
        let text = format!("the store takes no records; {waiting}{lost}");
        return Condition::degraded("request log", text);
    }
    if recorder.refused > 0 {
        let text =
            format!("the store refuses those of {} segments; {waiting}{lost}", recorder.refused);
        return Condition::degraded("request log", text);
    }
    let text = format!("{} shipped; {waiting}{lost}", recorder.shipped);
    match lost.is_empty() {
        true => Condition::good("request log", text),
        false => Condition::degraded("request log", text),
    }
}

fn places(context: &Context) -> Condition {
    match context.geo.files().len() {
        0 => Condition::good("places", "no files; places are unknown"),
        files => Condition::good("places", format!("{files} files")),
    }
}

fn clients(context: &Context) -> Condition {
    let counts = context.guard.counts();
    let own = format!("{} requests were of trusted proxies themselves", counts.of_proxies);
    match counts.unresolved {
        0 => Condition::good("clients", own),
        unresolved => Condition::degraded(
            "clients",
            format!(
                "trusted proxies did not name the client of {unresolved} requests readably; {own}"
            ),
        ),
    }
}

async fn scan(context: &Context, now: Moment, patience: Duration) -> Condition {
    let now = DateTime::<Utc>::from_timestamp_micros(now.wall).unwrap_or_default();
    let asked = context.db.run(move |conn| {
        async move {
            let now = conn.clock(now).await?;
            let last = scan_runs::last_finished(conn, now).await?;
            Ok(last.map(|finished| (finished, now)))
        }
        .boxed()
    });
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok(Some((finished, now)))) if now - finished < SCAN_LATE => {
            Condition::good("scan", format!("last finished at {}", finished.format("%H:%M:%SZ")))
        }
        Ok(Ok(Some((finished, _)))) => Condition::degraded(
            "scan",
            format!("none since {}: does a scheduler run?", finished.format("%Y-%m-%dT%H:%M:%SZ")),
        ),
        Ok(Ok(None)) => Condition::degraded("scan", "none has run yet: does a scheduler run?"),
        Ok(Err(_)) | Err(_) => Condition::degraded("scan", "the store does not say"),
    }
}
