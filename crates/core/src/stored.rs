//! Everything that is stored about somebody, table by table, to be handed out.
//!
//! Read page by page, so that a million records need no more memory than a thousand. What has not left the
//! spools yet comes within a second; caches hold nothing that is not here.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::Network;
use serde::Serialize;
use serde_json::Value;

use crate::db::request_logs::Filter;
use crate::db::{
    Conn, Db, DbError, allowed_ips, blocked_ips, bouncers, list_changes, request_logs,
    request_tops, suspicious_ips,
};
use crate::forget;

/// Records of one look at the store.
const PAGE: i64 = 2_000;

/// A table in which something about somebody may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Requests.
    RequestLogs,
    /// Hours in which it was among the busiest.
    RequestTops,
    /// Findings about the address, or about a network around it that it was part of.
    SuspiciousIps,
    /// Blocks.
    BlockedIps,
    /// Entries of the allowlist.
    AllowedIps,
    /// How both lists changed of late.
    ListChanges,
    /// Bouncers that come from there.
    Bouncers,
    /// What operators did that names it.
    AuditLog,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 8] = [
        Table::RequestLogs,
        Table::RequestTops,
        Table::SuspiciousIps,
        Table::BlockedIps,
        Table::AllowedIps,
        Table::ListChanges,
        Table::Bouncers,
        Table::AuditLog,
    ];

    /// As the store calls it.
    pub fn name(self) -> &'static str {
        match self {
            Table::RequestLogs => "request_logs",
            Table::RequestTops => "request_tops",
            Table::SuspiciousIps => "suspicious_ips",
            Table::BlockedIps => "blocked_ips",
            Table::AllowedIps => "allowed_ips",
            Table::ListChanges => "list_changes",
            Table::Bouncers => "bouncers",
            Table::AuditLog => "audit_log",
        }
    }
}

/// Gives all rows of a table about `network` to `put`, some at a time.
///
/// # Errors
/// The store's, and those of `put`.
pub async fn rows<E: From<DbError>>(
    db: &Db,
    table: Table,
    network: Network,
    mut put: impl FnMut(Vec<Value>) -> Result<(), E>,
) -> Result<(), E> {
    let db = db.with_timeout(forget::BATCH_LIMIT);
    match table {
        Table::RequestLogs => records(&db, network, put).await,
        Table::AuditLog => {
            let mut after = 0;
            loop {
                let page =
                    db.run(move |conn| forget::audited(conn, network, after).boxed()).await?;
                let Some((last, rows)) = page else { return Ok(()) };
                after = last;
                put(values(&rows))?;
            }
        }
        _ => put(db.run(move |conn| few(conn, table, network).boxed()).await?),
    }
}

async fn records<E: From<DbError>>(
    db: &Db,
    network: Network,
    mut put: impl FnMut(Vec<Value>) -> Result<(), E>,
) -> Result<(), E> {
    let mut after = None;
    loop {
        let filter = Filter { network: Some(network), ..Filter::default() };
        let page = db.run(move |conn| {
            async move { request_logs::page(conn, &filter, after, PAGE).await }.boxed()
        });
        let rows = page.await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some((last.at, last.id));
        put(values(&rows))?;
    }
}

/// The rows of a table that has few about anybody.
async fn few(conn: &mut Conn, table: Table, network: Network) -> Result<Vec<Value>, DbError> {
    let (always, all) = (DateTime::<Utc>::UNIX_EPOCH, i64::MAX);
    Ok(match table {
        Table::SuspiciousIps => {
            let mut rows = values(&suspicious_ips::inside(conn, network).await?);
            rows.extend(values(&forget::findings_around(conn, network).await?));
            rows
        }
        Table::RequestTops => values(&request_tops::inside(conn, network).await?),
        Table::BlockedIps => values(&blocked_ips::inside(conn, network, always, all).await?),
        Table::AllowedIps => values(&allowed_ips::inside(conn, network, always, all).await?),
        Table::ListChanges => values(&list_changes::of(conn, network).await?),
        Table::Bouncers => values(&bouncers::inside(conn, network).await?),
        Table::RequestLogs | Table::AuditLog => Vec::new(),
    })
}

fn values<T: Serialize>(rows: &[T]) -> Vec<Value> {
    let value = |row| serde_json::to_value(row).expect("rows of the store have text for keys");
    rows.iter().map(value).collect()
}
