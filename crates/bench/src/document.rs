//! `docs/BENCHMARKS.md`, and the same table for the terminal.

use std::fmt::Write as _;

use crate::contestants::{BARE, Field};
use crate::goals::{self, Measured, shown};
use crate::machine;
use crate::rounds::{Lap, Plan, Spread};

/// One row of a table of single figures.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) value: String,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: impl Into<String>) -> Figure {
        Figure { what: what.into(), value: value.into() }
    }
}

/// All that a run has found out.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) measured: Measured,
    pub(crate) under_load: String,
    pub(crate) figures: Vec<Figure>,
    /// The rows of the table of growth.
    pub(crate) growth: String,
}

const PREAMBLE: &str = "\
# Benchmarks

Written by `just bench`, which builds and starts all that it needs on this machine's loopback; `just bench
quick` shows the same in less than three minutes, with more noise, and writes nothing. Compare the ratios:
absolute figures are this machine's.
";

const UNDER_LOAD: &str = "\
## Under load

All server processes of a contestant, PostgreSQL and Redis included, share one core; wrk has the other: 64
connections that stay open, 100,000 distinct clients (one in ten IPv6) in turn through `X-Forwarded-For`. The
contestants take turns within each round. CPU per request is the CPU time of all server processes from
before the load until the last record is in its store, by the number of answers: the steadiest figure, and
the one that a bill follows; the last column is the part of it that PostgreSQL and Redis have not used. All
ratios are to the bare handler's medians of the same run. A round counts only if nothing failed, nothing was
dropped, the right part was refused, the guard counted what wrk did and, in a fleet, Redis decided all of it.

Everybody who is guarded has 100,000 blocked networks in memory and the quota `100/10s` by address, counted
exactly, because 100,000 clients at such rates exceed the default of 5 per minute. PostgreSQL is private to
the run, with 1 GB of buffers, 64 MB for each sort, and `fsync` off: it is not the bottleneck of a disk
that is measured here.
";

const GROWTH: &str = "
## Growth

The guarded handler, every request admitted and in the spool, with more and more of one thing. Medians of
three laps of 2 s, each beside one of the bare handler. Replicas share the 64 connections and one core, so
look at the CPU time: the fewer requests each has on their way to Redis, the less its batches save. The memory
for counting is bounded by 256 MB, which holds some 3.6 million clients: of more, those with most credit are
forgotten.

";

impl Findings {
    /// The table of the contestants; also notes their ratios for the goals.
    pub(crate) fn contest(&mut self, Field { running: field, not_run }: &Field, laps: &[Vec<Lap>]) {
        let spreads = |at: usize| {
            let rate = Spread::of(laps[at].iter().map(|lap| lap.per_second));
            let cpu = Spread::of(laps[at].iter().map(|lap| lap.cpu));
            (rate, cpu, Spread::of(laps[at].iter().map(|lap| lap.own)))
        };
        let bare = field.iter().position(|one| one.name == BARE).map(spreads);
        let Some((bare_rate, bare_cpu, _)) = bare else { return };
        let mut text = String::from(
            "| contestant | requests/s: median (min - max) | over bare | CPU/request, us: median (min - max) | over bare | its own part |\n\
             |---|---|---|---|---|---|\n",
        );
        for (at, contestant) in field.iter().enumerate() {
            let (rate, cpu, own) = spreads(at);
            let ratios = (rate.median / bare_rate.median, cpu.median / bare_cpu.median);
            self.measured.insert(format!("{} rate", contestant.name), ratios.0);
            self.measured.insert(format!("{} cpu", contestant.name), ratios.1);
            let line = format!(
                "| `{}` | {} ({} - {}) | {:.3} | {} ({} - {}) | {:.3} | {:.3} |",
                contestant.name,
                shown(rate.median),
                shown(rate.least),
                shown(rate.most),
                ratios.0,
                shown(cpu.median),
                shown(cpu.least),
                shown(cpu.most),
                ratios.1,
                own.median / bare_cpu.median,
            );
            text.push_str(&line);
            text.push('\n');
        }
        text.push('\n');
        for contestant in field {
            let _ = writeln!(text, "- `{}`: {}.", contestant.name, contestant.what);
        }
        for (name, why) in not_run {
            let _ = writeln!(text, "- `{name}`: NOT RUN: {}.", one_line(why));
        }
        self.measured.insert("bare per second".to_owned(), bare_rate.median);
        self.under_load = text;
    }

    /// The whole document.
    pub(crate) fn document(&self, plan: Plan) -> String {
        let mut text =
            format!("{PREAMBLE}\n{}\n\n## Goals\n\n{}", machine::described(), self.goals());
        let Plan { rounds, seconds } = plan;
        let load = &self.under_load;
        let _ = write!(text, "\n{UNDER_LOAD}\n{rounds} rounds of {seconds} s each:\n\n{load}");
        if !self.figures.is_empty() {
            text.push_str("\n## Single figures\n\n| figure | measured |\n|---|---|\n");
            for Figure { what, value } in &self.figures {
                let _ = writeln!(text, "| {what} | {value} |");
            }
        }
        if !self.growth.is_empty() {
            let _ = write!(text, "{GROWTH}{}", self.growth);
        }
        text
    }

    fn goals(&self) -> String {
        let mut text = String::from("| figure | goal | measured | reached |\n|---|---|---|---|\n");
        for goal in goals::all() {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                goal.figure,
                goal.wanted(),
                goal.measured(&self.measured),
                goal.verdict(&self.measured),
            );
        }
        text
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
