//! `ipctl export`: the rows of a list, as they are imported again; what enforces them is in
//! [`export_rules`].

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_core::db::entries::Entry;
use ipwarden_core::db::list_changes::List;
use ipwarden_core::db::{Db, DbError, allowed_ips, blocked_ips};
use ipwarden_engine::network::Network;

use super::export_rules::{self, Program};
use crate::cli::{ExportAllowlist, ExportBlocklist, ExportFormat, RowsFormat};
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::{Data, Format};

/// Rows of one look at the store.
const PAGE: i64 = 5_000;

pub(super) async fn blocklist(given: Invocation, args: ExportBlocklist) -> Result<(), Failure> {
    let rows = |format| export(&given, format, args.list.clone(), List::Blocked);
    let program = match args.format {
        None => return rows(None).await,
        Some(ExportFormat::Plain) => return rows(Some(RowsFormat::Plain)).await,
        Some(ExportFormat::Csv) => return rows(Some(RowsFormat::Csv)).await,
        Some(ExportFormat::Json) => return rows(Some(RowsFormat::Json)).await,
        Some(ExportFormat::Nft) => Program::Nft,
        Some(ExportFormat::Ipset) => Program::Ipset,
        Some(ExportFormat::Nginx) => Program::Nginx,
        Some(ExportFormat::Haproxy) => Program::Haproxy,
        Some(ExportFormat::Caddy) => Program::Caddy,
    };
    if args.list.is_some() {
        return Err(Failure::Usage(
            "what a program enforces is the whole blocklist; --list is for plain, csv and json"
                .to_owned(),
        ));
    }
    export_rules::blocklist(given, program).await
}

pub(super) async fn allowlist(given: Invocation, args: ExportAllowlist) -> Result<(), Failure> {
    export(&given, args.format, args.list, List::Allowed).await
}

async fn export(
    given: &Invocation,
    format: Option<RowsFormat>,
    named: Option<String>,
    list: List,
) -> Result<(), Failure> {
    let opened = given.open().await?;
    let mut pages = Pages {
        db: &opened.db,
        list,
        origin: named.map(|name| format!("list:{name}")),
        before: None,
        now: given.now,
    };
    let format = format.unwrap_or(match given.out.format() {
        Format::Table => RowsFormat::Plain,
        Format::Csv => RowsFormat::Csv,
        Format::Json | Format::Jsonl => RowsFormat::Json,
    });
    match format {
        RowsFormat::Plain => plain(&mut pages).await,
        RowsFormat::Csv => objects(given, Format::Csv, &mut pages).await,
        // JSON lines are JSON that is read as well.
        RowsFormat::Json if given.out.format() == Format::Jsonl => {
            objects(given, Format::Jsonl, &mut pages).await
        }
        RowsFormat::Json => objects(given, Format::Json, &mut pages).await,
    }
}

/// All entries of a list that have not ended, the newest first.
struct Pages<'a> {
    db: &'a Db,
    list: List,
    /// Only those of this origin.
    origin: Option<String>,
    before: Option<i64>,
    now: DateTime<Utc>,
}

impl Pages<'_> {
    /// The next of them; `None` when all have been there.
    async fn next(&mut self) -> Result<Option<Vec<Entry>>, DbError> {
        let (list, before, now) = (self.list, self.before, self.now);
        let page = self.db.run(move |conn| {
            async move {
                let at = conn.clock(now).await?;
                match list {
                    List::Allowed => allowed_ips::page(conn, before, PAGE, at).await,
                    _ => blocked_ips::page(conn, before, PAGE, at).await,
                }
            }
            .boxed()
        });
        let mut rows = page.await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.before = Some(last.id);
        if let Some(origin) = &self.origin {
            rows.retain(|row| row.origin == *origin);
        }
        Ok(Some(rows))
    }
}

async fn plain(pages: &mut Pages<'_>) -> Result<(), Failure> {
    let mut networks: BTreeSet<Network> = BTreeSet::new();
    while let Some(rows) = pages.next().await? {
        networks.extend(rows.iter().map(|row| row.network));
    }
    let mut out = BufWriter::new(Data);
    for network in networks {
        writeln!(out, "{network}")?;
    }
    Ok(out.flush()?)
}

async fn objects(given: &Invocation, format: Format, pages: &mut Pages<'_>) -> Result<(), Failure> {
    let mut listing = given.out.formatted(format).listing();
    while let Some(rows) = pages.next().await? {
        listing.page(&rows)?;
    }
    Ok(listing.end("")?)
}
