//! What a shell offers while a command is typed: besides commands and flags, what there is in the store.
//!
//! The script of `ipctl completions` asks this program for every word, by the variable `COMPLETE`. An answer
//! comes soon or not at all, and never with an error: somebody is typing. The store is that of the
//! configuration and the environment, since the flags of an unfinished line are not known here.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Command, CommandFactory};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use futures_util::FutureExt;
use ipwarden_core::config;
use ipwarden_core::context::open_store;
use ipwarden_core::db::entries::Entry;
use ipwarden_core::db::suspicious_ips::{self, Status};
use ipwarden_core::db::{Conn, Create, DbError, allowed_ips, api_keys, blocked_ips, users};

use crate::cli::Cli;
use crate::now;
use crate::output::clean;

/// Longer nobody waits for a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// The newest so many are offered.
const MOST: i64 = 1_000;

/// What may stand in the place of an argument.
#[derive(Clone, Copy)]
enum What {
    Blocked,
    Allowed,
    OpenFindings,
    Keys,
    Bouncers,
    Users,
}

/// Commands, their arguments, and what is offered for these.
const OFFERS: [(&[&str], &str, What); 7] = [
    (&["unblock"], "targets", What::Blocked),
    (&["disallow"], "targets", What::Allowed),
    (&["review"], "id", What::OpenFindings),
    (&["key", "revoke"], "id", What::Keys),
    (&["bouncer", "delete"], "name", What::Bouncers),
    (&["user", "remove"], "name", What::Users),
    (&["user", "passwd"], "name", What::Users),
];

/// The command line with what is offered for its arguments.
pub(crate) fn command() -> Command {
    OFFERS.into_iter().fold(Cli::command(), |command, (path, argument, what)| {
        with_offer(command, path, argument, what)
    })
}

fn with_offer(
    command: Command,
    path: &'static [&'static str],
    argument: &'static str,
    what: What,
) -> Command {
    match path {
        [] => command.mut_arg(argument, |argument| {
            argument.add(ArgValueCandidates::new(move || offered(what).unwrap_or_default()))
        }),
        [first, rest @ ..] => {
            command.mut_subcommand(first, |command| with_offer(command, rest, argument, what))
        }
    }
}

fn offered(what: What) -> Option<Vec<CompletionCandidate>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = async {
        let config = config::load_with_flags(None, config::process_environment(), &[]).ok()?.config;
        let db = open_store(&config, Create::Never).await.ok()?;
        db.run(move |conn| there_are(conn, what, now()).boxed()).await.ok()
    };
    let all = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.ok()? });
    runtime.shutdown_background();
    let candidate = |(value, help): (String, String)| {
        CompletionCandidate::new(value).help(Some(clean(&help).into()))
    };
    Some(all?.into_iter().map(candidate).collect())
}

/// What there is, each with a few words about it.
async fn there_are(
    conn: &mut Conn,
    what: What,
    now: DateTime<Utc>,
) -> Result<Vec<(String, String)>, DbError> {
    let entry = |entry: Entry| (entry.network.to_string(), entry.reason);
    Ok(match what {
        What::Blocked => {
            blocked_ips::page(conn, None, MOST, now).await?.into_iter().map(entry).collect()
        }
        What::Allowed => {
            allowed_ips::page(conn, None, MOST, now).await?.into_iter().map(entry).collect()
        }
        What::OpenFindings => suspicious_ips::page(conn, Some(Status::Open), None, MOST)
            .await?
            .into_iter()
            .map(|found| {
                (found.id.to_string(), format!("{} {}", found.address, found.rule.as_str()))
            })
            .collect(),
        What::Keys => api_keys::all(conn)
            .await?
            .into_iter()
            .filter(|key| key.revoked_at.is_none())
            .map(|key| (key.id, key.name))
            .collect(),
        What::Bouncers => ipwarden_core::bouncers::live(conn)
            .await?
            .into_iter()
            .map(|key| (key.name, key.id))
            .collect(),
        What::Users => {
            users::all(conn).await?.into_iter().map(|user| (user.name, user.role)).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_offer_is_for_an_argument_that_there_is() {
        super::command().debug_assert();
    }
}
