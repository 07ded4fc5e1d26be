//! The rounds: everybody in turn, so that what disturbs the machine disturbs all alike.

use std::time::Duration;

use anyhow::ensure;

use crate::contestants::Contestant;
use crate::cpu;
use crate::load::{CONNECTIONS, Load};

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) seconds: u32,
}

/// One contestant in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lap {
    /// Answers per second, as wrk saw them.
    pub(crate) per_second: f64,
    /// CPU time of all its processes for each answer, in microseconds.
    pub(crate) cpu: f64,
    /// The part of it that is the server's own, without PostgreSQL and Redis.
    pub(crate) own: f64,
}

/// Runs all rounds; the laps of a contestant stand at its place.
pub(crate) fn run(field: &[Contestant], load: &Load, plan: Plan) -> anyhow::Result<Vec<Vec<Lap>>> {
    for contestant in field {
        warm_up(contestant, load)?;
    }
    let mut laps: Vec<Vec<Lap>> = field.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        for turn in 0..field.len() {
            // Nobody always comes behind the same other one.
            let at = (turn + round) % field.len();
            if field[at].refills {
                warm_up(&field[at], load)?;
            }
            let counts = || lap(&field[at], load, plan, round);
            // On a shared machine one may fail for want of it; what fails twice is wrong.
            let lap = counts().or_else(|error| {
                eprintln!("{error:#}: once more");
                counts()
            })?;
            eprintln!(
                "round {} of {}: {:<18} {:>7.0} requests/s, {:>8.2} us of CPU each, {:>8.2} its own",
                round + 1,
                plan.rounds,
                field[at].name,
                lap.per_second,
                lap.cpu,
                lap.own,
            );
            laps[at].push(lap);
        }
    }
    Ok(laps)
}

/// Caches fill, and quotas that are to be used up are.
fn warm_up(contestant: &Contestant, load: &Load) -> anyhow::Result<()> {
    let mut from = 0;
    for _ in 0..8 {
        let outcome = load.run(contestant.server.public, contestant.mix, 1, from)?;
        from += outcome.requests;
        if contestant.refused == 0.0 || from > crate::load::CLIENTS as u64 {
            break;
        }
    }
    contestant.server.shipped()
}

fn lap(contestant: &Contestant, load: &Load, plan: Plan, round: usize) -> anyhow::Result<Lap> {
    let server = &contestant.server;
    let before = server.state()?;
    let used = || anyhow::Ok((cpu::of_trees(&server.pids())?, cpu::of_trees(&[server.pid()])?));
    let (cpu_before, own_before) = used()?;
    let from = round as u64 * 7_919;
    let outcome = load.run(server.public, contestant.mix, plan.seconds, from)?;
    // What ships its records behind its answers has done its work only when they are shipped.
    server.shipped()?;
    let (cpu, own) = used()?;

    let name = contestant.name;
    ensure!(outcome.failed == 0, "{name}: {} requests failed", outcome.failed);
    let refused = outcome.refused as f64 / outcome.requests.max(1) as f64;
    ensure!(
        (refused - contestant.refused).abs() < 0.005,
        "{name}: {:.1} % were refused, which should be {:.0} %",
        refused * 100.0,
        contestant.refused * 100.0,
    );
    if let (Some(before), Some(after)) = (before, server.state()?) {
        let counted = after.requests() - before.requests();
        let answered = outcome.requests;
        ensure!(
            (answered..=answered + 2 * CONNECTIONS as u64).contains(&counted),
            "{name}: {answered} answers, but {counted} were counted",
        );
        ensure!(after.dropped == 0, "{name}: {} records were dropped", after.dropped);
        ensure!(
            after.fallbacks == before.fallbacks,
            "{name}: {} requests were decided without Redis",
            after.fallbacks - before.fallbacks,
        );
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / outcome.requests.max(1) as f64;
    Ok(Lap {
        per_second: outcome.per_second(),
        cpu: each(cpu - cpu_before),
        own: each(own - own_before),
    })
}

/// The middle, the least and the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Spread { median, least: end(values.first()), most: end(values.last()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_even_number_the_median_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median, 2.0);
    }
}
