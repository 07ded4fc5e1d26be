//! Who holds nothing of it any more, and who has not said so.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use ipwarden_engine::network::Network;
use serde::Serialize;

use crate::db::nodes::{self, LIVE};
use crate::db::{Conn, DbError, bouncers, forgotten, list_changes};

/// A bouncer that has not asked for so long is gone, or asks for everything when it comes back.
const ASKS: TimeDelta = TimeDelta::days(1);

/// What became of one wish to be forgotten.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Receipt {
    /// The row.
    #[serde(flatten)]
    pub row: forgotten::Forgotten,
    /// Each node that may have had something of it.
    pub nodes: Vec<NodeState>,
}

/// A node, and what it has said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeState {
    /// As in `nodes`.
    pub node: String,
    /// How it stands.
    pub state: State,
    /// When it confirmed, or when it was last heard of.
    pub at: DateTime<Utc>,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds nothing any more.
    Confirmed,
    /// It lives, and has not confirmed yet.
    Waiting,
    /// It has not been heard of for a while: it ended, or cannot reach the store. What is still in its
    /// spool will not be stored.
    Silent,
}

impl Receipt {
    /// The nodes in one state.
    pub fn in_state(&self, state: State) -> impl Iterator<Item = &str> {
        let is_so = self.nodes.iter().filter(move |node| node.state == state);
        is_so.map(|node| node.node.as_str())
    }

    /// Whether nothing is left to be done or waited for.
    pub fn is_complete(&self) -> bool {
        self.row.erased_at.is_some() && self.in_state(State::Waiting).next().is_none()
    }
}

/// All receipts, the newest first. `now` is the store's clock.
///
/// # Errors
/// As any statement.
pub(super) async fn all(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<Receipt>, DbError> {
    let mut all = Vec::new();
    for row in forgotten::all(conn).await? {
        let nodes = states(conn, row.id, now).await?;
        all.push(Receipt { row, nodes });
    }
    Ok(all)
}

async fn states(conn: &mut Conn, id: i64, now: DateTime<Utc>) -> Result<Vec<NodeState>, DbError> {
    let confirmed = forgotten::confirmations(conn, id).await?;
    let known: HashMap<_, _> = confirmed.iter().cloned().collect();
    let confirmed =
        confirmed.into_iter().map(|(node, at)| NodeState { node, state: State::Confirmed, at });
    let others = nodes::all(conn, "api").await?.into_iter();
    let others = others.filter(|(node, _)| !known.contains_key(node)).map(|(node, at)| {
        let state = if at > now - LIVE { State::Waiting } else { State::Silent };
        NodeState { node, state, at }
    });
    Ok(confirmed.chain(others).collect())
}

/// Empties what still names what was forgotten, once every live node has confirmed, the tables are through,
/// and every bouncer knows what was unblocked; says whether there was anything. `now` is the store's clock.
/// Belongs in a transaction.
///
/// # Errors
/// As any statement.
pub(super) async fn settle(conn: &mut Conn, now: DateTime<Utc>) -> Result<bool, DbError> {
    let named = receipts_to_settle(conn, now).await?;
    if named.is_empty() {
        return Ok(false);
    }
    list_changes::lock(conn).await?;
    let mut settled = false;
    for (network, version) in named {
        if !bouncers::any_behind(conn, version, now - ASKS).await? {
            list_changes::empty(conn, network).await?;
            forgotten::settle(conn, network, now).await?;
            settled = true;
        }
    }
    Ok(settled)
}

async fn receipts_to_settle(
    conn: &mut Conn,
    now: DateTime<Utc>,
) -> Result<Vec<(Network, i64)>, DbError> {
    let receipts = all(conn, now).await?;
    let due = receipts.iter().filter(|receipt| receipt.is_complete());
    Ok(due.filter_map(|receipt| Some((receipt.row.network?, receipt.row.version))).collect())
}
