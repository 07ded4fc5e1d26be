//! What the tests of faults measured: rows of `docs/RELIABILITY.md`.
//!
//! A test calls [`report()`] at its end, when all that it asserts has held. The row is printed, and
//! appended to the file that `IPWARDEN_TEST_REPORT` names; `reliability` makes the document of it.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Names the file that rows are appended to, one JSON object a line.
pub const REPORT_VARIABLE: &str = "IPWARDEN_TEST_REPORT";
/// Not empty: the tests run in their long form.
pub const LONG_VARIABLE: &str = "IPWARDEN_TEST_LONG";
/// A number: the seed of every random choice.
pub const SEED_VARIABLE: &str = "IPWARDEN_TEST_SEED";

/// The sections of the document, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// Limits under races, many clients and clocks that jump.
    Quotas,
    /// Redis away, slow, hung or empty.
    Redis,
    /// PostgreSQL away, hung, full.
    Postgres,
    /// `kill -9`, and spools that are damaged.
    Kills,
    /// SIGTERM, restarts and upgrades.
    Stops,
    /// Blocks on their way to every replica.
    Lists,
    /// The hourly scan and its schedulers.
    Scan,
    /// Hostile clients.
    Hostile,
}

/// One thing that broke, what was promised for it, and what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The section it belongs to.
    pub part: Part,
    /// What was done, with its size: "Redis killed for 60 s at 2,000 requests a second".
    pub fault: String,
    /// What must hold, with its bound.
    pub promise: String,
    /// What came out.
    pub measured: String,
    /// Whether the long form was run.
    pub long: bool,
}

/// Prints a row, and appends it to the report if there is one.
///
/// # Panics
/// If the report cannot be written.
pub fn report(part: Part, fault: impl Display, promise: impl Display, measured: impl Display) {
    let [fault, promise, measured] =
        [fault.to_string(), promise.to_string(), measured.to_string()].map(|text| one_line(&text));
    eprintln!("{part:?} | {fault} | {promise} | {measured}");
    let Some(file) = std::env::var_os(REPORT_VARIABLE) else { return };
    let row = Row { part, fault, promise, measured, long: is_long() };
    append(Path::new(&file), &row).expect("the report is written");
}

/// Whether the long form was asked for: whole minutes of outage, hundreds of kills.
pub fn is_long() -> bool {
    std::env::var_os(LONG_VARIABLE).is_some_and(|value| !value.is_empty())
}

/// The first in the short form of the tests, which CI runs; the second in the long form.
pub fn short_or_long<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// The seed of a test's random choices, printed for when it fails.
///
/// # Panics
/// If `IPWARDEN_TEST_SEED` is no number.
pub fn seed() -> u64 {
    let named = std::env::var(SEED_VARIABLE).ok();
    let seed = named.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("a number"));
    eprintln!("{SEED_VARIABLE}={seed}");
    seed
}

/// The rows of a report, in the order of the document; of a fault that was reported twice the last.
///
/// # Errors
/// If there is no such file, or a line of it is no row.
pub fn rows(file: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let row: Row = serde_json::from_str(line).with_context(|| format!("line {number}"))?;
        rows.retain(|earlier| (earlier.part, &earlier.fault) != (row.part, &row.fault));
        rows.push(row);
    }
    rows.sort_by_key(|row| row.part);
    Ok(rows)
}

fn append(file: &Path, row: &Row) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    let file: PathBuf = file.to_owned();
    let mut open = std::fs::OpenOptions::new().create(true).append(true).open(&file)?;
    // One write, so that lines of several test processes do not mix.
    open.write_all(&line).with_context(|| file.display().to_string())
}

/// A cell of a table holds no line break.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_of_a_fault_counts_and_parts_come_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("report.jsonl");
        let row = |part, fault: &str, measured: &str| Row {
            part,
            fault: fault.to_owned(),
            promise: "all".to_owned(),
            measured: measured.to_owned(),
            long: false,
        };
        for row in
            [row(Part::Scan, "a", "1"), row(Part::Redis, "b", "2"), row(Part::Scan, "a", "3")]
        {
            append(&file, &row).expect("it is written");
        }
        let rows = rows(&file).expect("it is read");
        assert_eq!(rows, [row(Part::Redis, "b", "2"), row(Part::Scan, "a", "3")]);
    }
}
