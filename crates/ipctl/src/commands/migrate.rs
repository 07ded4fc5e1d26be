//! `ipctl migrate`.

use ipwarden_core::db::DbError;
use serde::Serialize;

use crate::cli::Migrate;
use crate::failure::Failure;
use crate::invocation::{Invocation, Opened};
use crate::output::Object;
use crate::progress;

pub(super) async fn run(given: Invocation, args: Migrate) -> Result<(), Failure> {
    let opened = given.open_unchecked().await?;
    if args.rehearsal.dry_run {
        return rehearse(&given, &opened).await;
    }
    let bar = progress::of_waiting("applying what is missing");
    let applied = opened.db.migrate().await;
    bar.finish_and_clear();
    let migrated = Migrated { applied: applied? };
    let store = opened.config.store_url();
    given.out.one(&migrated, || match &migrated.applied[..] {
        [] => format!("{store} is up to date"),
        applied => format!("{store}: applied {}", applied.join(", ")),
    })?;
    Ok(())
}

async fn rehearse(given: &Invocation, opened: &Opened) -> Result<(), Failure> {
    let applied = match opened.db.check_schema().await {
        Ok(()) => Vec::new(),
        Err(DbError::OldSchema { missing }) => missing,
        Err(error) => return Err(error.into()),
    };
    let (store, migrated) = (opened.config.store_url(), Migrated { applied });
    given.out.one(&migrated, || match &migrated.applied[..] {
        [] => format!("{store} is up to date"),
        missing => format!("{store}: would apply {}", missing.join(", ")),
    })?;
    Ok(())
}

#[derive(Serialize)]
struct Migrated {
    applied: Vec<String>,
}

impl Object for Migrated {
    const FIELDS: &'static [&'static str] = &["applied"];
}
