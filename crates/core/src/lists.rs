//! The lists as operators change them: block, unblock, allow, disallow, review, check.
//!
//! What `ipctl` and the JSON API share. Each change is one transaction of the rows, their
//! `list_changes` and their `audit_log`, by the store's clock, behind the one lock that orders list
//! changes: it sees no other change in between, and either all of its targets are done or none. What
//! was so already changes nothing and is audited too.
//!
//! What this deliberately does not do: announce. The caller gets the version that the change made and
//! passes it on after the commit.

mod bulk;
mod check;
mod import;
mod own;
mod put;
mod ranges;
mod remove;
mod review;
mod table;

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::{Network, Parsed};
use ipwarden_engine::target::{self, Refused};
use serde::{Serialize, Serializer};

use crate::db::entries::{Entry, Put};
use crate::db::list_changes::{self, List, Op};
use crate::db::{Conn, Db, DbError, allowed_ips, blocked_ips};
use crate::duration::Term;

pub use self::bulk::{Bulk, BulkDone, bulk_in};
pub use self::check::{Because, Checked, Standing, check};
pub use self::import::{
    IMPORT, Import, Imported, Item, OnRefused, Report, import_allowed, import_blocked,
};
pub use self::own::own_addresses;
pub use self::put::{allow, allow_in, block, block_in};
pub use self::ranges::{BlockedRange, blocked_ranges};
pub use self::remove::{disallow, disallow_in, unblock, unblock_in};
pub use self::review::{Judgement, ReviewError, Reviewed, review, review_in};

/// The origin of what a person puts on a list.
pub const MANUAL: &str = "manual";

/// Who changes a list, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `cli:USER`, `key:ID`, `scan`.
    pub name: String,
    /// Where the operator sits: the API caller's address, or the first word of `SSH_CONNECTION`.
    pub address: Option<IpAddr>,
}

/// What a block must not reach, besides the allowlist and the operator, which every change looks up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rails {
    /// The trusted proxies.
    pub trusted: Vec<Network>,
    /// The machine's own addresses.
    pub own: Vec<IpAddr>,
}

impl Rails {
    /// Those of this machine, with the trusted proxies of the configuration.
    pub fn of_this_machine(trusted: Vec<Network>) -> Rails {
        Rails { trusted, own: own_addresses() }
    }
}

/// Networks to put on a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// As they were read. One that stands there twice counts once.
    pub targets: Vec<Parsed>,
    /// How long, from when the change is made.
    pub term: Term,
    /// Why, in somebody's words; `None` leaves the reason of an entry that exists.
    pub reason: Option<String>,
    /// [`MANUAL`], `scan`, `import`, `list:NAME`.
    pub origin: String,
    /// Passes the guard rails, with a notice.
    pub force: bool,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq)]
pub struct Done<T> {
    /// One for each target, in order.
    pub outcomes: Vec<T>,
    /// The version of the lists that this change made, to be announced; `None` when all was so
    /// already.
    pub version: Option<i64>,
}

/// What became of a target that was to be on a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The row as it is now.
    #[serde(flatten)]
    pub entry: Entry,
    /// Whether that is new.
    pub put: Put,
    /// The row as it was before, if there was one.
    #[serde(skip)]
    pub before: Option<Entry>,
    /// What the operator should know.
    pub notices: Vec<Notice>,
}

/// What became of a target that was to leave a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Removal {
    /// The target.
    pub network: Network,
    /// The rows that were deleted; none, when it was not on the list.
    pub removed: Vec<Entry>,
    /// What the operator should know.
    pub notices: Vec<Notice>,
}

/// What an operator should know about a change that was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// Something about the target itself.
    #[error("{0}")]
    Target(target::Notice),
    /// A guard rail stood in the way, and was passed on demand.
    #[error("{}; done nevertheless, because it was forced", .0.reason())]
    Forced(Refused),
    /// A wider entry of the same list holds this network as well.
    #[error("{network} is also held by the wider entry {wider} of the same list")]
    AlsoHeldBy {
        /// The target.
        network: Network,
        /// The entry.
        wider: Network,
    },
    /// A wider entry still holds what was removed.
    #[error("{network} is still {} by {wider}: that is an entry of its own", word(*.list))]
    StillHeldBy {
        /// Which list.
        list: List,
        /// The target.
        network: Network,
        /// The entry.
        wider: Network,
    },
    /// Narrower entries still hold parts of what was removed.
    #[error("inside {network} still {}: {}", word(*.list), several(.narrower))]
    StillInside {
        /// Which list.
        list: List,
        /// The target.
        network: Network,
        /// Up to [`MENTIONED`] of the entries, and one more if there are more.
        narrower: Vec<Network>,
    },
    /// What is allowed now was blocked.
    #[error("{network} beats the block of {}, which stays on its list", several(.blocks))]
    Beats {
        /// The target.
        network: Network,
        /// Up to [`MENTIONED`] of the blocks, and one more if there are more.
        blocks: Vec<Network>,
    },
    /// Far more is allowed than one site.
    #[error("{0} is very wide: everybody in it now passes without quota and without block")]
    AllowsMany(Network),
    /// A trusted proxy is allowed, and with it whoever it cannot name.
    #[error(
        "{network} holds the trusted proxy {proxy}: requests whose client it does not name now pass \
         without quota"
    )]
    AllowsProxy {
        /// The target.
        network: Network,
        /// The entry of the trusted list.
        proxy: Network,
    },
}

impl Serialize for Notice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The most entries that a notice names.
pub const MENTIONED: usize = 5;

fn word(list: List) -> &'static str {
    match list {
        List::Blocked => "blocked",
        List::Allowed => "allowed",
        List::Keys => "a key",
        List::Users => "a user",
        List::Forgotten => "forgotten",
    }
}

fn several(networks: &[Network]) -> String {
    let named: Vec<String> = networks.iter().take(MENTIONED).map(Network::to_string).collect();
    let more = if networks.len() > MENTIONED { " and others" } else { "" };
    format!("{}{more}", named.join(", "))
}

/// Why a list was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Targets that the guard rails refuse; then none was put on the list.
    #[error("{}", .0.iter().map(Refused::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refused>),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] DbError),
}

/// Deletes what has ended from both lists, with a change for each row. Returns how many rows went,
/// and the version to announce if any did.
///
/// # Errors
/// As any statement.
pub async fn prune_ended(db: &Db, now: DateTime<Utc>) -> Result<(usize, Option<i64>), DbError> {
    /// One transaction holds the lock of the lists no longer than for so many rows.
    const ROWS: i64 = 1_000;
    // Most of the time nothing has ended; that is seen without taking the lock.
    let any = db
        .run(move |conn| {
            async move {
                let at = conn.clock(now).await?;
                Ok(blocked_ips::has_ended(conn, at).await?
                    || allowed_ips::has_ended(conn, at).await?)
            }
            .boxed()
        })
        .await?;
    let (mut pruned, mut version, mut more) = (0, None, any);
    while more {
        let (rows, last, full) = db
            .transaction(move |conn| {
                async move {
                    let at = lock(conn, now).await?;
                    let (mut rows, mut last, mut full) = (0, None, false);
                    for (list, ended) in [
                        (List::Blocked, blocked_ips::prune(conn, at, ROWS).await?),
                        (List::Allowed, allowed_ips::prune(conn, at, ROWS).await?),
                    ] {
                        last = record(conn, list, Op::Ended, &ended, at).await?.or(last);
                        rows += ended.len();
                        full |= i64::try_from(ended.len()).is_ok_and(|count| count == ROWS);
                    }
                    Ok((rows, last, full))
                }
                .boxed()
            })
            .await?;
        pruned += rows;
        version = last.or(version);
        more = full;
    }
    Ok((pruned, version))
}

/// The store, with more time for a long list: it is still one transaction.
pub fn patient(db: &Db, targets: usize) -> Db {
    const USUAL: usize = 100;
    const LONG: Duration = Duration::from_secs(120);
    if targets > USUAL { db.with_timeout(LONG) } else { db.clone() }
}

/// Takes the lock of the lists and returns the store's time behind it, in whole microseconds.
///
/// # Errors
/// As any statement.
pub async fn lock(conn: &mut Conn, now: DateTime<Utc>) -> Result<DateTime<Utc>, DbError> {
    list_changes::lock(conn).await?;
    Ok(conn.clock(now).await?.trunc_subsecs(6))
}

/// Records one change for each network, if there are any; returns the last version.
async fn record(
    conn: &mut Conn,
    list: List,
    op: Op,
    networks: &[Network],
    at: DateTime<Utc>,
) -> Result<Option<i64>, DbError> {
    if networks.is_empty() {
        return Ok(None);
    }
    let networks: Vec<_> = networks.iter().copied().map(Some).collect();
    list_changes::record(conn, list, op, &networks, at).await.map(Some)
}

/// Each network once, in the order of the first.
fn distinct(targets: Vec<Parsed>) -> Vec<Parsed> {
    let mut seen = std::collections::HashSet::new();
    targets.into_iter().filter(|target| seen.insert(target.network)).collect()
}
