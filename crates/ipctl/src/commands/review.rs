//! `ipctl review`.

use ipwarden_core::lists::{self, Judgement, Reviewed};

use super::block::warn_of;
use crate::cli::Review;
use crate::failure::Failure;
use crate::invocation::{Invocation, actor};
use crate::output::{Object, until};

pub(super) async fn run(given: Invocation, args: Review) -> Result<(), Failure> {
    let judgement = match args.dismiss {
        true => Judgement::Dismiss,
        false => Judgement::Block { term: args.term, reason: args.reason, force: args.force },
    };
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let (rails, now) = (opened.rails(), given.now);
    let reviewed = lists::review(&opened.db, args.id, judgement, actor(), rails, now).await?;
    opened.announce(reviewed.version).await;
    given.out.one(&reviewed, || sentence(&reviewed))?;
    warn_of(reviewed.block.iter().flat_map(|outcome| &outcome.notices));
    Ok(())
}

impl Object for Reviewed {
    const FIELDS: &'static [&'static str] = &[
        "id",
        "address",
        "rule",
        "status",
        "first_seen",
        "last_seen",
        "hits",
        "reviewed_by",
        "reviewed_at",
        "already",
        "block",
    ];
}

fn sentence(reviewed: &Reviewed) -> String {
    let (id, address) = (reviewed.finding.id, reviewed.finding.address);
    let status = reviewed.finding.status.as_str();
    match (&reviewed.block, reviewed.already) {
        (_, true) => format!("finding {id} ({address}) was already {status}"),
        (Some(outcome), false) => {
            let end = until(outcome.entry.expires_at);
            format!("finding {id}: {address} is blocked {end}")
        }
        (None, false) => format!("finding {id}: {address} is dismissed for 30 days"),
    }
}
