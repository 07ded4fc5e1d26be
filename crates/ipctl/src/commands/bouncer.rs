//! `ipctl bouncer`.

use chrono::{DateTime, Utc};
use ipwarden_core::bouncers::{self, AddError, Listed};
use ipwarden_core::db::api_keys::ApiKey;
use serde::Serialize;

use super::key::confirmed;
use super::rows::{number, plain, prose, untinted};
use crate::cli::{BouncerAdd, BouncerDelete};
use crate::failure::Failure;
use crate::invocation::{Invocation, actor, tell};
use crate::output::{Column, Object, Row, Tint, bounded, clean, time};

pub(super) async fn add(given: Invocation, args: BouncerAdd) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let added = bouncers::add(&opened.db, args.name, actor(), given.now).await;
    let (row, key, version) = added.map_err(|error| match error {
        AddError::Taken(_) => Failure::other(clean(&error.to_string())),
        AddError::Store(error) => error.into(),
    })?;
    if opened.db.is_rehearsal() {
        // A key that does not work is shown to nobody.
        tell(format!("would make a key for the bouncer {}", clean(&row.name)));
        return Ok(());
    }
    opened.announce(Some(version)).await;
    let added = Added { row, key };
    // Nothing but the key, so that `KEY=$(ipctl bouncer add edge)` holds it.
    given.out.one(&added, || added.key.clone())?;
    tell(format!(
        "this is the only time the key is shown; give the bouncer it as its API key and http://{}/ as its \
         API URL; end it with `ipctl bouncer delete {}`",
        opened.config.gate.bind.map_or_else(|| "GATE".to_owned(), |bind| bind.to_string()),
        clean(&added.row.name)
    ));
    Ok(())
}

pub(super) async fn list(given: Invocation) -> Result<(), Failure> {
    let opened = given.open().await?;
    let rows = bouncers::list(&opened.db).await?;
    Ok(given
        .out
        .rows(&rows, "there are no bouncers; `ipctl bouncer add NAME` makes a key for one")?)
}

pub(super) async fn delete(given: Invocation, args: BouncerDelete) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let named = bouncers::list(&opened.db).await?;
    let name = clean(&args.name);
    if !named.iter().any(|one| one.name == args.name || one.id == args.name) {
        return Err(Failure::other(format!(
            "no bouncer is called {name}; `ipctl bouncer list` shows them"
        )));
    }
    if !args.yes && !args.rehearsal.dry_run && !confirmed(&format!("delete the bouncer {name}?"))? {
        return Err(Failure::other("not confirmed, and not deleted"));
    }
    let (ended, version) = bouncers::delete(&opened.db, args.name, actor(), given.now).await?;
    opened.announce(version).await;
    let deleted: Vec<Deleted> =
        ended.into_iter().map(|key| Deleted { id: key.id, name: key.name }).collect();
    given.out.each(&deleted, |one| {
        format!("deleted {} ({}); its key is refused from now on", clean(&one.name), one.id)
    })?;
    Ok(())
}

#[derive(Serialize)]
struct Added {
    #[serde(flatten)]
    row: ApiKey,
    key: String,
}

impl Object for Added {
    const FIELDS: &'static [&'static str] = &["id", "name", "created_by", "created_at", "key"];
}

#[derive(Serialize)]
struct Deleted {
    id: String,
    name: String,
}

impl Object for Deleted {
    const FIELDS: &'static [&'static str] = &["id", "name"];
}

impl Object for Listed {
    const FIELDS: &'static [&'static str] = &[
        "id",
        "name",
        "address",
        "type",
        "version",
        "created_by",
        "created_at",
        "last_pull",
        "applied",
    ];
}

impl Row for Listed {
    const COLUMNS: &'static [Column] = &[
        prose("NAME"),
        plain("ADDRESS"),
        plain("TYPE"),
        plain("VERSION"),
        plain("LAST PULL"),
        number("APPLIES"),
        plain("KEY"),
    ];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let word = |text: &Option<String>| bounded(&clean(text.as_deref().unwrap_or("-")), 32);
        untinted([
            clean(&self.name),
            self.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            word(&self.kind),
            word(&self.version),
            self.last_pull.map_or_else(|| "never".to_owned(), time),
            self.applied.map_or_else(|| "-".to_owned(), |applied| applied.to_string()),
            self.id.clone(),
        ])
    }
}
