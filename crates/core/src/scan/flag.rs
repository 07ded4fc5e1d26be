//! Writes what was decided: opens rows, sets open ones, and leaves alone what a person has judged.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use ipwarden_engine::network::{Network, Parsed};
use serde_json::json;

use crate::db::entries::SCAN;
use crate::db::suspicious_ips::{self, NewSuspiciousIp, Review, Status, SuspiciousIp};
use crate::db::{Conn, DbError, traffic};
use crate::decide::{Decided, Decision};
use crate::detect::{Evidence, Finding, Rule};
use crate::duration::Term;
use crate::lists::{self, Actor, Done, Outcome, Request};

/// How long a dismissed address is left alone.
const DISMISSED: TimeDelta = TimeDelta::days(30);

/// Requests that went on like this until the review were what was reviewed.
const PAUSE: TimeDelta = TimeDelta::hours(1);

/// How many rows were opened, and how many addresses blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flagged {
    pub(super) opened: usize,
    pub(super) blocked: usize,
    /// The version of the lists that the blocks made.
    pub(super) version: Option<i64>,
}

/// Flags each finding at `now`, the store's clock. Belongs in the transaction that renewed the lease.
pub(super) async fn flag(
    conn: &mut Conn,
    decided: Vec<Decided>,
    rails: &lists::Rails,
    now: DateTime<Utc>,
) -> Result<Flagged, DbError> {
    let blocks = decided.iter().any(|one| one.decision != Decision::Review);
    // Before any row of ours: a review takes this lock first, too.
    let now = if blocks { lists::lock(conn, now).await? } else { now };
    let networks: Vec<Network> = decided.iter().map(|one| one.finding.network).collect();
    let mut rows: HashMap<(Network, Rule), Vec<SuspiciousIp>> = HashMap::new();
    for row in suspicious_ips::of(conn, &networks).await? {
        rows.entry((row.address, row.rule)).or_default().push(row);
    }
    let mut flagged = Flagged::default();
    let mut to_insert = Vec::new();
    for Decided { finding, decision, note } in decided {
        let known = rows.remove(&(finding.network, finding.rule)).unwrap_or_default();
        let open = match standing(known, &finding, now) {
            Standing::Judged => continue,
            Standing::Open(row) => Some(row),
            Standing::New => None,
        };
        let review = match decision {
            Decision::Review => None,
            Decision::Block { until } => {
                let term = Term::For((until - now).to_std().unwrap_or_default());
                block(conn, &finding, term, (rails, now)).await?.map(|done| {
                    flagged.version = done.version.or(flagged.version);
                    flagged.blocked += 1;
                    Review { status: Status::Blocked, by: SCAN.to_owned(), at: now }
                })
            }
        };
        match open {
            None => {
                flagged.opened += usize::from(review.is_none());
                to_insert.push(new(finding, note, review));
            }
            Some(row) => {
                let id = row.id;
                let merged = merged(conn, row, new(finding, note, None)).await?;
                suspicious_ips::update(conn, id, merged).await?;
                if let Some(review) = review {
                    suspicious_ips::review(conn, id, &review).await?;
                }
            }
        }
    }
    suspicious_ips::insert(conn, to_insert).await?;
    Ok(flagged)
}

/// What is on record about a finding's address and rule.
enum Standing {
    New,
    Open(Box<SuspiciousIp>),
    /// A person, or the scan itself, has said what there is to say.
    Judged,
}

fn standing(rows: Vec<SuspiciousIp>, finding: &Finding, now: DateTime<Utc>) -> Standing {
    let mut open = None;
    for row in rows {
        if row.status == Status::Open {
            open = Some(Box::new(row));
        } else if is_judged(&row, finding, now) {
            return Standing::Judged;
        }
    }
    open.map_or(Standing::New, Standing::Open)
}

fn is_judged(row: &SuspiciousIp, finding: &Finding, now: DateTime<Utc>) -> bool {
    let reviewed_at = row.reviewed_at.unwrap_or(row.last_seen);
    if row.status == Status::Dismissed && now < reviewed_at + DISMISSED {
        return true;
    }
    let is_same = finding.last_seen <= row.last_seen;
    let went_on = finding.first_seen <= row.last_seen + PAUSE && finding.last_seen <= reviewed_at;
    is_same || went_on
}

fn new(finding: Finding, note: Option<String>, review: Option<Review>) -> NewSuspiciousIp {
    NewSuspiciousIp {
        address: finding.network,
        rule: finding.rule,
        first_seen: finding.first_seen,
        last_seen: finding.last_seen,
        hits: i64::try_from(finding.hits).unwrap_or(i64::MAX),
        evidence: json!(Evidence { requests: finding.evidence, note }),
        review,
    }
}

/// Joins a finding to its open row: set from what the log holds, never added up, so that judging
/// the same window again changes nothing.
async fn merged(
    conn: &mut Conn,
    row: Box<SuspiciousIp>,
    mut new: NewSuspiciousIp,
) -> Result<NewSuspiciousIp, DbError> {
    if row.last_seen > new.last_seen {
        new.evidence = row.evidence;
    }
    new.first_seen = new.first_seen.min(row.first_seen);
    new.last_seen = new.last_seen.max(row.last_seen);
    // The log forgets, and what was counted before it forgot stays.
    new.hits = new.hits.max(row.hits);
    if new.rule == Rule::SensitivePath {
        let address = new.address.address();
        let hits = traffic::sensitive_hits(conn, address, new.first_seen, new.last_seen).await?;
        new.hits = new.hits.max(hits);
    }
    Ok(new)
}

/// Blocks as a person would, behind the same guard rails; `None` if the allowlist was changed in
/// between so that they refuse it now.
async fn block(
    conn: &mut Conn,
    finding: &Finding,
    term: Term,
    (rails, now): (&lists::Rails, DateTime<Utc>),
) -> Result<Option<Done<Outcome>>, DbError> {
    let request = Request {
        targets: vec![Parsed { network: finding.network, masked: false }],
        term,
        reason: Some(format!("{} requests within one window of the scan", finding.hits)),
        origin: SCAN.to_owned(),
        force: false,
    };
    let actor = Actor { name: SCAN.to_owned(), address: None };
    Ok(lists::block_in(conn, request, &actor, rails, now).await?.ok())
}
