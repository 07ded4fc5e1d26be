//! Numbers: requests and verdicts over time, and the busiest addresses, networks, paths, countries and ASNs.
//!
//! Whole hours, UTC, are counted, and each once: those that ended by the scan, which counts an hour again when
//! records came late ([`scan`](crate::scan)); the hour that goes on, and the one before until it is counted,
//! from what the scan counted a few minutes ago and the log behind that. So an answer reads a few thousand
//! rows an hour, however many requests there were.
//!
//! What is exact: requests and verdicts over time, and every status, as far as the hours are counted
//! ([`Stats::pending_hours`] tells of how many the newest records are not). Of addresses, networks, paths,
//! countries and ASNs an hour keeps the thousand busiest. Whoever is not among them in some hour may have had
//! up to as many requests there as the least that is left away: [`Top::at_most`] adds these up, and is equal
//! to `requests` where nothing was left away.

mod question;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, DurationRound, Utc};
use futures_util::FutureExt;
use serde::Serialize;

pub use self::question::{By, MOST, Question, Unanswerable};
use crate::db::request_hours::{self, Counts, Part, Records, RequestHour};
use crate::db::{Conn, Db, DbError, partitions, request_tops, scan_runs, touched_hours};
use crate::detect::Window;

/// A question about a year of a large store takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// By what requests are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// The client's.
    Address,
    /// Its /24 or /48.
    Network,
    /// As received.
    Path,
    /// ISO 3166-1 alpha-2, where it is known.
    Country,
    /// The autonomous system, where it is known.
    Asn,
    /// Of the answer.
    Status,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Dimension; 6] = [
        Dimension::Address,
        Dimension::Network,
        Dimension::Path,
        Dimension::Country,
        Dimension::Asn,
        Dimension::Status,
    ];

    /// The word that stands in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Dimension::Address => "address",
            Dimension::Network => "network",
            Dimension::Path => "path",
            Dimension::Country => "country",
            Dimension::Asn => "asn",
            Dimension::Status => "status",
        }
    }

    pub(crate) fn is_of_addresses(self) -> bool {
        matches!(self, Dimension::Address | Dimension::Network)
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// A whole hour.
    pub since: DateTime<Utc>,
    /// A whole hour, the first that was not asked about.
    pub until: DateTime<Utc>,
    /// The steps of `times`.
    pub by: By,
    /// All of them.
    #[serde(flatten)]
    pub total: Verdicts,
    /// Hours with records that have not been counted, or not all of them; the scan does so within minutes.
    pub pending_hours: usize,
    /// From the first step that has any request.
    pub times: Vec<Step>,
    /// Every status, the most frequent first.
    pub statuses: Vec<Top>,
    /// The busiest addresses, the first first.
    pub addresses: Vec<Top>,
    /// Networks: /24 of IPv4, /48 of IPv6.
    pub networks: Vec<Top>,
    /// Paths.
    pub paths: Vec<Top>,
    /// Countries.
    pub countries: Vec<Top>,
    /// Autonomous systems.
    pub asns: Vec<Top>,
}

/// Requests by what the guard made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    /// All of them.
    pub requests: i64,
    /// Passed on.
    pub allowed: i64,
    /// Answered with 403.
    pub blocked: i64,
    /// Answered with 429.
    pub throttled: i64,
}

impl From<Counts> for Verdicts {
    fn from(Counts { requests, blocked, throttled }: Counts) -> Verdicts {
        Verdicts { requests, allowed: requests - blocked - throttled, blocked, throttled }
    }
}

/// An hour or a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When it begins, UTC.
    pub start: DateTime<Utc>,
    /// What came in it.
    #[serde(flatten)]
    pub verdicts: Verdicts,
}

/// One of the busiest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Top {
    /// An address, a path, ..
    pub key: String,
    /// At least so many requests.
    #[serde(flatten)]
    pub verdicts: Verdicts,
    /// And no more than so many.
    pub at_most: i64,
}

/// Answers a question at `now`, the wall clock.
///
/// # Errors
/// As any statement.
pub async fn of(db: &Db, question: Question, now: DateTime<Utc>) -> Result<Stats, DbError> {
    // Of one instant: an hour may be counted anew between two of the statements.
    db.with_timeout(PATIENCE).snapshot(move |conn| answer(conn, question, now).boxed()).await
}

async fn answer(conn: &mut Conn, question: Question, now: DateTime<Utc>) -> Result<Stats, DbError> {
    let Question { since, until, by, top } = question;
    let hours = request_hours::between(conn, since, until).await?;
    let now = conn.clock(now).await?;
    let live = live(&hours, question, now);
    let mut steps: BTreeMap<DateTime<Utc>, Counts> = BTreeMap::new();
    let mut total = Counts::default();
    let mut add = |hour: DateTime<Utc>, counts: Counts| {
        let start = hour.duration_trunc(by.step()).unwrap_or(hour);
        for sum in [&mut total, steps.entry(start).or_default()] {
            sum.requests += counts.requests;
            sum.blocked += counts.blocked;
            sum.throttled += counts.throttled;
        }
    };
    for &RequestHour { hour, requests, blocked, throttled, .. } in &hours {
        add(hour, Counts { requests, blocked, throttled });
    }
    for part in &live {
        add(part.window.start(), request_hours::count(conn, *part).await?);
    }
    let pending_hours = pending(conn, &hours, &live, question, now).await?;
    let mut tops = BTreeMap::new();
    for dimension in Dimension::ALL {
        let limit = if dimension == Dimension::Status { MOST } else { top };
        let span = (since, until);
        let busiest = request_tops::busiest(conn, dimension, span, &live, limit).await?;
        let floors = request_tops::floors(conn, dimension, span).await?;
        let of_one = |one: request_tops::Busiest| Top {
            key: one.key,
            verdicts: one.counts.into(),
            at_most: one.counts.requests + floors - one.floors,
        };
        tops.insert(dimension, busiest.into_iter().map(of_one).collect::<Vec<_>>());
    }
    let mut tops = |dimension| tops.remove(&dimension).unwrap_or_default();
    Ok(Stats {
        since,
        until,
        by,
        total: total.into(),
        pending_hours,
        times: filled(steps, question),
        statuses: tops(Dimension::Status),
        addresses: tops(Dimension::Address),
        networks: tops(Dimension::Network),
        paths: tops(Dimension::Path),
        countries: tops(Dimension::Country),
        asns: tops(Dimension::Asn),
    })
}

/// What is read from the log itself: of the hour that goes on, and of the one before it until it is counted
/// whole, what came since they were counted last.
fn live(hours: &[RequestHour], question: Question, now: DateTime<Utc>) -> Vec<Part> {
    let newest = [Window::last_ended(now), Window::of(now)];
    let asked = newest
        .into_iter()
        .filter(|window| question.since <= window.start() && window.start() < question.until);
    let part = |window: Window| {
        let counted = hours.iter().find(|row| row.hour == window.start());
        let records = match counted.map(|row| row.counted_to) {
            None => Records::All,
            Some(Some(mark)) => Records::Behind(mark),
            Some(None) => return None,
        };
        Some(Part { window, records })
    };
    asked.filter_map(part).collect()
}

/// How many hours there are that ended and are not in the answer, or not as the log is now: those whose records
/// came late, those that were not counted to their end, and those that were judged before anything counted.
async fn pending(
    conn: &mut Conn,
    hours: &[RequestHour],
    live: &[Part],
    question: Question,
    now: DateTime<Utc>,
) -> Result<usize, DbError> {
    let (since, until) = (question.since, question.until.min(Window::of(now).start()));
    let touched = touched_hours::before(conn, until).await?.into_iter().map(|row| row.hour);
    let judged: BTreeSet<_> = scan_runs::starts(conn, since, until).await?.into_iter().collect();
    let logged = partitions::hours(conn, until).await?;
    let judged = logged.into_iter().filter(|hour| judged.contains(hour));
    let judged = judged.filter(|hour| hours.binary_search_by_key(hour, |row| row.hour).is_err());
    let half = hours.iter().filter(|row| row.counted_to.is_some()).map(|row| row.hour);
    let mut pending: BTreeSet<_> = touched.chain(judged).chain(half).collect();
    for part in live {
        pending.remove(&part.window.start());
    }
    Ok(pending.range(since..until.max(since)).count())
}

/// Every step from the first that holds anything on.
fn filled(steps: BTreeMap<DateTime<Utc>, Counts>, question: Question) -> Vec<Step> {
    let first = steps.iter().find(|(_, counts)| counts.requests > 0).map(|(start, _)| *start);
    std::iter::successors(first, |start| Some(*start + question.by.step()))
        .take_while(|start| *start < question.until)
        .map(|start| {
            let counts = steps.get(&start).copied().unwrap_or_default();
            Step { start, verdicts: counts.into() }
        })
        .collect()
}
