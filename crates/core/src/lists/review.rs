//! A person's word on what the scan found.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::{Network, Parsed};
use ipwarden_engine::target::Refused;
use serde::Serialize;
use serde_json::json;

use super::put::block_in;
use super::{Actor, Done, Outcome, Rails, Request, lock};
use crate::db::entries::SCAN;
use crate::db::suspicious_ips::{self, Review, Status, SuspiciousIp};
use crate::db::{Conn, Db, DbError, audit_log};
use crate::detect::Rule;
use crate::duration::Term;

/// What becomes of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its address is blocked, just that.
    Block {
        /// How long, from now.
        term: Term,
        /// Why, in somebody's words; `None` says what was found.
        reason: Option<String>,
        /// Passes the guard rails, with a notice.
        force: bool,
    },
    /// It is harmless, and stays dismissed for 30 days.
    Dismiss,
}

/// What a review did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reviewed {
    /// The finding as it is now.
    #[serde(flatten)]
    pub finding: SuspiciousIp,
    /// Whether it had been judged so before, and nothing changed.
    pub already: bool,
    /// The block that came of it.
    pub block: Option<Outcome>,
    /// The version of the lists to be announced, if they changed.
    #[serde(skip)]
    pub version: Option<i64>,
}

/// Why a review was not made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// There is none.
    #[error("there is no finding {0}")]
    NoSuch(i64),
    /// It was judged otherwise before.
    #[error(
        "finding {} ({}) was {} by {} already", .0.id, .0.address, .0.status.as_str(),
        .0.reviewed_by.as_deref().unwrap_or("somebody")
    )]
    Otherwise(Box<SuspiciousIp>),
    /// The guard rails refuse the block.
    #[error(transparent)]
    Refused(Refused),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] DbError),
}

/// Judges a finding: one transaction of the finding, the block, its change and the audit.
///
/// # Errors
/// [`ReviewError`]; then nothing was written.
pub async fn review(
    db: &Db,
    id: i64,
    judgement: Judgement,
    actor: Actor,
    rails: Rails,
    now: DateTime<Utc>,
) -> Result<Reviewed, ReviewError> {
    db.transaction(move |conn| {
        async move {
            let at = lock(conn, now).await?;
            review_in(conn, id, judgement, &actor, &rails, at).await
        }
        .boxed()
    })
    .await?
}

/// [`review`] within a transaction that holds the lock of the lists, at the store's time `at`.
///
/// # Errors
/// As any statement. Another error of the review is no error of the store; then nothing was written.
pub async fn review_in(
    conn: &mut Conn,
    id: i64,
    judgement: Judgement,
    actor: &Actor,
    rails: &Rails,
    at: DateTime<Utc>,
) -> Result<Result<Reviewed, ReviewError>, DbError> {
    let Some(finding) = suspicious_ips::find(conn, id).await? else {
        return Ok(Err(ReviewError::NoSuch(id)));
    };
    let status = match &judgement {
        Judgement::Block { .. } => Status::Blocked,
        Judgement::Dismiss => Status::Dismissed,
    };
    if finding.status != Status::Open {
        if finding.status != status {
            return Ok(Err(ReviewError::Otherwise(Box::new(finding))));
        }
        audit(conn, &finding, true, actor, at).await?;
        return Ok(Ok(Reviewed { finding, already: true, block: None, version: None }));
    }
    let done = match judgement {
        Judgement::Dismiss => None,
        Judgement::Block { term, reason, force } => {
            let request = Request {
                targets: vec![Parsed { network: finding.address, masked: false }],
                term,
                reason: Some(reason.unwrap_or_else(|| found(&finding))),
                origin: SCAN.to_owned(),
                force,
            };
            match block_in(conn, request, actor, rails, at).await? {
                Ok(done) => Some(done),
                Err(refused) => {
                    let first = refused.into_iter().next();
                    let first = first.expect("a refusal names what it refuses");
                    return Ok(Err(ReviewError::Refused(first)));
                }
            }
        }
    };
    let review = Review { status, by: actor.name.clone(), at };
    let reviewed = suspicious_ips::review(conn, id, &review).await?;
    // The scan takes no lock of the lists, and may have judged it in between.
    let conflict = || DbError::Conflict(format!("finding {id} was judged meanwhile"));
    let finding = reviewed.ok_or_else(conflict)?;
    audit(conn, &finding, false, actor, at).await?;
    let (block, version) = match done {
        Some(Done { outcomes, version }) => (outcomes.into_iter().next(), version),
        None => (None, None),
    };
    Ok(Ok(Reviewed { finding, already: false, block, version }))
}

async fn audit(
    conn: &mut Conn,
    finding: &SuspiciousIp,
    already: bool,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    let details = json!({
        "finding": finding.id,
        "rule": finding.rule,
        "status": finding.status,
        "already": already,
        "from": actor.address,
    });
    let target: Network = finding.address;
    audit_log::insert(conn, at, &actor.name, "review", &target.to_string(), details).await
}

fn found(finding: &SuspiciousIp) -> String {
    match finding.rule {
        Rule::Volume => format!("{} requests within one window of the scan", finding.hits),
        Rule::SensitivePath => format!("{} requests for sensitive paths", finding.hits),
    }
}
