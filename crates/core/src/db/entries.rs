//! What `blocked_ips` and `allowed_ips` have in common: networks with an origin and an end.
//!
//! There is one row per (network, origin). The two tables have the same columns and the same
//! statements; the macro makes a module of them for each.

mod table;

use chrono::{DateTime, Utc};
use ipwarden_engine::network::Network;
use serde::Serialize;

pub(super) use self::table::entries_table;

/// A row of either list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Of the row, never used twice.
    pub id: i64,
    /// Canonical.
    pub network: Network,
    /// Why, in somebody's words.
    pub reason: String,
    /// `manual`, `scan`, `import`, `list:NAME`.
    pub origin: String,
    /// Who.
    pub created_by: String,
    /// By the store's clock.
    pub created_at: DateTime<Utc>,
    /// By the store's clock; `None` never ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A row to be.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    /// Canonical.
    pub network: Network,
    /// Why, in somebody's words.
    pub reason: String,
    /// `manual`, `scan`, `import`, `list:NAME`.
    pub origin: String,
    /// Who.
    pub created_by: String,
    /// By the store's clock.
    pub created_at: DateTime<Utc>,
    /// By the store's clock; `None` never ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What the guard needs to know of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listed {
    /// Canonical.
    pub network: Network,
    /// Whether the scan put it there.
    pub by_scan: bool,
    /// By the store's clock; `None` never ends.
    pub expires_at: Option<DateTime<Utc>>,
}

impl From<&Entry> for Listed {
    fn from(row: &Entry) -> Listed {
        Listed { network: row.network, by_scan: row.origin == SCAN, expires_at: row.expires_at }
    }
}

/// What became of a row that was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Put {
    /// There was none of this network and origin.
    Created,
    /// Its end or reason changed.
    Updated,
    /// It was so already.
    Unchanged,
}

/// Rows of one statement; SQLite takes 32,766 parameters, of which a row has six.
pub const AT_ONCE: usize = 1_000;

/// The origin of what comes of a finding, and who blocks without a person.
pub const SCAN: &str = "scan";
