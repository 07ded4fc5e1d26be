//! `ipctl stats`.

use chrono::{DateTime, SecondsFormat, Utc};
use ipwarden_core::stats::{self, By, Question, Step, Top, Verdicts};
use serde::Serialize;

use super::rows::{cut, number, plain, untinted};
use crate::cli::{Stats, resolve};
use crate::failure::Failure;
use crate::invocation::{Invocation, tell, warn};
use crate::output::{Column, Format, Object, Row, Tint, bounded, clean, count, minute};
use crate::progress;

pub(super) async fn run(given: Invocation, args: Stats) -> Result<(), Failure> {
    let since = args.since.resolve(given.now);
    let until = resolve(args.until, given.now);
    let by = args.by.map(By::from);
    let question = Question::new(Some(since), until, by, args.top, given.now);
    let question = question.map_err(|no| Failure::Usage(format!("--{}: {no}", no.argument)))?;
    let opened = given.open().await?;
    let bar = progress::of_waiting("counting");
    let stats = stats::of(&opened.db, question, given.now).await;
    bar.finish_and_clear();
    let stats = stats?;
    if stats.pending_hours > 0 {
        let hours = count(stats.pending_hours as u64, "hour is", "hours are");
        warn(format!("{hours} not counted to the end yet; the scheduler does that within minutes"));
    }
    if given.out.format() == Format::Json {
        let text = serde_json::to_string(&stats).map_err(std::io::Error::other)?;
        return Ok(given.out.text(&text)?);
    }
    if given.out.is_for_people() {
        tell(format!("from {} to {}", minute(stats.since), minute(stats.until)));
    }
    Ok(given.out.rows(&lines(&stats), "")?)
}

/// All of the answer, from the whole to its parts.
fn lines(stats: &stats::Stats) -> Vec<Line> {
    let all = Line { key: String::new(), ..Line::of("all", stats.total) };
    let by = match stats.by {
        By::Hour => "hour",
        By::Day => "day",
    };
    let step = |step: &Step| Line {
        key: step.start.to_rfc3339_opts(SecondsFormat::Secs, true),
        start: Some(step.start),
        ..Line::of(by, step.verdicts)
    };
    let mut lines = vec![all];
    lines.extend(stats.times.iter().map(step));
    for (of, tops) in [
        ("status", &stats.statuses),
        ("address", &stats.addresses),
        ("network", &stats.networks),
        ("path", &stats.paths),
        ("country", &stats.countries),
        ("asn", &stats.asns),
    ] {
        lines.extend(tops.iter().map(|top: &Top| Line {
            key: top.key.clone(),
            at_most: top.at_most,
            ..Line::of(of, top.verdicts)
        }));
    }
    let all = stats.total.requests;
    lines.iter_mut().for_each(|line| line.all = all);
    lines
}

/// How often something was asked, or something asked.
#[derive(Serialize)]
struct Line {
    of: &'static str,
    key: String,
    /// Of a step in time, which `key` tells in UTC and a table where the operator is.
    #[serde(skip)]
    start: Option<DateTime<Utc>>,
    #[serde(flatten)]
    verdicts: Verdicts,
    at_most: i64,
    #[serde(skip)]
    all: i64,
}

impl Line {
    fn of(of: &'static str, verdicts: Verdicts) -> Line {
        Line { of, key: String::new(), start: None, verdicts, at_most: verdicts.requests, all: 0 }
    }

    /// What of all requests these are, in percent.
    fn share(&self) -> String {
        match self.all {
            0 => String::new(),
            all => format!("{:.1}%", self.verdicts.requests as f64 * 100.0 / all as f64),
        }
    }
}

impl Object for Line {
    const FIELDS: &'static [&'static str] =
        &["of", "key", "requests", "allowed", "blocked", "throttled", "at_most"];
}

impl Row for Line {
    const COLUMNS: &'static [Column] = &[
        plain("OF"),
        number("REQUESTS"),
        number("SHARE"),
        number("ALLOWED"),
        number("BLOCKED"),
        number("THROTTLED"),
        cut("WHICH"),
    ];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let Verdicts { requests, allowed, blocked, throttled } = self.verdicts;
        let requests = match self.at_most {
            more if more > requests => format!("{requests}-{more}"),
            _ => requests.to_string(),
        };
        untinted([
            self.of.to_owned(),
            requests,
            self.share(),
            allowed.to_string(),
            blocked.to_string(),
            throttled.to_string(),
            self.start.map_or_else(|| bounded(&clean(&self.key), 200), minute),
        ])
    }
}
