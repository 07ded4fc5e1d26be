//! What was aimed at, and whether it was reached.

use std::collections::BTreeMap;

use crate::contestants::{
    BLOCKING, EMBEDDED, EMBEDDED_POSTGRES, FLEET, FLEET_REFUSING, GUARD, THROTTLING,
};

/// Everything that was measured, by its key.
pub(crate) type Measured = BTreeMap<String, f64>;

/// A figure and what it should be.
pub(crate) struct Goal {
    pub(crate) figure: &'static str,
    bounds: Vec<Bound>,
}

struct Bound {
    key: String,
    goal: f64,
    at_most: bool,
    unit: &'static str,
}

fn at_most(key: impl Into<String>, goal: f64, unit: &'static str) -> Bound {
    Bound { key: key.into(), goal, at_most: true, unit }
}

fn at_least(key: impl Into<String>, goal: f64, unit: &'static str) -> Bound {
    Bound { at_most: false, ..at_most(key, goal, unit) }
}

/// CPU time per request and requests per second, both over the bare handler's.
fn over_bare(name: &str, cpu: f64, rate: f64) -> Vec<Bound> {
    vec![
        at_most(format!("{name} cpu"), cpu, " CPU/request"),
        at_least(format!("{name} rate"), rate, " requests/s"),
    ]
}

/// All of them, in the order of the table.
pub(crate) fn all() -> Vec<Goal> {
    let goal = |figure, bounds| Goal { figure, bounds };
    vec![
        goal(
            "guard, every request admitted, recorded, safe against a kill",
            over_bare(GUARD, 1.10, 0.93),
        ),
        goal(
            "the same, shipping to PostgreSQL meanwhile",
            over_bare(EMBEDDED_POSTGRES, 1.15, 0.88),
        ),
        goal("the same, shipping to SQLite meanwhile (no goal was set)", {
            over_bare(EMBEDDED, f64::INFINITY, 0.0)
        }),
        goal("refusing with 429", over_bare(THROTTLING, 1.05, 0.98)),
        goal("refusing with 403", over_bare(BLOCKING, 1.05, 0.98)),
        goal("fleet, every request admitted through Redis", over_bare(FLEET, 2.0, 0.65)),
        goal("fleet, 9 of 10 requests over their limit", over_bare(FLEET_REFUSING, 1.20, 0.90)),
        goal(
            "p99 at half of the maximum load, over the bare handler's",
            vec![at_most("guard p99", 1.2, "")],
        ),
        goal(
            "rows shipped per second into PostgreSQL",
            vec![at_least("shipped postgres", 250_000.0, " rows/s")],
        ),
        goal(
            "look-up among a million networks, independent / dependent",
            vec![
                at_most("lists 1M independent", 60.0, " ns"),
                at_most("lists 1M dependent", 350.0, " ns"),
            ],
        ),
        goal(
            "a million networks: build, bytes each",
            vec![at_most("lists 1M build", 100.0, " ms"), at_most("lists 1M bytes", 24.0, " B")],
        ),
        goal(
            "ten million networks: look-up independent, build",
            vec![
                at_most("lists 10M independent", 220.0, " ns"),
                at_most("lists 10M build", 1_000.0, " ms"),
            ],
        ),
        goal(
            "place of an address, cached / from the file",
            vec![at_most("place cached", 70.0, " ns"), at_most("place file", 500.0, " ns")],
        ),
        goal(
            "start to ready with a million blocks in the snapshot",
            vec![at_most("start", 100.0, " ms")],
        ),
        goal(
            "hourly scan, 10 million records in the hour and in the one before",
            vec![at_most("scan", 10.0, " s")],
        ),
        goal(
            "import of an access log into SQLite / PostgreSQL",
            vec![
                at_least("import sqlite", 120_000.0, " lines/s"),
                at_least("import postgres", 200_000.0, " lines/s"),
            ],
        ),
        goal(
            "memory: idle / with a million active clients",
            vec![at_most("memory idle", 30.0, " MB"), at_most("memory million", 200.0, " MB")],
        ),
    ]
}

impl Goal {
    /// What it should be, in words.
    pub(crate) fn wanted(&self) -> String {
        let bounds = self.bounds.iter().filter(|bound| bound.goal.is_finite() && bound.goal != 0.0);
        let words = bounds.map(|bound| {
            let sign = if bound.at_most { "<=" } else { ">=" };
            format!("{sign} {}{}", shown(bound.goal), bound.unit)
        });
        words.collect::<Vec<_>>().join("; ")
    }

    /// What it is.
    pub(crate) fn measured(&self, measured: &Measured) -> String {
        let words = self.bounds.iter().map(|bound| match measured.get(&bound.key) {
            Some(value) => format!("{}{}", shown(*value), bound.unit),
            None => "not measured".to_owned(),
        });
        words.collect::<Vec<_>>().join("; ")
    }

    /// Whether every part of it was reached; of what was not measured nothing is said.
    pub(crate) fn verdict(&self, measured: &Measured) -> &'static str {
        let mut reached = self.bounds.iter().filter_map(|bound| {
            let value = measured.get(&bound.key)?;
            Some(if bound.at_most { *value <= bound.goal } else { *value >= bound.goal })
        });
        let known = self.bounds.iter().filter(|bound| measured.contains_key(&bound.key)).count();
        match (known == self.bounds.len(), reached.all(|reached| reached)) {
            _ if self.wanted().is_empty() => "",
            (_, false) => "**no**",
            (true, true) => "yes",
            (false, true) => "open",
        }
    }
}

/// A figure with as many digits as it deserves.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        value if value >= 10_000.0 => grouped(value),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_when_all_of_it_is_and_open_when_some_was_not_measured() {
        let goal = Goal { figure: "", bounds: over_bare("x", 1.1, 0.9) };
        let of = |pairs: &[(&str, f64)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
        };
        assert_eq!(goal.verdict(&of(&[("x cpu", 1.1), ("x rate", 0.9)])), "yes");
        assert_eq!(goal.verdict(&of(&[("x cpu", 1.2), ("x rate", 0.9)])), "**no**");
        assert_eq!(goal.verdict(&of(&[("x cpu", 1.0)])), "open");
    }

    #[test]
    fn large_figures_are_grouped() {
        assert_eq!(shown(1_234_567.0), "1,234,567");
        assert_eq!(shown(9.876), "9.88");
    }
}
