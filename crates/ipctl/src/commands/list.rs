//! `ipctl list-blocked` and `ipctl list-allowed`.

use futures_util::FutureExt;
use ipwarden_core::db::list_changes::List as Which;
use ipwarden_core::db::{allowed_ips, blocked_ips};

use crate::cli::List;
use crate::failure::Failure;
use crate::invocation::Invocation;

/// Rows of one look at the store.
const PAGE: i64 = 1_000;

pub(super) async fn blocked(given: Invocation, args: List) -> Result<(), Failure> {
    list(given, args, Which::Blocked, "nobody is blocked").await
}

pub(super) async fn allowed(given: Invocation, args: List) -> Result<(), Failure> {
    list(given, args, Which::Allowed, "nobody is on the allowlist").await
}

async fn list(given: Invocation, args: List, which: Which, nothing: &str) -> Result<(), Failure> {
    let opened = given.open().await?;
    let mut listing = given.out.listing();
    let mut left = args.limit.map_or(i64::MAX, i64::from);
    let (mut before, now) = (None, given.now);
    while left > 0 {
        let limit = left.min(PAGE);
        let page = opened.db.run(move |conn| {
            async move {
                let at = conn.clock(now).await?;
                match which {
                    Which::Allowed => allowed_ips::page(conn, before, limit, at).await,
                    _ => blocked_ips::page(conn, before, limit, at).await,
                }
            }
            .boxed()
        });
        let rows = page.await?;
        let Some(last) = rows.last() else { break };
        before = Some(last.id);
        left -= i64::try_from(rows.len()).unwrap_or(left);
        listing.page(&rows)?;
    }
    Ok(listing.end(nothing)?)
}
