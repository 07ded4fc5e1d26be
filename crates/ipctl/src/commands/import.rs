//! `ipctl import access-log`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ipwarden_core::import::{self, ImportError, Imported, Importer, Input};
use ipwarden_core::scan;
use ipwarden_engine::sensitive_path::SensitivePaths;
use serde::Serialize;

use super::{geo, scan as scan_command};
use crate::cli::ImportAccessLog;
use crate::failure::Failure;
use crate::invocation::{Invocation, actor, tell, warn};
use crate::now;
use crate::output::{Object, count, time};

pub(super) async fn run(given: Invocation, args: ImportAccessLog) -> Result<(), Failure> {
    let opened = given.open().await?;
    let geo = geo::open(&opened.config);
    let input = open(&args.file).await?;
    let name = input.name().to_owned();
    let by = actor().name;
    let importer = Importer {
        db: &opened.db,
        geo: &geo,
        sensitive: Arc::new(SensitivePaths::new(&opened.config.scan.sensitive_paths)),
        by: &by,
    };
    let bar = progress_bar(input.bytes());
    let imported = import::import(&importer, input, now, |progress| {
        bar.set_position(progress.read_bytes);
        bar.set_message(count(progress.records, "record", "records"));
    })
    .await;
    bar.finish_and_clear();
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
        let terms = scan_command::terms(&opened.config);
        let outcome = scan::run_touched(&opened.db, &terms, "ipctl", now).await?;
        match scan_command::finished(&opened, outcome).await {
            Ok(judged) => tell(scan_command::summary(&judged)),
            // The records are in, and the hourly scan finds their hours.
            Err(busy) => warn(format!("{busy}; the next hourly scan judges what was imported")),
        }
    }
    Ok(())
}

async fn open(file: &Path) -> Result<Input, Failure> {
    let name = file.display().to_string();
    let cannot = |error| Failure::other(format!("cannot read {name}: {error}"));
    if file == Path::new("-") {
        let copied = tokio::task::spawn_blocking(|| {
            Input::copy("standard input".to_owned(), io::stdin().lock())
        });
        return copied.await.map_err(io::Error::other).flatten().map_err(cannot);
    }
    Input::open(file).map_err(cannot)
}

fn failure(error: ImportError) -> Failure {
    match error {
        ImportError::Store(error) => Failure::Store(error),
        other => Failure::other(other),
    }
}

/// On standard error, if that is a terminal.
fn progress_bar(bytes: u64) -> ProgressBar {
    let style = "{wide_bar} {percent:>3}%  {msg}  {binary_bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("the template is well formed");
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    bar.with_style(style)
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
            text += &format!(", from {} to {} UTC", time(*first), time(*last));
        }
        if *unreadable > 0 {
            text += &format!("; {} could not be read", count(*unreadable, "line", "lines"));
        }
        text
    }
}
