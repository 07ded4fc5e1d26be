//! `reliability REPORT`: makes `docs/RELIABILITY.md`, on stdout, of what the tests reported.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use ipwarden_testbed::report::{Part, Row, rows};

const PREAMBLE: &str = "\
# Reliability

What was broken, what is promised, and what came out: written from the output of the tests themselves,
by `just reliability` (the long form, a few hours) or `just reliability-short` (minutes, as CI runs it). Counts are
asserted: a test that would miss one fails, and leaves no row. Times are measured, and asserted at ten
times their goal, since the machines that run the tests are small and noisy.
";

#[expect(clippy::print_stdout, reason = "the document is what this program is for")]
fn main() -> anyhow::Result<()> {
    let report = std::env::args_os().nth(1).context("usage: reliability REPORT")?;
    let rows = rows(Path::new(&report))?;
    println!("{PREAMBLE}\n{}", machine());
    let mut part = None;
    for row in &rows {
        if part != Some(row.part) {
            part = Some(row.part);
            println!("\n## {}\n\n| fault | promise | measured |\n|---|---|---|", title(row.part));
        }
        println!("{}", line(row));
    }
    Ok(())
}

fn title(part: Part) -> &'static str {
    match part {
        Part::Quotas => "Quotas",
        Part::Redis => "Redis",
        Part::Postgres => "PostgreSQL",
        Part::Kills => "kill -9, and what it leaves",
        Part::Stops => "Stops, restarts, upgrades",
        Part::Lists => "Blocks on their way",
        Part::Scan => "The scan",
        Part::Hostile => "Hostile clients",
    }
}

fn line(row: &Row) -> String {
    let cells = [&row.fault, &row.promise, &row.measured].map(|text| text.replace('|', "\\|"));
    let form = if row.long { "" } else { " *(short form)*" };
    format!("| {}{form} | {} | {} |", cells[0], cells[1], cells[2])
}

/// Where and with what it was measured.
fn machine() -> String {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.lines().next()?.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let gigabytes = kilobytes.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let versions = [
        first_line("date", &["-u", "+%F"]),
        first_line("uname", &["-sr"]),
        first_line("rustc", &["--version"]),
        first_line("redis-server", &["--version"]),
        first_line("psql", &["--version"]),
    ];
    let versions = versions.into_iter().flatten().collect::<Vec<_>>();
    format!("{cores} cores, {gigabytes} GiB; {}.", versions.join("; "))
}
