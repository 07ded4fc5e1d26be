//! `ipctl logs`.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_core::db::request_logs::{self, Cursor, Filter, Logged};
use ipwarden_core::db::{Db, DbError};

use crate::cli::{Logs, resolve};
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::now;
use crate::output::Listing;

/// Rows of one look at the store.
const PAGE: i64 = 1_000;

/// Between two looks while following.
const PAUSE: Duration = Duration::from_millis(500);

/// How late a record may come into the store and still be shown while following.
const LATE: TimeDelta = TimeDelta::seconds(10);

pub(super) async fn run(given: Invocation, args: Logs) -> Result<(), Failure> {
    let filter = Filter {
        network: args.ip,
        path_prefix: args.path,
        verdict: args.verdict.map(|verdict| verdict.as_str().to_owned()),
        since: resolve(args.since, given.now),
        until: resolve(args.until, given.now),
        ..Filter::default()
    };
    let opened = given.open().await?;
    let mut listing = given.out.listing();
    let mut shown = Shown::default();
    if args.follow {
        // What the limit leaves out must not come as news.
        let recent = since(&filter, now() - LATE);
        shown.add(&newest(&opened.db, &recent, i64::MAX).await?);
    }
    let mut rows = newest(&opened.db, &filter, i64::from(args.limit)).await?;
    rows.reverse();
    for page in rows.chunks(1_000) {
        listing.page(page)?;
    }
    shown.add(&rows);
    if args.follow {
        tokio::select! {
            ended = follow(&opened.db, &filter, shown, &mut listing) => ended?,
            // The usual end.
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    Ok(listing.end("no request is on record that fits")?)
}

/// Records that need not be shown again.
#[derive(Default)]
struct Shown(HashMap<i64, DateTime<Utc>>);

impl Shown {
    fn add(&mut self, rows: &[Logged]) {
        self.0.extend(rows.iter().map(|row| (row.id, row.at)));
    }

    fn forget_before(&mut self, horizon: DateTime<Utc>) {
        self.0.retain(|_, at| *at >= horizon);
    }
}

fn since(filter: &Filter, horizon: DateTime<Utc>) -> Filter {
    let since = filter.since.map_or(horizon, |since| since.max(horizon));
    Filter { since: Some(since), ..filter.clone() }
}

/// Up to `limit` records, the newest first.
async fn newest(db: &Db, filter: &Filter, limit: i64) -> Result<Vec<Logged>, DbError> {
    let mut all: Vec<Logged> = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let left = limit - i64::try_from(all.len()).unwrap_or(limit);
        if left <= 0 {
            return Ok(all);
        }
        let (filter, wanted) = (filter.clone(), left.min(PAGE));
        let page = db.run(move |conn| {
            async move { request_logs::page(conn, &filter, after, wanted).await }.boxed()
        });
        let page = page.await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some((last.at, last.id));
        all.extend(page);
    }
}

/// Shows what is recorded from here on. Records come into the store a little out of order, so each
/// look goes back a little and leaves out what was shown.
async fn follow(
    db: &Db,
    filter: &Filter,
    mut shown: Shown,
    listing: &mut Listing<Logged>,
) -> Result<(), Failure> {
    loop {
        let horizon = now() - LATE;
        let mut rows = newest(db, &since(filter, horizon), i64::MAX).await?;
        rows.retain(|row| !shown.0.contains_key(&row.id));
        rows.reverse();
        listing.page(&rows)?;
        shown.forget_before(horizon);
        shown.add(&rows);
        tokio::time::sleep(PAUSE).await;
    }
}
