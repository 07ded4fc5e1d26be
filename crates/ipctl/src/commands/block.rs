//! `ipctl block`.

use ipwarden_core::db::entries::Put;
use ipwarden_core::lists::{self, MANUAL, Notice, Outcome, Request};

use crate::cli::Block;
use crate::failure::Failure;
use crate::invocation::{Invocation, actor, warn};
use crate::output::{Object, clean, until};

pub(super) async fn run(given: Invocation, args: Block) -> Result<(), Failure> {
    let request = Request {
        targets: args.targets.read()?,
        term: args.circumstances.term,
        reason: args.circumstances.reason,
        origin: MANUAL.to_owned(),
        force: args.force,
    };
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let done = lists::block(&opened.db, request, actor(), opened.rails(), given.now).await?;
    opened.announce(done.version).await;
    given.out.each(&done.outcomes, |outcome| sentence(outcome, "blocked"))?;
    warn_of(done.outcomes.iter().flat_map(|outcome| &outcome.notices));
    Ok(())
}

impl Object for Outcome {
    const FIELDS: &'static [&'static str] = &[
        "network",
        "put",
        "id",
        "reason",
        "origin",
        "created_by",
        "created_at",
        "expires_at",
        "notices",
    ];
}

/// What became of one target of `block` or `allow`.
pub(super) fn sentence(outcome: &Outcome, done: &str) -> String {
    let entry = &outcome.entry;
    let (network, end) = (entry.network, until(entry.expires_at));
    match (outcome.put, &outcome.before) {
        (Put::Created, _) => format!("{done} {network} {end}"),
        (Put::Updated, Some(before)) => {
            let mut news = Vec::new();
            let end_before = until(before.expires_at);
            if end_before != end {
                news.push(format!("now {end} (was {end_before})"));
            }
            if before.reason != entry.reason {
                news.push(format!("now because of \"{}\"", clean(&entry.reason)));
            }
            if news.is_empty() {
                news.push(end);
            }
            format!("{network} was already {done}, {}", news.join(", "))
        }
        (Put::Updated | Put::Unchanged, _) => format!("{network} was already {done}, {end}"),
    }
}

/// Says what an operator should know, beside the data.
pub(super) fn warn_of<'a>(notices: impl Iterator<Item = &'a Notice>) {
    notices.for_each(warn);
}
