//! The statements that both lists have, by the name of the list.

use chrono::{DateTime, Utc};
use ipwarden_engine::network::Network;

use crate::db::entries::{Entry, NewEntry, Put};
use crate::db::list_changes::List;
use crate::db::{Conn, DbError, allowed_ips, blocked_ips};

/// One of the two lists of networks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Blocked,
    Allowed,
}

macro_rules! of_table {
    ($table:expr, $statement:ident($($argument:expr),*)) => {
        match $table {
            Table::Blocked => blocked_ips::$statement($($argument),*).await,
            Table::Allowed => allowed_ips::$statement($($argument),*).await,
        }
    };
}

impl Table {
    pub(super) fn list(self) -> List {
        match self {
            Table::Blocked => List::Blocked,
            Table::Allowed => List::Allowed,
        }
    }

    pub(super) async fn put(self, c: &mut Conn, new: NewEntry) -> Result<(Entry, Put), DbError> {
        of_table!(self, put(c, new))
    }

    pub(super) async fn insert(self, c: &mut Conn, new: Vec<NewEntry>) -> Result<(), DbError> {
        of_table!(self, insert(c, new))
    }

    pub(super) async fn of_origin(self, c: &mut Conn, of: &str) -> Result<Vec<Entry>, DbError> {
        of_table!(self, of_origin(c, of))
    }

    pub(super) async fn update(
        self,
        c: &mut Conn,
        ids: &[i64],
        reason: &str,
        ends: Option<DateTime<Utc>>,
    ) -> Result<(), DbError> {
        of_table!(self, update(c, ids, reason, ends))
    }

    pub(super) async fn delete(self, c: &mut Conn, ids: &[i64]) -> Result<(), DbError> {
        of_table!(self, delete(c, ids))
    }

    pub(super) async fn of(self, c: &mut Conn, network: Network) -> Result<Vec<Entry>, DbError> {
        of_table!(self, of(c, network))
    }

    pub(super) async fn remove(self, c: &mut Conn, of: Network) -> Result<Vec<Entry>, DbError> {
        of_table!(self, remove(c, of))
    }

    pub(super) async fn prune_of(
        self,
        c: &mut Conn,
        network: Network,
        now: DateTime<Utc>,
    ) -> Result<usize, DbError> {
        of_table!(self, prune_of(c, network, now))
    }

    /// The networks of entries that hold `network`, itself included, the widest first.
    pub(super) async fn holding(
        self,
        c: &mut Conn,
        network: Network,
        now: DateTime<Utc>,
    ) -> Result<Vec<Network>, DbError> {
        Ok(networks(of_table!(self, covering(c, network, now))?))
    }

    /// The networks of wider entries, the widest first.
    pub(super) async fn wider(
        self,
        c: &mut Conn,
        network: Network,
        now: DateTime<Utc>,
    ) -> Result<Vec<Network>, DbError> {
        let mut wider = self.holding(c, network, now).await?;
        wider.retain(|other| *other != network);
        Ok(wider)
    }

    /// The networks of at most `limit` narrower entries.
    pub(super) async fn narrower(
        self,
        c: &mut Conn,
        network: Network,
        now: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Network>, DbError> {
        // The network itself may stand there once for each origin.
        let rows = i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(4);
        let inside = of_table!(self, inside(c, network, now, rows))?;
        let mut narrower = networks(inside);
        narrower.retain(|other| *other != network);
        narrower.truncate(limit);
        Ok(narrower)
    }
}

/// Each network once, though it may have several origins.
fn networks(entries: Vec<Entry>) -> Vec<Network> {
    let mut networks: Vec<_> = entries.into_iter().map(|entry| entry.network).collect();
    networks.dedup();
    networks
}
