//! Forgetting: nothing stays of what was stored of somebody until now.
//!
//! What is bounded goes at once, in one transaction, with a tombstone and a change of the lists that tells
//! every node: findings, bouncers, and, if that is wanted, blocks. Records, of which there may be many,
//! follow in batches: whoever is interrupted begins again. Each node empties its spool and caches
//! ([`follow`]) and confirms; the [`Receipt`] names those that have and those that have not.
//!
//! What this deliberately leaves: what people wrote in words of their own (reasons), backups, and what
//! somebody does afterwards, which is recorded as ever.

mod node;
mod receipt;
mod text;

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::Network;
use serde::Serialize;
use serde_json::json;

pub use self::node::{Node, follow};
pub use self::receipt::{NodeState, Receipt, State};
use crate::db::entries::Entry;
use crate::db::list_changes::{self, List, Op};
use crate::db::suspicious_ips::{self, SuspiciousIp};
use crate::db::{
    Conn, Db, DbError, allowed_ips, audit_log, blocked_ips, bouncers, forgotten, idempotency_keys,
    request_logs, request_tops,
};
use crate::lists::{self, Actor};

/// The widest IPv4 and IPv6 networks that are forgotten at once, in bits: those of one site.
const WIDEST: (u8, u8) = (24, 64);
/// Records that go in one transaction.
const RECORDS: i64 = 10_000;
/// Rows of the audit log of one look.
const AUDITED: i64 = 500;
/// A batch of many days may be slow.
pub(crate) const BATCH_LIMIT: Duration = Duration::from_secs(120);

/// What becomes of list entries about whom is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLists {
    /// Nothing is forgotten if there are any.
    Refuse,
    /// They stay: a block is about what is yet to come.
    Keep,
    /// They go, too.
    Remove,
}

/// Why nothing was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// More than one site.
    #[error(
        "{0} is too wide: one address is forgotten at a time, or a network no wider than /{v4} (IPv4) or \
         /{v6} (IPv6)", v4 = WIDEST.0, v6 = WIDEST.1
    )]
    TooWide(Network),
    /// It is on a list, and nobody said what is to become of that.
    #[error("{}", several(.0))]
    Listed(Vec<(List, Entry)>),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] DbError),
}

fn several(entries: &[(List, Entry)]) -> String {
    let told = entries.iter().take(lists::MENTIONED).map(|(list, entry)| {
        let list = if *list == List::Blocked { "blocklist" } else { "allowlist" };
        format!("{} is on the {list} ({})", entry.network, entry.origin)
    });
    told.collect::<Vec<_>>().join("\n")
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Rows of `request_logs`.
    pub request_logs: i64,
    /// Findings about it.
    pub suspicious_ips: usize,
    /// Findings about a network around it, with requests of it as evidence.
    pub evidence: usize,
    /// Entries of the blocklist.
    pub blocked_ips: usize,
    /// Entries of the allowlist.
    pub allowed_ips: usize,
    /// Bouncers.
    pub bouncers: usize,
    /// Rows of the audit log that name it.
    pub audit_log: usize,
}

/// What was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Of the row in `forgotten`.
    pub id: i64,
    /// Of the lists, to be announced.
    pub version: i64,
}

/// Whether so much can be forgotten at once.
///
/// # Errors
/// [`ForgetError::TooWide`].
pub fn check_width(network: Network) -> Result<(), ForgetError> {
    let widest = if network.is_ipv6() { WIDEST.1 } else { WIDEST.0 };
    if network.prefix() < widest { Err(ForgetError::TooWide(network)) } else { Ok(()) }
}

/// Counts what is stored of `network`. Reads the whole audit log.
///
/// # Errors
/// As any statement.
pub async fn found(db: &Db, network: Network) -> Result<Found, DbError> {
    let patient = db.with_timeout(BATCH_LIMIT);
    patient
        .run(move |conn| {
            async move {
                let mut found = Found {
                    request_logs: request_logs::count_of(conn, network).await?,
                    suspicious_ips: suspicious_ips::inside(conn, network).await?.len(),
                    evidence: findings_around(conn, network).await?.len(),
                    bouncers: bouncers::inside(conn, network).await?.len(),
                    ..Found::default()
                };
                for (list, _) in listed(conn, network).await? {
                    match list {
                        List::Blocked => found.blocked_ips += 1,
                        _ => found.allowed_ips += 1,
                    }
                }
                let mut after = 0;
                while let Some((last, rows)) = audited(conn, network, after).await? {
                    (after, found.audit_log) = (last, found.audit_log + rows.len());
                }
                Ok(found)
            }
            .boxed()
        })
        .await
}

/// Forgets what is bounded, and has every node forget the rest. [`erase`] comes next.
///
/// # Errors
/// [`ForgetError`]; then nothing was done.
pub async fn begin(
    db: &Db,
    network: Network,
    on_lists: OnLists,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<Begun, ForgetError> {
    check_width(network)?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| {
        DbError::Hindered(format!("the system gives no random numbers: {error}"))
    })?;
    let begun = db.transaction(move |conn| {
        async move {
            let at = lists::lock(conn, now).await?;
            let listed = listed(conn, network).await?;
            if on_lists == OnLists::Refuse && !listed.is_empty() {
                return Ok(Err(listed));
            }
            forgotten::lock(conn).await?;
            let mut details = json!({ "from": actor.address });
            if on_lists == OnLists::Remove {
                details["entries"] = json!(remove(conn, listed, at).await?);
            }
            details["findings"] = json!(forget_findings(conn, network).await?);
            for bouncer in bouncers::inside(conn, network).await? {
                bouncers::delete(conn, bouncer.id).await?;
            }
            let networks = [Some(network)];
            let version =
                list_changes::record(conn, List::Forgotten, Op::Forget, &networks, at).await?;
            let by = (version, actor.name.as_str());
            let id = forgotten::insert(conn, network, salt, by, at).await?;
            let target = format!("forgotten:{id}");
            audit_log::insert(conn, at, &actor.name, "forget", &target, details).await?;
            Ok(Ok(Begun { id, version }))
        }
        .boxed()
    });
    begun.await?.map_err(ForgetError::Listed)
}

/// Deletes the records, batch by batch, and takes the address out of the audit log; then says so in the
/// row of `id`. `progress` is told how many records went so far. May be called again if it was cut short.
///
/// # Errors
/// As any statement; what went stays gone.
pub async fn erase(
    db: &Db,
    id: i64,
    network: Network,
    now: DateTime<Utc>,
    mut progress: impl FnMut(usize),
) -> Result<(), DbError> {
    let patient = db.with_timeout(BATCH_LIMIT);
    let (mut erased, mut more) = (0, true);
    while more {
        let gone;
        (gone, more) = patient
            .transaction(move |conn| request_logs::erase(conn, network, RECORDS).boxed())
            .await?;
        erased += gone;
        progress(erased);
    }
    // Whoever counts an hour from here on leaves it out.
    patient.transaction(move |conn| request_tops::forget(conn, network).boxed()).await?;
    let mut after = Some(0);
    while let Some(from) = after {
        after = patient.transaction(move |conn| redact(conn, network, from).boxed()).await?;
    }
    let finished = db.transaction(move |conn| {
        async move {
            let text = text::common(network);
            for (actor, key, answer) in idempotency_keys::with(conn, &text).await? {
                if text::mentions(&answer, network) {
                    idempotency_keys::delete(conn, &actor, &key).await?;
                }
            }
            let at = conn.clock(now).await?;
            forgotten::erased(conn, id, at).await
        }
        .boxed()
    });
    finished.await?;
    db.wipe().await
}

/// Empties what still names what everybody has forgotten.
///
/// # Errors
/// As any statement.
pub async fn tidy(db: &Db, now: DateTime<Utc>) -> Result<(), DbError> {
    let settled = db.transaction(move |conn| {
        async move {
            let at = conn.clock(now).await?;
            receipt::settle(conn, at).await
        }
        .boxed()
    });
    if settled.await? { db.wipe().await } else { Ok(()) }
}

/// All receipts, the newest first.
///
/// # Errors
/// As any statement.
pub async fn receipts(db: &Db, now: DateTime<Utc>) -> Result<Vec<Receipt>, DbError> {
    tidy(db, now).await?;
    let all = db.run(move |conn| {
        async move {
            let at = conn.clock(now).await?;
            receipt::all(conn, at).await
        }
        .boxed()
    });
    all.await
}

/// The entries of both lists within `network`, ended ones as well.
async fn listed(conn: &mut Conn, network: Network) -> Result<Vec<(List, Entry)>, DbError> {
    let always = DateTime::UNIX_EPOCH;
    let blocked = blocked_ips::inside(conn, network, always, i64::MAX).await?;
    let allowed = allowed_ips::inside(conn, network, always, i64::MAX).await?;
    let blocked = blocked.into_iter().map(|entry| (List::Blocked, entry));
    Ok(blocked.chain(allowed.into_iter().map(|entry| (List::Allowed, entry))).collect())
}

/// Takes entries off their lists. Returns how many.
async fn remove(
    conn: &mut Conn,
    entries: Vec<(List, Entry)>,
    at: DateTime<Utc>,
) -> Result<usize, DbError> {
    let count = entries.len();
    for (list, entry) in entries {
        match list {
            List::Blocked => blocked_ips::delete(conn, &[entry.id]).await?,
            _ => allowed_ips::delete(conn, &[entry.id]).await?,
        }
        list_changes::record(conn, list, Op::Removed, &[Some(entry.network)], at).await?;
    }
    Ok(count)
}

/// Deletes the findings about `network`, and its requests from the evidence of wider ones. Returns how many
/// were about it.
async fn forget_findings(conn: &mut Conn, network: Network) -> Result<usize, DbError> {
    let about = suspicious_ips::inside(conn, network).await?;
    for finding in &about {
        suspicious_ips::delete(conn, finding.id).await?;
    }
    for SuspiciousIp { id, mut evidence, .. } in findings_around(conn, network).await? {
        if let Some(requests) = evidence["requests"].as_array_mut() {
            requests.retain(|request| !text::is_about(request, network));
        }
        text::redact(&mut evidence, network);
        suspicious_ips::set_evidence(conn, id, evidence).await?;
    }
    Ok(about.len())
}

/// The findings about networks around `network` whose evidence names it.
pub(crate) async fn findings_around(
    conn: &mut Conn,
    network: Network,
) -> Result<Vec<SuspiciousIp>, DbError> {
    let around = suspicious_ips::about(conn, network, i64::MAX).await?;
    let wider = around.into_iter().filter(|finding| finding.address.prefix() < network.prefix());
    Ok(wider.filter(|finding| text::is_about(&finding.evidence, network)).collect())
}

/// The next rows of the audit log that name `network`, and how far that came; `None` at the end.
pub(crate) async fn audited(
    conn: &mut Conn,
    network: Network,
    after: i64,
) -> Result<Option<(i64, Vec<audit_log::Audited>)>, DbError> {
    let rows = audit_log::with(conn, &text::common(network), after, AUDITED).await?;
    let Some(last) = rows.last().map(|row| row.id) else { return Ok(None) };
    let names = |row: &audit_log::Audited| {
        text::mentions(&row.target, network) || text::is_about(&row.details, network)
    };
    Ok(Some((last, rows.into_iter().filter(names).collect())))
}

/// Takes `network` out of the next rows of the audit log; returns where to go on.
async fn redact(conn: &mut Conn, network: Network, after: i64) -> Result<Option<i64>, DbError> {
    let Some((last, rows)) = audited(conn, network, after).await? else { return Ok(None) };
    for mut row in rows {
        text::redact(&mut row.details, network);
        let target = text::redacted(&row.target, network);
        audit_log::redact(conn, row.id, target, row.details).await?;
    }
    Ok(Some(last))
}
