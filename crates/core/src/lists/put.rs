//! Putting networks on a list.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::{Network, Parsed};
use ipwarden_engine::target::{self, Refused};
use serde_json::json;

use super::table::Table;
use super::{Actor, Done, ListError, MENTIONED, Notice, Outcome, Rails, Request};
use super::{distinct, lock, patient, record};
use crate::db::entries::{NewEntry, Put};
use crate::db::list_changes::Op;
use crate::db::{Conn, Db, DbError, audit_log};

/// Blocks networks, unless the guard rails refuse one of them.
///
/// # Errors
/// [`ListError::Refused`] names every target that is refused; then nothing was written.
pub async fn block(
    db: &Db,
    request: Request,
    actor: Actor,
    rails: Rails,
    now: DateTime<Utc>,
) -> Result<Done<Outcome>, ListError> {
    patient(db, request.targets.len())
        .transaction(move |conn| {
            async move {
                let at = lock(conn, now).await?;
                block_in(conn, request, &actor, &rails, at).await
            }
            .boxed()
        })
        .await?
        .map_err(ListError::Refused)
}

/// Lets networks pass whatever blocks and quotas say.
///
/// Nothing is refused here, since nobody is locked out; what is surprisingly wide gets a notice.
///
/// # Errors
/// [`ListError::Store`].
pub async fn allow(
    db: &Db,
    request: Request,
    actor: Actor,
    rails: Rails,
    now: DateTime<Utc>,
) -> Result<Done<Outcome>, ListError> {
    let patient = patient(db, request.targets.len());
    let done = patient.transaction(move |conn| {
        async move {
            let at = lock(conn, now).await?;
            allow_in(conn, request, &actor, &rails, at).await
        }
        .boxed()
    });
    Ok(done.await?)
}

/// [`allow`] within a transaction that holds the lock of the lists, at the store's time `at`.
///
/// # Errors
/// As any statement.
pub async fn allow_in(
    conn: &mut Conn,
    request: Request,
    actor: &Actor,
    rails: &Rails,
    at: DateTime<Utc>,
) -> Result<Done<Outcome>, DbError> {
    let targets = distinct(request.targets.clone());
    let mut judged = Vec::with_capacity(targets.len());
    for target in targets {
        let notices = notices_of_allowing(conn, &target.network, rails, at).await?;
        judged.push((target, notices));
    }
    put(conn, Table::Allowed, judged, &request, actor, at).await
}

/// [`block`] within a transaction that holds the lock of the lists, at the store's time `at`.
///
/// # Errors
/// As any statement. What the guard rails refuse is no error of the store; then nothing was written.
pub async fn block_in(
    conn: &mut Conn,
    request: Request,
    actor: &Actor,
    rails: &Rails,
    at: DateTime<Utc>,
) -> Result<Result<Done<Outcome>, Vec<Refused>>, DbError> {
    let (mut judged, mut refused) = (Vec::new(), Vec::new());
    for target in distinct(request.targets.clone()) {
        match judge(conn, &target.network, actor, rails, at).await? {
            Ok(()) => judged.push((target, Vec::new())),
            Err(reason) if request.force => judged.push((target, vec![Notice::Forced(reason)])),
            Err(reason) => refused.push(reason),
        }
    }
    if !refused.is_empty() {
        return Ok(Err(refused));
    }
    put(conn, Table::Blocked, judged, &request, actor, at).await.map(Ok)
}

/// The guard rails as they stand in this transaction.
pub(super) async fn judge(
    conn: &mut Conn,
    network: &Network,
    actor: &Actor,
    rails: &Rails,
    at: DateTime<Utc>,
) -> Result<Result<(), Refused>, DbError> {
    let mut allowed = Table::Allowed.holding(conn, *network, at).await?;
    allowed.extend(Table::Allowed.narrower(conn, *network, at, 1).await?);
    let rails = target::Rails {
        trusted: &rails.trusted,
        allowed: &allowed,
        own: &rails.own,
        operator: actor.address,
    };
    Ok(target::check(network, &rails))
}

async fn notices_of_allowing(
    conn: &mut Conn,
    network: &Network,
    rails: &Rails,
    at: DateTime<Utc>,
) -> Result<Vec<Notice>, DbError> {
    let network = *network;
    let mut notices = Vec::new();
    let nothing = target::Rails::default();
    if matches!(target::check(&network, &nothing), Err(Refused::TooWide { .. })) {
        notices.push(Notice::AllowsMany(network));
    }
    if let Some(proxy) = rails.trusted.iter().copied().find(|proxy| proxy.overlaps(&network)) {
        notices.push(Notice::AllowsProxy { network, proxy });
    }
    let mut blocks = Table::Blocked.holding(conn, network, at).await?;
    blocks.extend(Table::Blocked.narrower(conn, network, at, MENTIONED + 1).await?);
    if !blocks.is_empty() {
        notices.push(Notice::Beats { network, blocks });
    }
    Ok(notices)
}

pub(super) async fn put(
    conn: &mut Conn,
    table: Table,
    targets: Vec<(Parsed, Vec<Notice>)>,
    request: &Request,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Done<Outcome>, DbError> {
    let (mut outcomes, mut changed, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for (target, mut notices) in targets {
        let network = target.network;
        // A row that has ended is another block: who made it, and when, is not true of this one.
        if table.prune_of(conn, network, at).await? > 0 {
            ended.push(network);
        }
        let rows = table.of(conn, network).await?;
        let before = rows.into_iter().find(|row| row.origin == request.origin);
        let kept = before.as_ref().map(|row| row.reason.clone());
        let new = NewEntry {
            network,
            reason: request.reason.clone().or(kept).unwrap_or_default(),
            origin: request.origin.clone(),
            created_by: actor.name.clone(),
            created_at: at,
            expires_at: request.term.ends(at),
        };
        let (entry, put) = table.put(conn, new).await?;
        if put != Put::Unchanged {
            changed.push(network);
        }
        let details = json!({
            "outcome": put,
            "reason": entry.reason,
            "origin": entry.origin,
            "expires_at": entry.expires_at,
            "forced": notices.iter().any(|notice| matches!(notice, Notice::Forced(_))),
            "from": actor.address,
        });
        let verb = match table {
            Table::Blocked => "block",
            Table::Allowed => "allow",
        };
        audit_log::insert(conn, at, &actor.name, verb, &network.to_string(), details).await?;
        notices.splice(0..0, target::notices(&target).map(Notice::Target));
        if let Some(wider) = table.wider(conn, network, at).await?.first().copied() {
            notices.push(Notice::AlsoHeldBy { network, wider });
        }
        outcomes.push(Outcome { entry, put, before, notices });
    }
    let gone = record(conn, table.list(), Op::Ended, &ended, at).await?;
    let version = record(conn, table.list(), Op::Set, &changed, at).await?.or(gone);
    Ok(Done { outcomes, version })
}
