//! What a bouncer is told that asks again and again: everything at first, then what changed.
//!
//! Each bouncer has a cursor in the store, the version of the lists that its last complete pull told it,
//! so that it may ask any replica. What changed since is read from `list_changes`, and told as it
//! stands now: telling something twice is harmless, leaving something out is not. So, whenever the
//! changes cannot be told one by one, everything is told.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::Network;

use super::Decisions;
use crate::db::bouncers::{self, Pulled, Who};
use crate::db::list_changes::{self, Change, List};
use crate::db::{Conn, Db, DbError};

/// Deletions of this long before the last pull are told once more: bouncers are used to it.
const OVERLAP: TimeDelta = TimeDelta::seconds(2);
/// ipset, in which a bouncer may keep decisions, forgets every entry after 2^31 ms, which is 24.8 days: what
/// ends later has to be told again before that.
const TELL_AGAIN: TimeDelta = TimeDelta::days(20);
/// Changes of one look at the store.
const PAGE: i64 = 10_000;

/// What to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Pull {
    /// Whether every decision is to be told.
    pub everything: bool,
    /// The values about which there may be something new, in order; without meaning if `everything` is
    /// told.
    pub changed: Vec<Network>,
    /// The values whose decisions may have ended, in order.
    pub maybe_ended: Vec<Network>,
    /// How far this brings the bouncer, once it has been told; `None` if nobody can tell.
    pub pulled: Option<Pulled>,
}

impl Pull {
    /// What to tell while the store is away. Nobody can change a list then, and where a bouncer stands only
    /// the store knows: one at its start is told what is held in memory, any other hears of what it has
    /// not heard yet when the store is back.
    pub fn without_store(startup: bool) -> Pull {
        Pull { everything: startup, changed: Vec::new(), maybe_ended: Vec::new(), pulled: None }
    }
}

/// Finds out what to tell a bouncer, and notes that it asked. `startup` is a bouncer that knows nothing.
///
/// # Errors
/// The store's.
pub async fn pull(
    db: &Db,
    decisions: &Decisions,
    who: Who,
    startup: bool,
    now: DateTime<Utc>,
) -> Result<Pull, DbError> {
    let version = decisions.refresh(now).await?;
    let asked = db.run(move |conn| asked(conn, who, startup, version, now).boxed()).await?;
    let book = decisions.book.read();
    let of = |changes: &Changes| book.touched(&changes.blocked, &changes.allowed);
    let changed = of(&asked.fresh);
    let maybe_ended = match asked.overlap.is_empty() {
        true => changed.clone(),
        false => {
            let mut both = [changed.clone(), of(&asked.overlap)].concat();
            both.sort_unstable();
            both.dedup();
            both
        }
    };
    let Asked { everything, at, .. } = asked;
    let pulled = Some(Pulled { list_version: version, at, everything });
    Ok(Pull { everything, changed, maybe_ended, pulled })
}

struct Asked {
    everything: bool,
    at: DateTime<Utc>,
    /// Behind the cursor.
    fresh: Changes,
    /// Before the cursor, but not long.
    overlap: Changes,
}

/// Networks of both lists that changed, each once, in order.
#[derive(Default)]
struct Changes {
    blocked: Vec<Network>,
    allowed: Vec<Network>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.blocked.is_empty() && self.allowed.is_empty()
    }

    fn add(&mut self, changes: &[Change]) {
        for change in changes {
            let Some(network) = change.network else { continue };
            if change.list == List::Blocked.as_str() {
                self.blocked.push(network);
            } else if change.list == List::Allowed.as_str() {
                self.allowed.push(network);
            }
        }
    }

    fn sorted(mut self) -> Changes {
        for networks in [&mut self.blocked, &mut self.allowed] {
            networks.sort_unstable();
            networks.dedup();
        }
        self
    }
}

async fn asked(
    conn: &mut Conn,
    who: Who,
    startup: bool,
    version: i64,
    now: DateTime<Utc>,
) -> Result<Asked, DbError> {
    let at = conn.clock(now).await?;
    bouncers::seen(conn, who.clone(), at).await?;
    let known = bouncers::find(conn, &who.key_id, who.address).await?;
    let told = known.as_ref().and_then(|bouncer| Some((bouncer.list_version?, bouncer.pulled_at?)));
    let is_long_ago = |told: DateTime<Utc>| at - told >= TELL_AGAIN;
    let all_told = known.as_ref().and_then(|bouncer| bouncer.announced_at);
    let again = startup || all_told.is_none_or(is_long_ago);
    let (cursor, overlap_from) = match told {
        // A store that was set back counts its versions anew.
        Some((cursor, pulled_at)) if !again && cursor <= version => {
            (cursor, list_changes::version_at(conn, pulled_at - OVERLAP).await?.min(cursor))
        }
        _ => return everything(conn, version, at).await,
    };
    let (first, fresh) = read(conn, cursor, version).await?;
    if cursor < version && first != Some(cursor + 1) {
        return everything(conn, version, at).await;
    }
    let (_, overlap) = read(conn, overlap_from, cursor).await?;
    Ok(Asked { everything: false, at, fresh, overlap })
}

/// All that is active, and all that is known to have changed, of which some has ended.
async fn everything(conn: &mut Conn, to: i64, at: DateTime<Utc>) -> Result<Asked, DbError> {
    let (_, fresh) = read(conn, 0, to).await?;
    Ok(Asked { everything: true, at, fresh, overlap: Changes::default() })
}

/// The changes after `from` up to `to`, and the version of the first of them.
async fn read(conn: &mut Conn, from: i64, to: i64) -> Result<(Option<i64>, Changes), DbError> {
    let (mut changes, mut first, mut from) = (Changes::default(), None, from);
    while from < to {
        let page = list_changes::since(conn, from, PAGE.min(to - from)).await?;
        let Some(last) = page.last() else { break };
        from = last.version;
        first = first.or(page.first().map(|change| change.version));
        let until = page.partition_point(|change| change.version <= to);
        changes.add(&page[..until]);
    }
    Ok((first, changes.sorted()))
}
