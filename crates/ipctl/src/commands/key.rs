//! `ipctl key`.

use std::io::{self, BufRead, IsTerminal, Write};

use futures_util::FutureExt;
use ipwarden_core::db::api_keys::{self, ApiKey};
use ipwarden_core::keys;
use serde::Serialize;

use crate::cli::{KeyCreate, KeyRevoke};
use crate::failure::Failure;
use crate::invocation::{Invocation, actor, tell};
use crate::output::{Object, clean};
use crate::progress;

pub(super) async fn create(given: Invocation, args: KeyCreate) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let (row, key, version) =
        keys::create(&opened.db, args.name, args.role, actor(), given.now).await?;
    if opened.db.is_rehearsal() {
        // A key that does not work is shown to nobody.
        tell(format!("would make a key for {} with the role {}", clean(&row.name), row.role));
        return Ok(());
    }
    opened.announce(Some(version)).await;
    let created = Created { row, key };
    // Nothing but the key, so that `KEY=$(ipctl key create shop)` holds it.
    given.out.one(&created, || created.key.clone())?;
    tell(format!(
        "this is the only time the key is shown; send it as `Authorization: Bearer ..`, end it \
         with `ipctl key revoke {}`",
        created.row.id
    ));
    Ok(())
}

pub(super) async fn list(given: Invocation) -> Result<(), Failure> {
    let opened = given.open().await?;
    let rows = opened.db.run(|conn| api_keys::all(conn).boxed()).await?;
    Ok(given.out.rows(&rows, "there are no keys; `ipctl key create NAME` makes one")?)
}

pub(super) async fn revoke(given: Invocation, args: KeyRevoke) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let id = args.id.clone();
    let found = opened.db.run(move |conn| async move { api_keys::find(conn, &id).await }.boxed());
    let Some(row) = found.await? else {
        let id = clean(&args.id);
        return Err(Failure::other(format!("no key has the id {id}; `ipctl key list` shows them")));
    };
    let question = format!("revoke the key {} ({}, {})?", row.id, row.role, clean(&row.name));
    if row.revoked_at.is_none() && !args.yes && !args.rehearsal.dry_run && !confirmed(&question)? {
        return Err(Failure::other("not confirmed, and not revoked"));
    }
    let version = keys::revoke(&opened.db, row.id.clone(), actor(), given.now).await?;
    opened.announce(version).await;
    let revoked = Revoked { id: row.id, name: row.name, already: version.is_none() };
    given.out.one(&revoked, || match revoked.already {
        true => format!("{} was already revoked", revoked.id),
        false => format!("revoked {} ({})", revoked.id, clean(&revoked.name)),
    })?;
    Ok(())
}

/// Asks on a terminal; where there is none, nobody could answer, and the command stands.
pub(super) fn confirmed(question: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(true);
    }
    progress::spoken();
    let mut ask = io::stderr().lock();
    write!(ask, "{question} [y/N] ")?;
    ask.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    row: ApiKey,
    key: String,
}

impl Object for Created {
    const FIELDS: &'static [&'static str] =
        &["id", "name", "role", "created_by", "created_at", "key"];
}

#[derive(Serialize)]
struct Revoked {
    id: String,
    name: String,
    already: bool,
}

impl Object for Revoked {
    const FIELDS: &'static [&'static str] = &["id", "name", "already"];
}
