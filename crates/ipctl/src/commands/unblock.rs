//! `ipctl unblock` and `ipctl disallow`.

use ipwarden_core::lists::{self, Done, Removal};

use super::block::warn_of;
use crate::cli::Unblock;
use crate::failure::Failure;
use crate::invocation::{Invocation, Opened, actor};
use crate::output::Object;

pub(super) async fn unblock(given: Invocation, args: Unblock) -> Result<(), Failure> {
    let targets = args.targets.read()?;
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let done = lists::unblock(&opened.db, targets, actor(), given.now).await?;
    tell(&given, &opened, done, "blocked").await
}

pub(super) async fn disallow(given: Invocation, args: Unblock) -> Result<(), Failure> {
    let targets = args.targets.read()?;
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let done = lists::disallow(&opened.db, targets, actor(), given.now).await?;
    tell(&given, &opened, done, "allowed").await
}

async fn tell(
    given: &Invocation,
    opened: &Opened,
    done: Done<Removal>,
    state: &str,
) -> Result<(), Failure> {
    opened.announce(done.version).await;
    given.out.each(&done.outcomes, |removal| match removal.removed.is_empty() {
        true => format!("{} was not {state}", removal.network),
        false => format!("{} is no longer {state}", removal.network),
    })?;
    warn_of(done.outcomes.iter().flat_map(|removal| &removal.notices));
    Ok(())
}

impl Object for Removal {
    const FIELDS: &'static [&'static str] = &["network", "removed", "notices"];
}
