//! `ipctl allow`.

use ipwarden_core::lists::{self, MANUAL, Request};

use super::block::{sentence, warn_of};
use crate::cli::Allow;
use crate::failure::Failure;
use crate::invocation::{Invocation, actor};

pub(super) async fn run(given: Invocation, args: Allow) -> Result<(), Failure> {
    let request = Request {
        targets: args.targets.read()?,
        term: args.circumstances.term,
        reason: args.circumstances.reason,
        origin: MANUAL.to_owned(),
        force: false,
    };
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let done = lists::allow(&opened.db, request, actor(), opened.rails(), given.now).await?;
    opened.announce(done.version).await;
    given.out.each(&done.outcomes, |outcome| sentence(outcome, "allowed"))?;
    warn_of(done.outcomes.iter().flat_map(|outcome| &outcome.notices));
    Ok(())
}
