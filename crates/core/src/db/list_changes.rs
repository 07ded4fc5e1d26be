//! `list_changes` and `list_version`: what changed in the lists, in an order that nobody can dispute.
//!
//! The version is one row, locked by the transaction that changes a list. So versions become visible in
//! order and without gaps, and a reader that has seen version n has seen everything before it.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use ipwarden_engine::network::Network;
use serde::{Deserialize, Serialize};

use super::schema::{list_changes, list_version};
use super::types::{MaybeNet, NetValue, TsValue};
use super::{Conn, DbError};

/// Which list a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum List {
    /// `blocked_ips`.
    Blocked,
    /// `allowed_ips`.
    Allowed,
    /// `api_keys`.
    Keys,
    /// `users`.
    Users,
    /// `forgotten`.
    Forgotten,
}

impl List {
    /// The word in the column.
    pub fn as_str(self) -> &'static str {
        match self {
            List::Blocked => "blocked",
            List::Allowed => "allowed",
            List::Keys => "keys",
            List::Users => "users",
            List::Forgotten => "forgotten",
        }
    }
}

/// What happened to a network in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A row was added or updated.
    Set,
    /// Rows were deleted by somebody.
    Removed,
    /// Rows came to their end and were pruned.
    Ended,
    /// Nothing is to be kept of the network from before.
    Forget,
}

impl Op {
    /// The word in the column.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Set => "set",
            Op::Removed => "removed",
            Op::Ended => "ended",
            Op::Forget => "forget",
        }
    }
}

/// One change. A `list` that this version of the program does not know is a later one's.
#[derive(Clone, Debug, PartialEq, Queryable, Serialize)]
pub struct Change {
    /// Counts up by one.
    pub version: i64,
    /// See [`List::as_str`].
    pub list: String,
    /// See [`Op::as_str`].
    pub op: String,
    /// `None` for lists that are not of networks, and for what was forgotten: who needs to know reloads
    /// everything.
    #[diesel(deserialize_as = MaybeNet)]
    pub network: Option<Network>,
    /// By the store's clock.
    #[diesel(deserialize_as = TsValue)]
    pub at: DateTime<Utc>,
}

impl Change {
    /// Whether it is of a list of networks and does not tell which one any more.
    pub fn is_emptied(&self) -> bool {
        let of_networks = [List::Blocked.as_str(), List::Allowed.as_str()];
        self.network.is_none() && of_networks.contains(&&*self.list)
    }
}

// SQLite takes batches only of what has no defaults: plain fields, not tuples or `serialize_as`.
#[derive(Insertable)]
#[diesel(table_name = list_changes, treat_none_as_default_value = false)]
struct NewChange {
    version: i64,
    list: &'static str,
    op: &'static str,
    network: MaybeNet,
    at: TsValue,
}

/// Takes the next `count` versions, and the lock that orders list changes until the transaction ends.
/// Returns the first.
///
/// # Errors
/// As any statement.
pub async fn next_versions(conn: &mut Conn, count: i64) -> Result<i64, DbError> {
    let row = list_version::table.find(1);
    on!(conn, |c| diesel::update(row)
        .set(list_version::version.eq(list_version::version + count))
        .execute(c)
        .await)?;
    Ok(version(conn).await? - count + 1)
}

/// Takes the lock that orders list changes, until the transaction ends, without a version. Who takes
/// it before he looks knows that no other change of a list comes in between.
///
/// # Errors
/// As any statement.
pub async fn lock(conn: &mut Conn) -> Result<(), DbError> {
    next_versions(conn, 0).await.map(drop)
}

/// The last version that was taken.
///
/// # Errors
/// As any statement.
pub async fn version(conn: &mut Conn) -> Result<i64, DbError> {
    let row = list_version::table.find(1).select(list_version::version);
    on!(conn, |c| row.first(c).await)
}

/// Adds changes to `networks` of one list, all with one `op`; takes the versions for them. Returns the
/// last version.
///
/// # Errors
/// As any statement.
pub async fn record(
    conn: &mut Conn,
    list: List,
    op: Op,
    networks: &[Option<Network>],
    at: DateTime<Utc>,
) -> Result<i64, DbError> {
    let count = i64::try_from(networks.len()).expect("fewer networks than 2^63");
    let first = next_versions(conn, count).await?;
    // PostgreSQL takes 65,535 parameters, SQLite 32,766.
    const ROWS: usize = 5_000;
    for (chunk, start) in networks.chunks(ROWS).zip((first..).step_by(ROWS)) {
        let rows: Vec<NewChange> = chunk
            .iter()
            .zip(start..)
            .map(|(network, version)| NewChange {
                version,
                list: list.as_str(),
                op: op.as_str(),
                network: MaybeNet::from(*network),
                at: TsValue(at),
            })
            .collect();
        let rows = diesel::insert_into(list_changes::table).values(rows);
        match conn {
            Conn::Postgres(c) => rows.execute(c).await?,
            Conn::Sqlite(c) => insert_batch!(c, rows)?,
        };
    }
    Ok(first + count - 1)
}

/// Up to `limit` changes after `version`, in order.
///
/// # Errors
/// As any statement.
pub async fn since(conn: &mut Conn, version: i64, limit: i64) -> Result<Vec<Change>, DbError> {
    let newer = list_changes::table
        .filter(list_changes::version.gt(version))
        .order(list_changes::version)
        .limit(limit);
    on!(conn, |c| newer.load(c).await)
}

/// When the change of this version was made; `None` if it is not there (any more).
///
/// # Errors
/// As any statement.
pub async fn made(conn: &mut Conn, version: i64) -> Result<Option<DateTime<Utc>>, DbError> {
    let row = list_changes::table.find(version).select(list_changes::at);
    let made: Option<TsValue> = on!(conn, |c| row.first(c).await.optional())?;
    Ok(made.map(|at| at.0))
}

/// The last version that was made before `at`, of the changes that are still there; 0 if there is none.
///
/// # Errors
/// As any statement.
pub async fn version_at(conn: &mut Conn, at: DateTime<Utc>) -> Result<i64, DbError> {
    let before = list_changes::table
        .filter(list_changes::at.lt(TsValue(at)))
        .order(list_changes::version.desc())
        .select(list_changes::version);
    let version: Option<i64> = on!(conn, |c| before.first(c).await.optional())?;
    Ok(version.unwrap_or(0))
}

/// Empties the changes of what lies within `network`.
///
/// # Errors
/// As any statement.
pub async fn empty(conn: &mut Conn, network: Network) -> Result<usize, DbError> {
    let inside = list_changes::table
        .filter(list_changes::network.ge(NetValue(network)))
        .filter(list_changes::network.le(NetValue(Network::from(network.last_address()))));
    let set = list_changes::network.eq(MaybeNet::from(None));
    on!(conn, |c| diesel::update(inside).set(set).execute(c).await)
}

/// The changes of what lies within `network`, in order.
///
/// # Errors
/// As any statement.
pub async fn of(conn: &mut Conn, network: Network) -> Result<Vec<Change>, DbError> {
    let inside = list_changes::table
        .filter(list_changes::network.ge(NetValue(network)))
        .filter(list_changes::network.le(NetValue(Network::from(network.last_address()))))
        .order(list_changes::version);
    on!(conn, |c| inside.load(c).await)
}

/// Deletes changes from before `before`, but never the last one, by which a copy is known to be of this
/// store; who is further behind reloads everything.
///
/// # Errors
/// As any statement.
pub async fn prune(conn: &mut Conn, before: DateTime<Utc>) -> Result<usize, DbError> {
    let last = version(conn).await?;
    let old = list_changes::table
        .filter(list_changes::at.lt(TsValue(before)))
        .filter(list_changes::version.lt(last));
    on!(conn, |c| diesel::delete(old).execute(c).await)
}
