//! `ipctl import blocklist` and `ipctl import allowlist`.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use indicatif::ProgressBar;
use ipwarden_core::list_file::{self, ListFileError, MOST_BYTES};
use ipwarden_core::lists::{self, IMPORT, Import, Imported, Item, ListError, OnRefused, Report};
use ipwarden_engine::target::Refused;
use serde::Serialize;

use super::block::warn_of;
use crate::cli::{ImportAllowlist, ImportBlocklist, ImportList};
use crate::download;
use crate::failure::Failure;
use crate::invocation::{Invocation, actor, warn};
use crate::output::{Object, count};
use crate::progress;

/// How many refused networks are told one by one.
const TOLD: usize = 10;

pub(super) async fn blocklist(given: Invocation, args: ImportBlocklist) -> Result<(), Failure> {
    let refused = match (args.force, args.skip_refused) {
        (true, _) => OnRefused::Force,
        (false, true) => OnRefused::Skip,
        (false, false) => OnRefused::Stop,
    };
    let opened = given.open().await?.rehearsing(&args.list.rehearsal);
    let import = read(args.list, refused).await?;
    let (rails, now, origin) = (opened.rails(), given.now, import.origin.clone());
    let (bar, report) = watch(&import);
    let done = lists::import_blocked(&opened.db, import, actor(), rails, now, report).await;
    bar.finish_and_clear();
    let imported = done.map_err(failure)?;
    opened.announce(imported.version).await;
    tell(&given, "blocked", origin, imported)
}

pub(super) async fn allowlist(given: Invocation, args: ImportAllowlist) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.list.rehearsal);
    let import = read(args.list, OnRefused::Force).await?;
    let (rails, now, origin) = (opened.rails(), given.now, import.origin.clone());
    let (bar, report) = watch(&import);
    let done = lists::import_allowed(&opened.db, import, actor(), rails, now, report).await;
    bar.finish_and_clear();
    let imported = done.map_err(failure)?;
    opened.announce(imported.version).await;
    tell(&given, "allowed", origin, imported)
}

/// Reads the whole list before anything is changed.
async fn read(args: ImportList, refused: OnRefused) -> Result<Import, Failure> {
    let (source, items) = items(&args).await?;
    if items.is_empty() && !args.allow_empty {
        return Err(Failure::Usage(format!(
            "{source} names no network, and nothing was changed; --allow-empty takes it all the same"
        )));
    }
    Ok(Import {
        items,
        whole: args.list.is_some(),
        origin: args.list.map_or_else(|| IMPORT.to_owned(), |name| format!("list:{name}")),
        term: args.circumstances.term,
        reason: args.circumstances.reason,
        refused,
        source,
    })
}

async fn items(args: &ImportList) -> Result<(String, Vec<Item>), Failure> {
    let format = args.format.map(list_file::Format::from);
    let source = args.source.clone();
    if download::is_url(&source) {
        let bar = progress::of_bytes(None);
        let mut bytes = Vec::new();
        let fetched = download::download(&source, MOST_BYTES, &mut bytes, &bar).await;
        bar.finish_and_clear();
        fetched?;
        let name = download::public(&source);
        let items = parsed(&name, &*bytes, format)?;
        return Ok((name, items));
    }
    // A pipe may take its time.
    let read = tokio::task::spawn_blocking(move || match source.as_str() {
        "-" => {
            let name = "standard input".to_owned();
            parsed(&name, io::stdin().lock(), format).map(|items| (name, items))
        }
        path => {
            let file = File::open(path)
                .map_err(|error| Failure::Usage(format!("cannot read {path}: {error}")))?;
            let bar = progress::of_bytes(file.metadata().ok().map(|metadata| metadata.len()));
            let items = parsed(path, bar.wrap_read(file), format);
            bar.finish_and_clear();
            items.map(|items| (path.to_owned(), items))
        }
    });
    read.await.map_err(|panic| Failure::other(format!("reading was cut short: {panic}")))?
}

fn parsed(
    name: &str,
    source: impl Read,
    format: Option<list_file::Format>,
) -> Result<Vec<Item>, Failure> {
    list_file::read(source, format).map_err(|error| {
        Failure::Usage(match error {
            ListFileError::Wrong(_) => format!("{name} has entries that are no networks\n{error}"),
            other => format!("nothing was changed: {name}: {other}"),
        })
    })
}

fn watch(import: &Import) -> (ProgressBar, Report) {
    let bar = progress::of_things(import.items.len() as u64);
    let shown = bar.clone();
    (bar, Arc::new(move |through| shown.set_position(through as u64)))
}

/// A long list may touch many networks that nobody blocks.
fn failure(error: ListError) -> Failure {
    let ListError::Refused(refused) = error else { return error.into() };
    let mut told: Vec<String> =
        refused.iter().take(TOLD).map(|why| why.reason().to_string()).collect();
    if refused.len() > TOLD {
        told.push(format!("and {} more", refused.len() - TOLD));
    }
    told.push("--skip-refused takes everything else, --force blocks these too".to_owned());
    Failure::Refused(told.join("\n"))
}

fn tell(
    given: &Invocation,
    state: &'static str,
    origin: String,
    imported: Imported,
) -> Result<(), Failure> {
    let summary = Summary { origin, state, imported };
    given.out.one(&summary, || summary.sentence())?;
    let Imported { refused, notices, skipped, .. } = &summary.imported;
    warn_of(notices.iter());
    for why in skipped {
        warn(format!("left out: {}", Refused::reason(why)));
    }
    if !skipped.is_empty() && *refused > skipped.len() {
        warn(format!("left out: {} more", refused - skipped.len()));
    }
    Ok(())
}

/// What came of an import.
#[derive(Serialize)]
struct Summary {
    origin: String,
    state: &'static str,
    #[serde(flatten)]
    imported: Imported,
}

impl Object for Summary {
    const FIELDS: &'static [&'static str] = &[
        "origin",
        "state",
        "added",
        "updated",
        "unchanged",
        "removed",
        "ended",
        "repeated",
        "refused",
    ];
}

impl Summary {
    fn sentence(&self) -> String {
        let Summary { origin, state, imported } = self;
        let Imported { added, updated, unchanged, removed, ended, repeated, refused, .. } =
            imported;
        let all = count((added + updated + unchanged) as u64, "network is", "networks are");
        let mut text = format!("{origin}: {all} {state}: {added} new, {unchanged} as before");
        for (number, what) in [
            (updated, "with another end or reason"),
            (removed, "no longer in it"),
            (repeated, "named twice"),
            (ended, "ended before"),
            (refused, "refused by the guard rails"),
        ] {
            if *number > 0 {
                text += &format!(", {number} {what}");
            }
        }
        text
    }
}
