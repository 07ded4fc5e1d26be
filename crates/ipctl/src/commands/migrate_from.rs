//! `ipctl migrate-from`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipwarden_core::db::foreign::{Foreign, ForeignError};
use ipwarden_core::import::{self, Importer, Input};
use ipwarden_core::lists::{self, Import, Imported, OnRefused};
use ipwarden_core::migrate_from::django::{Django, DjangoError};
use ipwarden_core::migrate_from::{self, Blocks, LeftOut, crowdsec, fail2ban};
use ipwarden_engine::sensitive_path::SensitivePaths;
use serde::Serialize;

use super::rows::{number, plain, prose, untinted};
use super::{geo, scan};
use crate::cli::{FromCrowdsec, FromDjango, FromFail2ban};
use crate::failure::Failure;
use crate::invocation::{Invocation, Opened, actor};
use crate::now;
use crate::output::{Column, Object, Row, Tint, count};
use crate::progress;

/// The most that is read of a list of decisions, in bytes.
const MOST_BYTES: u64 = 256 << 20;

pub(super) async fn from_django(given: Invocation, args: FromDjango) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let foreign = Foreign::open(&args.url).await?;
    let django = Django::look(foreign, &args.app).await?;
    let mut report = Report::default();
    let blocks = django.blocks().await?;
    let done = block(&opened, &given, "django", blocks.clone(), django.name()).await?;
    report.blocks(&blocks, &done);

    let (findings, left_out) = django.findings().await?;
    let (taken, known) =
        migrate_from::put_findings(&opened.db, findings, &actor(), given.now).await?;
    report.add("suspicious addresses", Outcome::Taken, taken, "");
    report.add("suspicious addresses", Outcome::Known, known, "");
    report.left_out("suspicious addresses", &left_out);

    let requests = requests(&opened, &django, &mut report).await?;
    given.out.rows(&report.lines, "there is nothing in it")?;
    if requests > 0 && !opened.db.is_rehearsal() {
        scan::judge_imported(&opened).await?;
    }
    Ok(())
}

pub(super) async fn from_fail2ban(given: Invocation, args: FromFail2ban) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let foreign = Foreign::open_sqlite(&args.file).await?;
    let now = opened.db.clock(given.now).await?;
    let blocks = fail2ban::blocks(&foreign, now).await?;
    let done = block(&opened, &given, "fail2ban", blocks.clone(), foreign.name()).await?;
    finish(&given, &blocks, &done)
}

pub(super) async fn from_crowdsec(given: Invocation, args: FromCrowdsec) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let name = args.file.display().to_string();
    let read = tokio::task::spawn_blocking(move || decisions(&args.file));
    let read = read.await.map_err(io::Error::other).flatten();
    let (text, written_at) =
        read.map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    let blocks = crowdsec::blocks(&text, written_at.unwrap_or(given.now))
        .map_err(|error| Failure::Usage(format!("nothing was changed: {name}: {error}")))?;
    let done = block(&opened, &given, "crowdsec", blocks.clone(), &name).await?;
    finish(&given, &blocks, &done)
}

fn finish(given: &Invocation, blocks: &Blocks, done: &Imported) -> Result<(), Failure> {
    let mut report = Report::default();
    report.blocks(blocks, done);
    Ok(given.out.rows(&report.lines, "there is nothing in it")?)
}

/// The text, and when it was written if that is known.
fn decisions(file: &Path) -> io::Result<(String, Option<DateTime<Utc>>)> {
    let mut bytes = Vec::new();
    let written_at = if file == Path::new("-") {
        io::stdin().lock().take(MOST_BYTES).read_to_end(&mut bytes)?;
        None
    } else {
        let file = File::open(file)?;
        let written_at = file.metadata()?.modified()?;
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Some(DateTime::<Utc>::from(written_at))
    };
    Ok((String::from_utf8_lossy(&bytes).into_owned(), written_at))
}

/// Blocks them under an origin of their own.
async fn block(
    opened: &Opened,
    given: &Invocation,
    from: &str,
    blocks: Blocks,
    source: &str,
) -> Result<Imported, Failure> {
    let import = Import {
        items: blocks.items,
        origin: format!("list:{from}"),
        // What ended there since the last time has an end here as well, and what a person took off
        // the list there may be wanted here.
        whole: false,
        term: ipwarden_core::duration::Term::Permanent,
        reason: None,
        refused: OnRefused::Skip,
        source: source.to_owned(),
    };
    let bar = progress::of_things(import.items.len() as u64);
    let shown = bar.clone();
    let report = Arc::new(move |through| shown.set_position(through as u64));
    let done =
        lists::import_blocked(&opened.db, import, actor(), opened.rails(), given.now, report).await;
    bar.finish_and_clear();
    let done = done?;
    opened.announce(done.version).await;
    Ok(done)
}

/// Imports the requests as a log; says how many were new.
async fn requests(opened: &Opened, django: &Django, report: &mut Report) -> Result<u64, Failure> {
    const WHAT: &str = "requests";
    let bar = progress::of_bytes(None);
    let mut file = BufWriter::new(tempfile::tempfile()?);
    let written = django
        .write_requests(&mut file, |rows| bar.set_message(count(rows, "row read", "rows read")))
        .await;
    bar.finish_and_clear();
    let (rows, left_out) = written?;
    file.flush()?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    let input = Input::of_file(django.name().to_owned(), file)?.continued();
    let imported = if opened.db.is_rehearsal() {
        import::look(&input, |_| {}).map_err(Failure::Output)?
    } else if rows > 0 {
        let geo = geo::open(&opened.config);
        let by = actor().name;
        let importer = Importer {
            db: &opened.db,
            geo: &geo,
            sensitive: Arc::new(SensitivePaths::new(&opened.config.scan.sensitive_paths)),
            by: &by,
        };
        let bar = progress::of_bytes(Some(input.bytes()));
        let imported = import::import(&importer, input, now, |progress| {
            bar.set_position(progress.read_bytes);
        })
        .await;
        bar.finish_and_clear();
        imported.map_err(super::import_log::failure)?
    } else {
        import::Imported::default()
    };
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    report.add(WHAT, Outcome::Taken, size(imported.records), "");
    report.add(WHAT, Outcome::Known, size(imported.known_lines), "");
    report.add(WHAT, Outcome::LeftOut, size(imported.unreadable), "it is no request");
    report.left_out(WHAT, &left_out);
    Ok(imported.records)
}

#[derive(Default)]
struct Report {
    lines: Vec<Line>,
}

impl Report {
    fn add(&mut self, what: &'static str, outcome: Outcome, number: usize, why: &str) {
        if number > 0 {
            self.lines.push(Line { what, outcome, number, why: why.to_owned() });
        }
    }

    fn left_out(&mut self, what: &'static str, left_out: &LeftOut) {
        for (why, number) in left_out {
            self.add(what, Outcome::LeftOut, *number, why);
        }
    }

    fn blocks(&mut self, blocks: &Blocks, done: &Imported) {
        const WHAT: &str = "blocks";
        // What the guard rails refuse was not written.
        self.add(WHAT, Outcome::Taken, done.added, "");
        self.add(WHAT, Outcome::Known, done.unchanged + done.updated, "");
        self.add(WHAT, Outcome::LeftOut, done.repeated, "the same network stands there again");
        self.add(WHAT, Outcome::LeftOut, done.ended, "it had ended");
        self.left_out(WHAT, &blocks.left_out);
        for why in &done.skipped {
            self.add(WHAT, Outcome::LeftOut, 1, &why.reason().to_string());
        }
        let more = done.refused - done.skipped.len();
        self.add(WHAT, Outcome::LeftOut, more, "guard rails refuse these as well");
    }
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Taken,
    Known,
    LeftOut,
}

/// What became of some things.
#[derive(Serialize)]
struct Line {
    what: &'static str,
    outcome: Outcome,
    number: usize,
    why: String,
}

impl Object for Line {
    const FIELDS: &'static [&'static str] = &["what", "outcome", "number", "why"];
}

impl Row for Line {
    const COLUMNS: &'static [Column] =
        &[plain("WHAT"), number("NUMBER"), plain("OUTCOME"), prose("WHY")];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let outcome = match self.outcome {
            Outcome::Taken => "taken",
            Outcome::Known => "was here already",
            Outcome::LeftOut => "left out",
        };
        let why = crate::output::clean(&self.why);
        untinted([self.what.to_owned(), self.number.to_string(), outcome.to_owned(), why])
    }
}

impl From<ForeignError> for Failure {
    fn from(error: ForeignError) -> Failure {
        Failure::other(format!("{error}; nothing was changed"))
    }
}

impl From<DjangoError> for Failure {
    fn from(error: DjangoError) -> Failure {
        let remedy = match &error {
            DjangoError::NoTables { .. } => "; --app names another application",
            _ => "",
        };
        Failure::other(format!("{error}{remedy}"))
    }
}
