//! `ipctl migrate`.

use serde::Serialize;

use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::Object;

pub(super) async fn run(given: Invocation) -> Result<(), Failure> {
    let opened = given.open_unchecked().await?;
    let migrated = Migrated { applied: opened.db.migrate().await? };
    let store = opened.config.store_url();
    given.out.one(&migrated, || match &migrated.applied[..] {
        [] => format!("{store} is up to date"),
        applied => format!("{store}: applied {}", applied.join(", ")),
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
