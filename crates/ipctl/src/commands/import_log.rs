//! `ipctl import access-log`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipwarden_core::access_log::Format;
use ipwarden_core::import::{self, ImportError, Imported, Importer, Input};
use ipwarden_engine::sensitive_path::SensitivePaths;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{geo, scan};
use crate::cli::ImportAccessLog;
use crate::failure::Failure;
use crate::invocation::{Invocation, actor, tell, warn};
use crate::now;
use crate::output::{Object, count, time};
use crate::progress;

pub(super) async fn run(given: Invocation, args: ImportAccessLog) -> Result<(), Failure> {
    let format = args.format.map(Format::from);
    if args.dry_run {
        return rehearse(&given, &args.file, format).await;
    }
    let opened = given.open().await?;
    let geo = geo::open(&opened.config);
    let (name, by) = (name_of(&args.file), actor().name);
    let importer = Importer {
        db: &opened.db,
        geo: &geo,
        sensitive: Arc::new(SensitivePaths::new(&opened.config.scan.sensitive_paths)),
        by: &by,
    };
    let imported = match args.follow {
        true => follow(&importer, &args.file, format).await,
        false => {
            let input = open(&args.file).await?.written_as(format);
            let bar = progress::of_bytes(Some(input.bytes()));
            let imported = import::import(&importer, input, now, |progress| {
                bar.set_position(progress.read_bytes);
                bar.set_message(count(progress.records, "record", "records"));
            })
            .await;
            bar.finish_and_clear();
            imported
        }
    };
    let imported = imported.map_err(failure)?;
    for line in &imported.told {
        warn(line);
    }
    if let Some(cause) = &imported.cut_short {
        warn(format!("{name} ends before its end: {cause}; what could be read is in"));
    }
    let summary = Summary::new(name, &imported);
    given.out.one(&summary, || summary.sentences())?;
    if imported.records > 0 {
        scan::judge_imported(&opened).await?;
    }
    Ok(())
}

/// Until the operator has had enough of it.
async fn follow(
    importer: &Importer<'_>,
    file: &Path,
    format: Option<Format>,
) -> Result<Imported, ImportError> {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let interrupted = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopped.cancel();
        }
    });
    let bar = progress::of_bytes(None);
    let imported = import::follow(
        importer,
        file,
        format,
        now,
        |progress| {
            bar.set_position(progress.read_bytes);
            bar.set_message(count(progress.records, "record", "records"));
        },
        stop,
    )
    .await;
    interrupted.abort();
    bar.finish_and_clear();
    imported
}

/// Reads all of it and records nothing.
async fn rehearse(given: &Invocation, file: &Path, format: Option<Format>) -> Result<(), Failure> {
    let input = open(file).await?.written_as(format);
    let name = input.name().to_owned();
    let bar = progress::of_bytes(Some(input.bytes()));
    let shown = bar.clone();
    let read =
        tokio::task::spawn_blocking(move || import::look(&input, |read| shown.set_position(read)));
    let read = read.await.map_err(io::Error::other).flatten();
    bar.finish_and_clear();
    let read = read.map_err(|error| Failure::other(format!("cannot read {name}: {error}")))?;
    for line in &read.told {
        warn(line);
    }
    tell("dry run: nothing is recorded; this is what the file holds");
    let summary = Summary::new(name, &read);
    given.out.one(&summary, || summary.sentences())?;
    Ok(())
}

fn name_of(file: &Path) -> String {
    match file == Path::new("-") {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    }
}

async fn open(file: &Path) -> Result<Input, Failure> {
    let name = name_of(file);
    let cannot = |error| Failure::other(format!("cannot read {name}: {error}"));
    if file == Path::new("-") {
        let copied = tokio::task::spawn_blocking(|| {
            Input::copy("standard input".to_owned(), io::stdin().lock())
        });
        return copied.await.map_err(io::Error::other).flatten().map_err(cannot);
    }
    Input::open(file).map_err(cannot)
}

pub(super) fn failure(error: ImportError) -> Failure {
    match error {
        ImportError::Store(error) => Failure::Store(error),
        other => Failure::other(other),
    }
}

/// What came of an import.
#[derive(Serialize)]
struct Summary {
    file: String,
    records: u64,
    known_lines: u64,
    unreadable: u64,
    first: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
}

impl Object for Summary {
    const FIELDS: &'static [&'static str] =
        &["file", "records", "known_lines", "unreadable", "first", "last"];
}

impl Summary {
    fn new(file: String, imported: &Imported) -> Summary {
        let &Imported { records, known_lines, unreadable, span, .. } = imported;
        let (first, last) = span.unzip();
        Summary { file, records, known_lines, unreadable, first, last }
    }

    fn sentences(&self) -> String {
        let Summary { file, records, known_lines, unreadable, first, last } = self;
        let known = count(*known_lines, "line", "lines");
        let mut text = match (records, known_lines) {
            (0, 0) => format!("{file}: nothing was added, it holds no requests"),
            (0, _) => format!("{file}: nothing was added, its {known} had been imported before"),
            (_, 0) => format!("{file}: added {}", count(*records, "record", "records")),
            (_, _) => format!(
                "{file}: added {}; {known} had been imported before",
                count(*records, "record", "records")
            ),
        };
        if let (Some(first), Some(last)) = (first, last) {
            text += &format!(", from {} to {}", time(*first), time(*last));
        }
        if *unreadable > 0 {
            text += &format!("; {} could not be read", count(*unreadable, "line", "lines"));
        }
        text
    }
}
