//! What the store says about decisions: everything, or what changed since a version.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipwarden_engine::network::Network;

use super::Cause;
use super::book::Ends;
use crate::db::entries::Entry;
use crate::db::list_changes::{self, Change, List};
use crate::db::{Conn, DbError, allowed_ips, blocked_ips, entries};

/// With more changes than this, reading everything is no more work than reading them one by one.
const MOST_CHANGES: i64 = 20_000;
/// Rows of one look at the store.
const PAGE: i64 = 10_000;

pub(super) enum News {
    /// There are none since this version.
    Nothing { version: i64 },
    /// How the lists at `version` differ from what they were.
    Since { version: i64, blocked: ListNews<Listed>, allowed: ListNews<(Network, Ends)> },
    /// All rows at `version`.
    Whole { version: i64, blocked: Vec<Listed>, allowed: Vec<(Network, Ends)> },
}

/// These networks of a list changed, and these are the rows that they have now.
pub(super) struct ListNews<T> {
    pub(super) networks: Vec<Network>,
    pub(super) rows: Vec<T>,
}

/// A row of the blocklist.
pub(super) struct Listed {
    pub(super) network: Network,
    pub(super) id: i64,
    pub(super) ends: Ends,
    pub(super) cause: Arc<Cause>,
}

/// Thousands of rows have the same cause; it is held once.
#[derive(Default)]
struct Causes(HashSet<Arc<Cause>>);

impl Causes {
    fn listed(&mut self, row: Entry) -> Listed {
        let cause = Cause { origin: row.origin.into(), reason: row.reason.into() };
        let cause = match self.0.get(&cause) {
            Some(known) => known.clone(),
            None => {
                let cause = Arc::new(cause);
                self.0.insert(cause.clone());
                cause
            }
        };
        let ends = Ends::of(row.expires_at.map(|ends| ends.timestamp_micros()));
        Listed { network: row.network, id: row.id, ends, cause }
    }
}

fn allowed(row: &entries::Listed) -> (Network, Ends) {
    (row.network, Ends::of(row.expires_at.map(|ends| ends.timestamp_micros())))
}

/// Everything. The version is read first: what is committed while the rows are read is news after it.
pub(super) async fn everything(conn: &mut Conn, now: DateTime<Utc>) -> Result<News, DbError> {
    let version = list_changes::version(conn).await?;
    let at = conn.clock(now).await?;
    let (mut rows, mut causes, mut before) = (Vec::new(), Causes::default(), None);
    loop {
        let page = blocked_ips::page(conn, before, PAGE, at).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        rows.extend(page.into_iter().map(|row| causes.listed(row)));
    }
    let allows = allowed_ips::listed(conn, at).await?;
    Ok(News::Whole { version, blocked: rows, allowed: allows.iter().map(allowed).collect() })
}

/// What changed since `held`; `None` if that cannot be told change by change.
pub(super) async fn since(
    conn: &mut Conn,
    held: Option<i64>,
    now: DateTime<Utc>,
) -> Result<Option<News>, DbError> {
    let Some(held) = held else { return Ok(None) };
    let version = list_changes::version(conn).await?;
    if version == held {
        return Ok(Some(News::Nothing { version }));
    }
    if version < held || version - held > MOST_CHANGES {
        return Ok(None);
    }
    let changes = list_changes::since(conn, held, version - held).await?;
    let follow_on = changes.iter().map(|change| change.version).eq(held + 1..=version);
    if !follow_on || changes.iter().any(Change::is_emptied) {
        return Ok(None);
    }
    let at = conn.clock(now).await?;
    let blocked = networks_of(&changes, List::Blocked);
    let allows = networks_of(&changes, List::Allowed);
    let rows = blocked_ips::active_of(conn, &blocked, at).await?;
    let mut causes = Causes::default();
    let rows = rows.into_iter().map(|row| causes.listed(row)).collect();
    let allow_rows = allowed_ips::listed_of(conn, &allows, at).await?;
    Ok(Some(News::Since {
        version,
        blocked: ListNews { networks: blocked, rows },
        allowed: ListNews { networks: allows, rows: allow_rows.iter().map(allowed).collect() },
    }))
}

/// The networks of one list that these changes are about, each once, in order.
pub(super) fn networks_of(changes: &[Change], list: List) -> Vec<Network> {
    let of_list = changes.iter().filter(|change| change.list == list.as_str());
    of_list.filter_map(|change| change.network).collect::<BTreeSet<_>>().into_iter().collect()
}
