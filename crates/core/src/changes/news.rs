//! What the store has to say since a version, or altogether.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipwarden_engine::network::Network;

use crate::db::entries::Listed;
use crate::db::list_changes::{self, List};
use crate::db::{Conn, DbError, allowed_ips, blocked_ips};

/// How long loading everything may take: a million rows are some seconds.
pub(super) const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// With more changes than this, reading everything is no more work than reading them one by one.
const MOST_CHANGES: i64 = 20_000;

/// What the store answered.
pub(super) enum Answer {
    /// Nothing changed.
    Nothing,
    /// This did.
    News(News),
}

/// The lists at `version`, or how they differ from what they were.
pub(super) struct News {
    pub(super) version: i64,
    /// When the change of that version was made, if it is still there.
    pub(super) made: Option<DateTime<Utc>>,
    pub(super) blocked: ListNews,
    pub(super) allowed: ListNews,
    /// Whether API keys or users changed, or may have.
    pub(super) keys: bool,
    /// Whether something is to be forgotten, or may be.
    pub(super) forget: bool,
}

impl News {
    /// Whether either list may be different.
    pub(super) fn is_of_lists(&self) -> bool {
        let is_news = |list: &ListNews| match list {
            ListNews::Whole(_) => true,
            ListNews::Of { networks, .. } => !networks.is_empty(),
        };
        is_news(&self.blocked) || is_news(&self.allowed)
    }
}

/// One list or its differences.
#[derive(Clone)]
pub(super) enum ListNews {
    /// All rows.
    Whole(Vec<Listed>),
    /// These networks changed, and these are the rows that they have now.
    Of { networks: Vec<Network>, rows: Vec<Listed> },
}

/// Everything. The version is read first: what is committed while the rows are read may be in them
/// already, and is then read once more, which changes nothing.
pub(super) async fn everything(conn: &mut Conn, now: DateTime<Utc>) -> Result<Answer, DbError> {
    let version = list_changes::version(conn).await?;
    let made = list_changes::made(conn, version).await?;
    let now = conn.clock(now).await?;
    Ok(Answer::News(News {
        version,
        made,
        blocked: ListNews::Whole(blocked_ips::listed(conn, now).await?),
        allowed: ListNews::Whole(allowed_ips::listed(conn, now).await?),
        keys: true,
        forget: true,
    }))
}

/// Whether lists at this version, the last change of which was made then, are lists of this store.
pub(super) async fn is_of(conn: &mut Conn, version: i64, made: i64) -> Result<bool, DbError> {
    let known = list_changes::made(conn, version).await?;
    Ok(known.is_some_and(|at| at.timestamp_micros() == made))
}

/// What changed since `held`; `None` if that cannot be told change by change.
pub(super) async fn since(
    conn: &mut Conn,
    held: i64,
    now: DateTime<Utc>,
) -> Result<Option<Answer>, DbError> {
    let version = list_changes::version(conn).await?;
    if version == held {
        return Ok(Some(Answer::Nothing));
    }
    if version < held || version - held > MOST_CHANGES {
        return Ok(None);
    }
    // Exactly these, whatever was committed since the version was read.
    let changes = list_changes::since(conn, held, version - held).await?;
    let follow_on = changes.iter().map(|change| change.version).eq(held + 1..=version);
    if !follow_on || changes.iter().any(list_changes::Change::is_emptied) {
        return Ok(None);
    }
    let of = |list: List| -> Vec<Network> {
        let networks: BTreeSet<Network> = changes
            .iter()
            .filter(|change| change.list == list.as_str())
            .filter_map(|change| change.network)
            .collect();
        networks.into_iter().collect()
    };
    let (blocked, allowed) = (of(List::Blocked), of(List::Allowed));
    let of_callers = [List::Keys.as_str(), List::Users.as_str()];
    let keys = changes.iter().any(|change| of_callers.contains(&&*change.list));
    let forget = changes.iter().any(|change| change.list == List::Forgotten.as_str());
    let now = conn.clock(now).await?;
    Ok(Some(Answer::News(News {
        version,
        made: changes.last().map(|change| change.at),
        blocked: ListNews::Of {
            rows: blocked_ips::listed_of(conn, &blocked, now).await?,
            networks: blocked,
        },
        allowed: ListNews::Of {
            rows: allowed_ips::listed_of(conn, &allowed, now).await?,
            networks: allowed,
        },
        keys,
        forget,
    })))
}
