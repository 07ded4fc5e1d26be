//! Many blocks and unblocks as one change: all of them, or none.

use chrono::{DateTime, Utc};
use ipwarden_engine::network::Parsed;
use ipwarden_engine::target::Refused;
use serde::Serialize;

use super::put::{judge, put};
use super::remove::unblock_in;
use super::table::Table;
use super::{Actor, Done, Notice, Outcome, Rails, Removal, Request};
use crate::db::{Conn, DbError};

/// What is to become of many networks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bulk {
    /// Blocks, each with its own circumstances.
    pub block: Vec<Request>,
    /// Networks that are to be blocked no longer; they go first.
    pub unblock: Vec<Parsed>,
}

/// What became of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BulkDone {
    /// One for each block, in order.
    pub blocked: Vec<Outcome>,
    /// One for each unblock, in order.
    pub unblocked: Vec<Removal>,
    /// The version of the lists to be announced, if they changed.
    #[serde(skip)]
    pub version: Option<i64>,
}

/// Does all of it within a transaction that holds the lock of the lists, at the store's time `at`, unless
/// the guard rails refuse a block: then nothing is written, and each that they refuse is told by its
/// index.
///
/// # Errors
/// As any statement.
pub async fn bulk_in(
    conn: &mut Conn,
    bulk: Bulk,
    actor: &Actor,
    rails: &Rails,
    at: DateTime<Utc>,
) -> Result<Result<BulkDone, Vec<(usize, Refused)>>, DbError> {
    // The rails are about the allowlist, which nothing of this changes: all are judged beforehand.
    let (mut judged, mut refused) = (Vec::new(), Vec::new());
    for (index, request) in bulk.block.into_iter().enumerate() {
        let mut targets = Vec::new();
        for target in &request.targets {
            match judge(conn, &target.network, actor, rails, at).await? {
                Ok(()) => targets.push((*target, Vec::new())),
                Err(reason) if request.force => {
                    targets.push((*target, vec![Notice::Forced(reason)]));
                }
                Err(reason) => refused.push((index, reason)),
            }
        }
        judged.push((request, targets));
    }
    if !refused.is_empty() {
        return Ok(Err(refused));
    }
    let Done { outcomes: unblocked, mut version } =
        unblock_in(conn, bulk.unblock, actor, at).await?;
    let mut blocked = Vec::with_capacity(judged.len());
    for (request, targets) in judged {
        let done = put(conn, Table::Blocked, targets, &request, actor, at).await?;
        blocked.extend(done.outcomes);
        version = done.version.or(version);
    }
    Ok(Ok(BulkDone { blocked, unblocked, version }))
}
