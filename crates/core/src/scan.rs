//! The scan: window after window, traffic -> detect -> decide -> flag.
//!
//! Promises: each window that ended is judged once by one scheduler among many, missed ones in
//! order, oldest first; hours whose records changed afterwards are judged again, whole, together
//! with the hours their span reaches into. What is found is set and never added up, so judging
//! twice changes nothing. Hours are counted for [`stats`](crate::stats) along with that. A window is written in one transaction, which first checks the lease's
//! fencing number: a scheduler that was too slow, or was killed, leaves nothing behind.
//!
//! What has ended, and when it was judged, is told by the store's clock alone: in a fleet the machine
//! of a scheduler may believe in any year without judging an hour that goes on, or passing one over.
//! A file has no clock but its machine's. What was judged while that was ahead is not believed when
//! it is right again (see [`scan_runs`]), and every record touches its hour until it is judged.
//!
//! Does not read the clock, and does not judge: [`detect`](crate::detect) and
//! [`decide`](crate::decide) do.

mod count;
mod due;
mod flag;
mod keep;
mod preview;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ipwarden_engine::network::Network;
use ipwarden_engine::target::Rails;

pub use self::count::forget_old;
use self::due::Agenda;
pub use self::due::{Due, Reason};
use self::flag::{Flagged, flag};
use self::keep::keeping;
pub use self::preview::preview;
use crate::config::Config;
use crate::db::leases::{self, Lease};
use crate::db::scan_runs::{self, ScanRun};
use crate::db::touched_hours::{self, TouchedHour};
use crate::db::{Conn, Db, DbError, allowed_ips, anonymised, forgotten, traffic};
use crate::decide::{Decided, decide};
use crate::detect::{Rules, Window, detect};
use crate::lists;

/// The name of the lease that a scan needs.
pub const LEASE: &str = "scan";

/// How long a scheduler that fell silent keeps the others waiting; one that works renews it.
const LEASE_TTL: TimeDelta = TimeDelta::minutes(2);

/// Who needs longer to count an hour than it lasts will never catch up.
const TRAFFIC_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Many addresses may be found at once. Until the end nobody else can take the lease, whose row the
/// transaction holds.
const FLAG_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What a scan judges by.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The numbers of the rules.
    pub rules: Rules,
    /// The trusted proxies, which are never found.
    pub trusted: Vec<Network>,
    /// The machine's own addresses, which are never blocked without a person.
    pub own: Vec<IpAddr>,
    /// Whether findings are blocked without a person (`scan.auto_block`).
    pub auto_block: bool,
}

impl Terms {
    /// What the configuration says, for a machine with these addresses.
    pub fn of(config: &Config, own: Vec<IpAddr>) -> Terms {
        let span = TimeDelta::from_std(config.scan.window).expect("the configuration allows a day");
        Terms {
            rules: Rules { max_requests: config.scan.max_requests, span },
            trusted: config.client_ip.trusted_proxies.clone(),
            own,
            auto_block: config.scan.auto_block,
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The windows that were judged, oldest first; none if nothing was due.
    Done(Vec<Judged>),
    /// Somebody else is at it.
    Busy,
}

/// What came of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Which.
    pub window: Window,
    /// What was found, reviewed or not.
    pub findings: usize,
    /// How many of them are up for review for the first time.
    pub opened: usize,
    /// How many were blocked without a person.
    pub blocked: usize,
    /// The version of the lists that these blocks made, to be announced.
    pub version: Option<i64>,
}

/// Judges what is due: the windows that ended since the last one that was judged, and the hours that
/// were touched since. The first run of a store has no window before the last.
///
/// `clock` is the machine's, for a store that has none of its own.
///
/// # Errors
/// As any statement; windows judged before the error stay judged.
pub async fn run_due(
    db: &Db,
    terms: &Arc<Terms>,
    scheduler: &str,
    clock: impl Fn() -> DateTime<Utc>,
) -> Result<Outcome, DbError> {
    let span = terms.rules.span;
    with_lease(db, terms, scheduler, clock, move |conn, now| scheduled(conn, span, now).boxed())
        .await
}

/// Judges again the ended hours that were touched since they were last judged: what an import does
/// when it is through.
///
/// # Errors
/// As [`run_due`].
pub async fn run_touched(
    db: &Db,
    terms: &Arc<Terms>,
    by: &str,
    clock: impl Fn() -> DateTime<Utc>,
) -> Result<Outcome, DbError> {
    let span = terms.rules.span;
    with_lease(db, terms, by, clock, move |conn, now| {
        async move { Ok(Agenda::default().touched(touched(conn, now).await?, span, now)) }.boxed()
    })
    .await
}

/// Judges every hour that `[from, to)` touches, as an operator asked. An hour that is still
/// running is judged as far as it went, and stays due.
///
/// # Errors
/// As [`run_due`].
pub async fn run_between(
    db: &Db,
    terms: &Arc<Terms>,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    clock: impl Fn() -> DateTime<Utc>,
) -> Result<Outcome, DbError> {
    with_lease(db, terms, scan_runs::OPERATOR, clock, move |_, _| {
        async move { Ok(Agenda::asked(from, to)) }.boxed()
    })
    .await
}

/// Counts for [`stats`](crate::stats) what judging does not: the hour that goes on, and hours of an older
/// log. Returns whether nobody else was at it.
///
/// # Errors
/// As [`run_due`].
pub async fn count_due(
    db: &Db,
    scheduler: &str,
    clock: impl Fn() -> DateTime<Utc>,
) -> Result<bool, DbError> {
    let Some(lease) = take_lease(db, scheduler, clock()).await? else { return Ok(false) };
    let counted = count::missing(db, &lease, &clock).await;
    give_back(db, lease, clock()).await;
    counted.map(|()| true)
}

/// What is to be judged at an instant of the store's clock.
trait Plan:
    for<'c> FnOnce(&'c mut Conn, DateTime<Utc>) -> BoxFuture<'c, Result<Agenda, DbError>>
    + Send
    + 'static
{
}

impl<P> Plan for P where
    P: for<'c> FnOnce(&'c mut Conn, DateTime<Utc>) -> BoxFuture<'c, Result<Agenda, DbError>>
        + Send
        + 'static
{
}

/// Does what `plan` says, if nobody else is at it.
async fn with_lease<P>(
    db: &Db,
    terms: &Arc<Terms>,
    holder: &str,
    clock: impl Fn() -> DateTime<Utc>,
    plan: P,
) -> Result<Outcome, DbError>
where
    P: Plan,
{
    let Some(lease) = take_lease(db, holder, clock()).await? else { return Ok(Outcome::Busy) };
    let judged = judge_all(db, terms, &lease, &clock, plan).await;
    give_back(db, lease, clock()).await;
    judged.map(Outcome::Done)
}

async fn take_lease(db: &Db, holder: &str, now: DateTime<Utc>) -> Result<Option<Lease>, DbError> {
    let holder = holder.to_owned();
    db.transaction(move |conn| {
        async move {
            let store_now = conn.clock(now).await?;
            leases::acquire(conn, LEASE, &holder, LEASE_TTL, store_now).await
        }
        .boxed()
    })
    .await
}

async fn give_back(db: &Db, lease: Lease, now: DateTime<Utc>) {
    let released = db.run(move |conn| {
        async move {
            let store_now = conn.clock(now).await?;
            leases::release(conn, &lease, store_now).await
        }
        .boxed()
    });
    if let Err(error) = released.await {
        // It ends by itself.
        tracing::debug!(%error, "the lease of the scan was not given back");
    }
}

async fn judge_all<P>(
    db: &Db,
    terms: &Arc<Terms>,
    lease: &Lease,
    clock: &impl Fn() -> DateTime<Utc>,
    plan: P,
) -> Result<Vec<Judged>, DbError>
where
    P: Plan,
{
    let now = clock();
    let planned = db.run(move |conn| {
        async move {
            let store_now = conn.clock(now).await?;
            plan(conn, store_now).await
        }
        .boxed()
    });
    let mut all = Vec::new();
    for due in planned.await? {
        if !due.is_due(still_ours(db, lease, clock()).await?) {
            tracing::warn!(window = %due.window, "the clock was set back: the window waits");
            break;
        }
        count::touched(db, lease, &due.settles, clock).await?;
        let judged = scan(db, terms, due, lease, clock()).await?;
        if judged.findings > 0 {
            let Judged { window, findings, opened, blocked, .. } = judged;
            tracing::info!(%window, findings, opened, blocked, "suspicious addresses were found");
        }
        all.push(judged);
    }
    Ok(all)
}

/// The store's clock, if the lease has not been lost.
async fn still_ours(db: &Db, lease: &Lease, now: DateTime<Utc>) -> Result<DateTime<Utc>, DbError> {
    let lease = lease.clone();
    db.transaction(move |conn| {
        async move {
            let store_now = conn.clock(now).await?;
            leases::renew(conn, &lease, store_now).await?;
            Ok(store_now)
        }
        .boxed()
    })
    .await
}

/// Judges one window and writes what came of it, under a lease.
///
/// # Errors
/// [`DbError::Conflict`] when the lease was lost, and as any statement; then nothing was written.
pub async fn scan(
    db: &Db,
    terms: &Arc<Terms>,
    due: Due,
    lease: &Lease,
    now: DateTime<Utc>,
) -> Result<Judged, DbError> {
    let window = due.window;
    let counted = findings_of(db, terms, window, now);
    let (started_at, decided) = keeping(db, lease, now, counted).await?;

    let lease = lease.clone();
    let rails = lists::Rails { trusted: terms.trusted.clone(), own: terms.own.clone() };
    db.with_timeout(FLAG_LIMIT)
        .transaction(move |conn| {
            async move {
                let store_now = conn.clock(now).await?;
                leases::renew(conn, &lease, store_now).await?;
                // Somebody may have been forgotten since the traffic was counted.
                let forgotten = forgotten::since(conn, started_at).await?;
                let decided: Vec<_> = decided
                    .into_iter()
                    .filter(|one| !forgotten.iter().any(|it| it.covers(one.finding.network)))
                    .collect();
                let findings = decided.len();
                let Flagged { opened, blocked, version } =
                    flag(conn, decided, &rails, store_now).await?;
                let run = ScanRun {
                    window_start: window.start(),
                    window_end: window.end(),
                    scheduler: lease.holder.clone(),
                    started_at,
                    finished_at: store_now,
                    findings: i64::try_from(findings).unwrap_or(i64::MAX),
                };
                match due.reason {
                    Reason::Schedule | Reason::Operator => scan_runs::put(conn, run).await?,
                    Reason::Touched => scan_runs::update(conn, run).await?,
                }
                for row in &due.settles {
                    touched_hours::forget(conn, row).await?;
                    anonymised::reopen(conn, row.hour).await?;
                }
                Ok(Judged { window, findings, opened, blocked, version })
            }
            .boxed()
        })
        .await
}

/// Counts the requests of a window; returns when that began, and what is to become of what was found.
async fn findings_of(
    db: &Db,
    terms: &Arc<Terms>,
    window: Window,
    now: DateTime<Utc>,
) -> Result<(DateTime<Utc>, Vec<Decided>), DbError> {
    let judged_by = terms.clone();
    let patient = db.with_timeout(TRAFFIC_LIMIT);
    let counted = patient.run(move |conn| {
        async move {
            let terms = judged_by;
            let started_at = conn.clock(now).await?;
            let traffic = traffic::of_window(conn, window, &terms.rules, &terms.trusted).await?;
            Ok((started_at, traffic, allowed_ips::listed(conn, started_at).await?))
        }
        .boxed()
    });
    let (started_at, traffic, allowed) = counted.await?;
    let allowed: Vec<Network> = allowed.into_iter().map(|listed| listed.network).collect();
    let rails =
        Rails { trusted: &terms.trusted, allowed: &allowed, own: &terms.own, operator: None };
    let findings = detect(traffic, &terms.rules, &terms.trusted);
    Ok((started_at, decide(findings, terms.auto_block, &rails, started_at)))
}

/// What is due at `now`.
async fn scheduled(
    conn: &mut Conn,
    span: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Agenda, DbError> {
    let last = scan_runs::last_scheduled(conn, now).await?.map(Window::of);
    Ok(Agenda::scheduled(last, now).touched(touched(conn, now).await?, span, now))
}

async fn touched(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<TouchedHour>, DbError> {
    touched_hours::before(conn, Window::of(now).start()).await
}
