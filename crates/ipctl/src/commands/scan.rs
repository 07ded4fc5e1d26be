//! `ipctl scan`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipwarden_core::config::Config;
use ipwarden_core::lists::own_addresses;
use ipwarden_core::scan::{self, Judged, Outcome, Terms};
use serde::Serialize;

use super::rows::{number, plain, untinted};
use crate::cli::{Scan, resolve};
use crate::failure::Failure;
use crate::invocation::{Invocation, Opened, tell, warn};
use crate::now;
use crate::output::{Column, Object, Row, Tint, count, minute, time};
use crate::progress;

pub(super) async fn run(given: Invocation, args: Scan) -> Result<(), Failure> {
    let from = resolve(args.from, given.now);
    let to = resolve(args.to, given.now).unwrap_or(given.now);
    if let Some(from) = from.filter(|from| *from >= to) {
        return Err(Failure::Usage(format!("{} is not before {}", time(from), time(to))));
    }
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    let terms = terms(&opened.config);
    let between = from.map(|from| (from, to));
    let bar = progress::of_waiting("counting what was asked for");
    let judged = match (args.rehearsal.dry_run, between) {
        (true, _) => scan::preview(&opened.db, &terms, between, now()).await.map(Outcome::Done),
        (false, Some(between)) => scan::run_between(&opened.db, &terms, between, now).await,
        (false, None) => scan::run_due(&opened.db, &terms, "ipctl", now).await,
    };
    bar.finish_and_clear();
    let judged = finished(&opened, judged?).await?;
    let rows: Vec<JudgedRow> = judged.iter().map(JudgedRow::from).collect();
    if given.out.is_for_people() {
        let found: Vec<_> = rows.iter().filter(|row| row.findings > 0).cloned().collect();
        if !found.is_empty() {
            given.out.rows(&found, "")?;
        }
        tell(summary(&judged));
        return Ok(());
    }
    Ok(given.out.rows(&rows, "")?)
}

/// What was judged, after the replicas were told of blocks that came of it.
async fn finished(opened: &Opened, outcome: Outcome) -> Result<Vec<Judged>, Failure> {
    let Outcome::Done(judged) = outcome else {
        return Err(Failure::other(
            "somebody else is scanning right now; try again when that is through",
        ));
    };
    opened.announce(judged.iter().filter_map(|judged| judged.version).max()).await;
    Ok(judged)
}

/// Judges the hours that an import has touched.
pub(super) async fn judge_imported(opened: &Opened) -> Result<(), Failure> {
    let outcome = scan::run_touched(&opened.db, &terms(&opened.config), "ipctl", now).await?;
    match finished(opened, outcome).await {
        Ok(judged) => tell(summary(&judged)),
        // The records are in, and the hourly scan finds their hours.
        Err(busy) => warn(format!("{busy}; the next hourly scan judges what was imported")),
    }
    Ok(())
}

/// What the configuration has scans judge by.
fn terms(config: &Config) -> Arc<Terms> {
    Arc::new(Terms::of(config, own_addresses()))
}

/// How many hours were judged, and what came of it.
fn summary(judged: &[Judged]) -> String {
    if judged.is_empty() {
        return "no hour was due".to_owned();
    }
    let sum = |part: fn(&Judged) -> usize| judged.iter().map(part).sum::<usize>() as u64;
    let hours = count(judged.len() as u64, "hour", "hours");
    let (findings, opened) = (sum(|judged| judged.findings), sum(|judged| judged.opened));
    if findings == 0 {
        return format!("scanned {hours}: nothing suspicious");
    }
    let mut text = format!(
        "scanned {hours}: {}, {opened} of them new{}",
        count(findings, "finding", "findings"),
        if opened > 0 { "; `ipctl list-suspicious` shows them" } else { "" },
    );
    let blocked = sum(|judged| judged.blocked);
    if blocked > 0 {
        text += &format!("; {} blocked without a person", count(blocked, "was", "were"));
    }
    text
}

/// A window that was judged.
#[derive(Clone, Serialize)]
struct JudgedRow {
    window_start: DateTime<Utc>,
    window_end: DateTime<Utc>,
    findings: usize,
    opened: usize,
    blocked: usize,
}

impl From<&Judged> for JudgedRow {
    fn from(judged: &Judged) -> JudgedRow {
        JudgedRow {
            window_start: judged.window.start(),
            window_end: judged.window.end(),
            findings: judged.findings,
            opened: judged.opened,
            blocked: judged.blocked,
        }
    }
}

impl Object for JudgedRow {
    const FIELDS: &'static [&'static str] =
        &["window_start", "window_end", "findings", "opened", "blocked"];
}

impl Row for JudgedRow {
    const COLUMNS: &'static [Column] =
        &[plain("HOUR"), number("FINDINGS"), number("NEW"), number("BLOCKED")];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        untinted([
            minute(self.window_start),
            self.findings.to_string(),
            self.opened.to_string(),
            self.blocked.to_string(),
        ])
    }
}
