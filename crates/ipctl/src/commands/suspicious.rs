//! `ipctl list-suspicious`.

use futures_util::FutureExt;
use ipwarden_core::db::suspicious_ips;

use super::rows::Suspicious;
use crate::cli::{ListSuspicious, StatusFilter};
use crate::failure::Failure;
use crate::invocation::Invocation;

/// Rows of one look at the store.
const PAGE: i64 = 500;

pub(super) async fn run(given: Invocation, args: ListSuspicious) -> Result<(), Failure> {
    let opened = given.open().await?;
    let status = args.status.status();
    let mut listing = given.out.listing();
    let mut left = args.limit.map_or(i64::MAX, i64::from);
    let mut before = None;
    while left > 0 {
        let limit = left.min(PAGE);
        let page =
            opened.db.run(move |conn| suspicious_ips::page(conn, status, before, limit).boxed());
        let rows: Vec<Suspicious> = page.await?.into_iter().map(Suspicious::from).collect();
        let Some(last) = rows.last() else { break };
        before = Some(last.row.id);
        left -= i64::try_from(rows.len()).unwrap_or(left);
        listing.page(&rows)?;
    }
    Ok(listing.end(match args.status {
        StatusFilter::Open => "nothing is up for review",
        StatusFilter::Blocked | StatusFilter::Dismissed | StatusFilter::All => "nothing was found",
    })?)
}
