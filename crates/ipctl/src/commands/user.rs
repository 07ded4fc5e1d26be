//! `ipctl user`.

use std::io::{self, IsTerminal, Read};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ipwarden_core::db::users as rows;
use ipwarden_core::db::{Conn, DbError};
use ipwarden_core::lists;
use ipwarden_core::users::{self, Passwords, fit_password};
use serde::Serialize;

use super::key::confirmed;
use crate::cli::{UserAdd, UserName, UserRemove};
use crate::failure::Failure;
use crate::invocation::{Invocation, Opened, actor, tell};
use crate::output::{Object, clean};
use crate::progress;

pub(super) async fn add(given: Invocation, args: UserAdd) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let name = args.name;
    let known = name.clone();
    let taken = opened.db.run(move |conn| async move { rows::find(conn, &known).await }.boxed());
    if taken.await?.is_some() {
        return Err(is_taken(&name));
    }
    let hash = hashed(given_password(&name)?).await?;
    let (wanted, role) = (name.clone(), args.role.role());
    let added = change(&opened, given.now, move |conn, at| {
        async move { users::add_in(conn, &wanted, role, hash, &actor(), at).await }.boxed()
    });
    let (row, version) = added.await?.ok_or_else(|| is_taken(&name))?;
    opened.announce(Some(version)).await;
    given.out.one(&row, || format!("added {} ({})", row.name, row.role))?;
    tell("signs in at /login of the public listener, and of the control listener");
    Ok(())
}

pub(super) async fn list(given: Invocation) -> Result<(), Failure> {
    let opened = given.open().await?;
    let rows = opened.db.run(|conn| rows::all(conn).boxed()).await?;
    Ok(given.out.rows(&rows, "there are no users; `ipctl user add NAME` makes one")?)
}

pub(super) async fn remove(given: Invocation, args: UserRemove) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let name = args.name;
    if !args.yes
        && !args.rehearsal.dry_run
        && !confirmed(&format!("remove the user {name}, and end all sessions?"))?
    {
        return Err(Failure::other("not confirmed, and not removed"));
    }
    let wanted = name.clone();
    let removed = change(&opened, given.now, move |conn, at| {
        async move { users::remove_in(conn, &wanted, &actor(), at).await }.boxed()
    });
    let version = removed.await?;
    opened.announce(version).await;
    let removed = Changed { name, already: version.is_none() };
    given.out.one(&removed, || match removed.already {
        true => format!("there is no user {}", removed.name),
        false => format!("removed {}", removed.name),
    })?;
    Ok(())
}

pub(super) async fn passwd(given: Invocation, args: UserName) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let name = args.name;
    let known = name.clone();
    let row = opened.db.run(move |conn| async move { rows::find(conn, &known).await }.boxed());
    if row.await?.is_none() {
        return Err(is_missing(&name));
    }
    let hash = hashed(given_password(&name)?).await?;
    let wanted = name.clone();
    let set = change(&opened, given.now, move |conn, at| {
        async move { users::set_password_in(conn, &wanted, hash, &actor(), at).await }.boxed()
    });
    let version = set.await?.ok_or_else(|| is_missing(&name))?;
    opened.announce(Some(version)).await;
    let changed = Changed { name, already: false };
    given.out.one(&changed, || {
        format!("{} has a new password; all sessions from before are over", changed.name)
    })?;
    Ok(())
}

/// A change of people, behind the lock that orders all changes.
async fn change<T, F>(opened: &Opened, now: DateTime<Utc>, body: F) -> Result<T, DbError>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut Conn, DateTime<Utc>) -> BoxFuture<'c, Result<T, DbError>>
        + Send
        + 'static,
{
    let changed = opened.db.transaction(move |conn| {
        async move {
            let at = lists::lock(conn, now).await?;
            body(conn, at).await
        }
        .boxed()
    });
    changed.await
}

/// The password: asked for twice on a terminal, without showing it; else the first line of standard
/// input. Never an argument, which everybody on the machine could read.
fn given_password(name: &str) -> Result<String, Failure> {
    let password = match io::stdin().is_terminal() {
        true => asked_for(name)?,
        false => {
            let mut text = String::new();
            // Much more than any password: what is longer is refused below.
            io::stdin().lock().take(16 << 10).read_to_string(&mut text)?;
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    let refused =
        |error| Failure::Usage(format!("{error}; write it to standard input, in one line"));
    fit_password(&password).map_err(refused)?;
    Ok(password)
}

fn asked_for(name: &str) -> Result<String, Failure> {
    progress::spoken();
    let asked = dialoguer::Password::new()
        .with_prompt(format!("new password of {name}"))
        .with_confirmation("once more", "they differ")
        .validate_with(|text: &String| fit_password(text).map_err(|error| error.to_string()))
        .interact();
    asked.map_err(|dialoguer::Error::IO(error)| match error.kind() {
        io::ErrorKind::Interrupted => Failure::other("interrupted, and nothing changed"),
        _ => Failure::other(format!("the password cannot be asked for: {error}")),
    })
}

async fn hashed(password: String) -> Result<String, Failure> {
    Passwords::default().hash(password).await.map_err(Failure::other)
}

fn is_taken(name: &str) -> Failure {
    Failure::other(format!(
        "the name {} is taken; `ipctl user passwd {name}` gives it another password",
        clean(name)
    ))
}

fn is_missing(name: &str) -> Failure {
    Failure::other(format!("no user is called {}; `ipctl user list` shows them", clean(name)))
}

#[derive(Serialize)]
struct Changed {
    name: String,
    already: bool,
}

impl Object for Changed {
    const FIELDS: &'static [&'static str] = &["name", "already"];
}
