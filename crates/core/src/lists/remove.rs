//! Taking networks off a list.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::{Network, Parsed};
use ipwarden_engine::target;
use serde_json::json;

use super::table::Table;
use super::{Actor, Done, ListError, MENTIONED, Notice, Removal, distinct, lock, patient, record};
use crate::db::list_changes::Op;
use crate::db::{Conn, Db, DbError, audit_log};

/// Deletes the blocks of exactly these networks, whatever their origin. That one is not blocked is
/// no error; that another entry still blocks it is a notice.
///
/// # Errors
/// [`ListError::Store`].
pub async fn unblock(
    db: &Db,
    targets: Vec<Parsed>,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<Done<Removal>, ListError> {
    remove(db, Table::Blocked, targets, actor, now).await
}

/// Deletes the entries of exactly these networks from the allowlist, as [`unblock`] does.
///
/// # Errors
/// [`ListError::Store`].
pub async fn disallow(
    db: &Db,
    targets: Vec<Parsed>,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<Done<Removal>, ListError> {
    remove(db, Table::Allowed, targets, actor, now).await
}

async fn remove(
    db: &Db,
    table: Table,
    targets: Vec<Parsed>,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<Done<Removal>, ListError> {
    let patient = patient(db, targets.len());
    let done = patient.transaction(move |conn| {
        async move {
            let at = lock(conn, now).await?;
            remove_in(conn, table, targets, &actor, at).await
        }
        .boxed()
    });
    Ok(done.await?)
}

/// [`unblock`] within a transaction that holds the lock of the lists, at the store's time `at`.
///
/// # Errors
/// As any statement.
pub async fn unblock_in(
    conn: &mut Conn,
    targets: Vec<Parsed>,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Done<Removal>, DbError> {
    remove_in(conn, Table::Blocked, targets, actor, at).await
}

/// [`disallow`] within a transaction that holds the lock of the lists, at the store's time `at`.
///
/// # Errors
/// As any statement.
pub async fn disallow_in(
    conn: &mut Conn,
    targets: Vec<Parsed>,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Done<Removal>, DbError> {
    remove_in(conn, Table::Allowed, targets, actor, at).await
}

async fn remove_in(
    conn: &mut Conn,
    table: Table,
    targets: Vec<Parsed>,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Done<Removal>, DbError> {
    let (mut outcomes, mut changed, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for target in distinct(targets) {
        let network = target.network;
        // What has ended was not on the list any more.
        if table.prune_of(conn, network, at).await? > 0 {
            ended.push(network);
        }
        let removed = table.remove(conn, network).await?;
        if !removed.is_empty() {
            changed.push(network);
        }
        let details = json!({
            "removed": removed.iter().map(|row| json!({
                "origin": row.origin,
                "reason": row.reason,
                "created_by": row.created_by,
                "expires_at": row.expires_at,
            })).collect::<Vec<_>>(),
            "from": actor.address,
        });
        let verb = match table {
            Table::Blocked => "unblock",
            Table::Allowed => "disallow",
        };
        let audited = network.to_string();
        audit_log::insert(conn, at, &actor.name, verb, &audited, details).await?;
        let mut notices: Vec<_> = target::notices(&target)
            .filter(|notice| matches!(notice, target::Notice::HostBitsMasked(_)))
            .map(Notice::Target)
            .collect();
        notices.extend(what_still_holds(conn, table, network, at).await?);
        outcomes.push(Removal { network, removed, notices });
    }
    let gone = record(conn, table.list(), Op::Ended, &ended, at).await?;
    let version = record(conn, table.list(), Op::Removed, &changed, at).await?.or(gone);
    Ok(Done { outcomes, version })
}

/// What an operator who wanted the network off the list may not expect.
async fn what_still_holds(
    conn: &mut Conn,
    table: Table,
    network: Network,
    at: DateTime<Utc>,
) -> Result<Vec<Notice>, DbError> {
    let list = table.list();
    let wider = table.wider(conn, network, at).await?;
    let mut notices: Vec<_> =
        wider.into_iter().map(|wider| Notice::StillHeldBy { list, network, wider }).collect();
    let narrower = table.narrower(conn, network, at, MENTIONED + 1).await?;
    if !narrower.is_empty() {
        notices.push(Notice::StillInside { list, network, narrower });
    }
    Ok(notices)
}
