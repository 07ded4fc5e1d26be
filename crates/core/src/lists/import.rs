//! Whole lists at once: what others publish, and what was exported before.
//!
//! A list that has a name is kept as it is published: importing it again is a difference. What is gone
//! from it ends, what is new is put, and what a person or another list put stays, because that stands
//! under another origin. Without a name entries are only added.
//!
//! One transaction, like every change: all of it or nothing, and one line of the audit for it.

mod rails;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::{Network, Parsed};
use ipwarden_engine::target::{self, Refused};
use serde::Serialize;
use serde_json::json;

use self::rails::{rail, wide};
use super::table::Table;
use super::{Actor, ListError, Notice, Rails, lock, record};
use crate::db::entries::{AT_ONCE, Entry, NewEntry};
use crate::db::list_changes::Op;
use crate::db::{Conn, Db, DbError, audit_log};
use crate::duration::Term;

/// The origin of what was imported without the name of a list.
pub const IMPORT: &str = "import";

/// A million rows take a while, and nobody is kept waiting but those who change lists.
const LIMIT: Duration = Duration::from_secs(300);

/// How many notices are kept.
const TOLD: usize = 10;

/// One entry of a list as somebody wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The network.
    pub target: Parsed,
    /// Why, if the list says so.
    pub reason: Option<String>,
    /// When it ends, if the list says so.
    pub ends: Option<DateTime<Utc>>,
}

/// A list to be taken over.
#[derive(Clone, Debug)]
pub struct Import {
    /// Its entries, in any order; a network that stands there twice counts once, to its latest end.
    pub items: Vec<Item>,
    /// `list:NAME` of a list that is kept as it is published; [`IMPORT`] of one that is added.
    pub origin: String,
    /// What is no longer in the list leaves it.
    pub whole: bool,
    /// How long entries last that do not say so themselves.
    pub term: Term,
    /// Why, for entries that do not say so themselves.
    pub reason: Option<String>,
    /// What becomes of entries that the guard rails refuse.
    pub refused: OnRefused,
    /// Where the list comes from, for the audit.
    pub source: String,
}

/// What becomes of entries that the guard rails refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefused {
    /// Nothing of the list is taken.
    Stop,
    /// All others are taken.
    Skip,
    /// They are taken too.
    Force,
}

/// What came of an import.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Imported {
    /// Networks that were not there under this origin.
    pub added: usize,
    /// Networks whose end or reason is another now.
    pub updated: usize,
    /// Networks that were there and are as they were.
    pub unchanged: usize,
    /// Networks that are no longer in the list.
    pub removed: usize,
    /// Entries of the list that had ended before it was imported.
    pub ended: usize,
    /// Entries that named a network a second time.
    pub repeated: usize,
    /// Networks that the guard rails refuse.
    pub refused: usize,
    /// The first of what there is to know about networks.
    #[serde(skip)]
    pub notices: Vec<Notice>,
    /// The first of what was refused and left out.
    #[serde(skip)]
    pub skipped: Vec<Refused>,
    /// The version of the lists that this change made, to be announced.
    #[serde(skip)]
    pub version: Option<i64>,
}

/// Hears how many entries are through.
pub type Report = Arc<dyn Fn(usize) + Send + Sync>;

/// Blocks what a list names.
///
/// # Errors
/// [`ListError::Refused`] names every network that is refused, unless [`OnRefused`] says otherwise; then
/// nothing was written.
pub async fn import_blocked(
    db: &Db,
    import: Import,
    actor: Actor,
    rails: Rails,
    now: DateTime<Utc>,
    report: Report,
) -> Result<Imported, ListError> {
    import_into(db, Table::Blocked, import, actor, rails, now, report).await
}

/// Allows what a list names. Nothing is refused; what is surprisingly wide gets a notice.
///
/// # Errors
/// [`ListError::Store`].
pub async fn import_allowed(
    db: &Db,
    import: Import,
    actor: Actor,
    rails: Rails,
    now: DateTime<Utc>,
    report: Report,
) -> Result<Imported, ListError> {
    import_into(db, Table::Allowed, import, actor, rails, now, report).await
}

async fn import_into(
    db: &Db,
    table: Table,
    import: Import,
    actor: Actor,
    rails: Rails,
    now: DateTime<Utc>,
    report: Report,
) -> Result<Imported, ListError> {
    db.with_timeout(LIMIT)
        .transaction(move |conn| {
            async move {
                let at = lock(conn, now).await?;
                let mut imported = Imported::default();
                let wanted = wanted(&import, at, &mut imported);
                let judged = match table {
                    Table::Blocked => rail(conn, wanted, &import, &actor, &rails, at).await?,
                    Table::Allowed => Ok((wanted, Vec::new())),
                };
                let (wanted, refused) = match judged {
                    Ok(judged) => judged,
                    Err(refused) => return Ok(Err(refused)),
                };
                imported.refused = refused.len();
                match import.refused {
                    OnRefused::Force => {
                        let forced = refused.into_iter().take(TOLD).map(Notice::Forced);
                        imported.notices.extend(forced);
                    }
                    _ => imported.skipped = refused.into_iter().take(TOLD).collect(),
                }
                if table == Table::Allowed {
                    imported.notices.extend(wide(&wanted, &rails).take(TOLD));
                }
                let mut writing = Writing { conn, table, origin: &import.origin, at, report };
                writing.write(wanted, import.whole, &actor, &mut imported).await?;
                audit(conn, table, &import, &actor, &imported, at).await?;
                Ok(Ok(imported))
            }
            .boxed()
        })
        .await?
        .map_err(ListError::Refused)
}

/// What a row is to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    /// `None` leaves the reason of a row that exists.
    reason: Option<String>,
    ends: Option<DateTime<Utc>>,
}

/// Each network once.
fn wanted(import: &Import, at: DateTime<Utc>, imported: &mut Imported) -> BTreeMap<Network, Wish> {
    let otherwise = import.term.ends(at);
    let mut wanted: BTreeMap<Network, Wish> = BTreeMap::new();
    for item in &import.items {
        if item.ends.is_some_and(|ends| ends <= at) {
            imported.ended += 1;
            continue;
        }
        let reason = item.reason.clone().or_else(|| import.reason.clone());
        let wish = Wish { reason, ends: item.ends.or(otherwise) };
        match wanted.entry(item.target.network) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(wish);
            }
            std::collections::btree_map::Entry::Occupied(mut held) => {
                imported.repeated += 1;
                let held = held.get_mut();
                held.ends = held.ends.zip(wish.ends).map(|(one, other)| one.max(other));
                held.reason = held.reason.take().or(wish.reason);
            }
        }
        if item.target.masked && imported.notices.len() < TOLD {
            let notice = target::Notice::HostBitsMasked(item.target.network);
            imported.notices.push(Notice::Target(notice));
        }
    }
    wanted
}

struct Writing<'a> {
    conn: &'a mut Conn,
    table: Table,
    origin: &'a str,
    at: DateTime<Utc>,
    report: Report,
}

impl Writing<'_> {
    async fn write(
        &mut self,
        wanted: BTreeMap<Network, Wish>,
        whole: bool,
        actor: &Actor,
        imported: &mut Imported,
    ) -> Result<(), DbError> {
        let held = self.table.of_origin(self.conn, self.origin).await?;
        // A row that has ended is another entry: who made it, and when, is not true of this one.
        let (ended, held): (Vec<Entry>, Vec<Entry>) =
            held.into_iter().partition(|row| row.expires_at.is_some_and(|ends| ends <= self.at));
        let mut version = self.take_away(ended, Op::Ended).await?;
        let mut held: HashMap<Network, Entry> =
            held.into_iter().map(|row| (row.network, row)).collect();
        let (mut new, mut other) = (Vec::new(), BTreeMap::<(String, _), Vec<Entry>>::new());
        let all = wanted.len();
        for (network, wish) in wanted {
            match held.remove(&network) {
                None => new.push(NewEntry {
                    network,
                    reason: wish.reason.unwrap_or_default(),
                    origin: self.origin.to_owned(),
                    created_by: actor.name.clone(),
                    created_at: self.at,
                    expires_at: wish.ends,
                }),
                Some(row) => {
                    let reason = wish.reason.unwrap_or_else(|| row.reason.clone());
                    if reason != row.reason || wish.ends != row.expires_at {
                        other.entry((reason, wish.ends)).or_default().push(row);
                    }
                }
            }
        }
        imported.added = new.len();
        imported.updated = other.values().map(Vec::len).sum();
        imported.unchanged = all - imported.added - imported.updated;
        if whole {
            imported.removed = held.len();
            let gone = held.into_values().collect();
            version = self.take_away(gone, Op::Removed).await?.or(version);
        }
        let mut set = Vec::with_capacity(imported.added + imported.updated);
        let mut through = imported.unchanged;
        (self.report)(through);
        for ((reason, ends), rows) in other {
            let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
            self.table.update(self.conn, &ids, &reason, ends).await?;
            set.extend(rows.iter().map(|row| row.network));
            through += rows.len();
            (self.report)(through);
        }
        let mut new = new.into_iter().peekable();
        while new.peek().is_some() {
            let some: Vec<NewEntry> = new.by_ref().take(AT_ONCE).collect();
            set.extend(some.iter().map(|row| row.network));
            through += some.len();
            self.table.insert(self.conn, some).await?;
            (self.report)(through);
        }
        let last = record(self.conn, self.table.list(), Op::Set, &set, self.at).await?;
        imported.version = last.or(version);
        Ok(())
    }

    async fn take_away(&mut self, rows: Vec<Entry>, op: Op) -> Result<Option<i64>, DbError> {
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        self.table.delete(self.conn, &ids).await?;
        let networks: Vec<Network> = rows.iter().map(|row| row.network).collect();
        record(self.conn, self.table.list(), op, &networks, self.at).await
    }
}

async fn audit(
    conn: &mut Conn,
    table: Table,
    import: &Import,
    actor: &Actor,
    imported: &Imported,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    let list = match table {
        Table::Blocked => "blocklist",
        Table::Allowed => "allowlist",
    };
    let details = json!({
        "list": list,
        "source": import.source,
        "counts": imported,
        "forced": import.refused == OnRefused::Force,
        "from": actor.address,
    });
    audit_log::insert(conn, at, &actor.name, "import", &import.origin, details).await
}
