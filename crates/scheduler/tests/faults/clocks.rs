//! Five schedulers on machines whose clocks jump, beside a store whose clock goes right.

use chrono::TimeDelta;
use ipwarden_engine::clock::Moment;
use ipwarden_testbed::report::{Part, report, seed, short_or_long};

use crate::bed::{Bed, Scheduler, hour};
use crate::turn;

/// The start of 2040.
const YEAR_2040: i64 = 2_208_988_800;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_schedulers_whose_clocks_jump_judge_each_window_once() {
    let _turn = turn().await;
    let mut random = fastrand::Rng::with_seed(seed());
    let ticks: i64 = short_or_long(20, 100);
    let bed = Bed::begun().await;
    bed.traffic(0, ticks);
    let mut all: Vec<(Scheduler, i64)> =
        (0..5).map(|n| (Scheduler::with_own_clock(&bed, &format!("number-{n}")), 0)).collect();
    let now = Moment::now().wall / 1_000_000;
    let steps = [0, 3_600, -3_600, 86_400 * 40, YEAR_2040 - now, 1_000 - now];
    for tick in 1..=ticks {
        bed.set_clock(hour(tick) + TimeDelta::seconds(10));
        for (scheduler, step) in &mut all {
            // Another one each time: so each of them looks what there is to do.
            let others: Vec<i64> = steps.into_iter().filter(|other| other != step).collect();
            *step = others[random.usize(..others.len())];
            scheduler.step_clock(*step);
        }
        bed.is_done_until(tick).await;
    }
    bed.assert_each_once(-1, ticks);
    let by = "select count(distinct scheduler) from judged where scheduler like '%number%'";
    let by = bed.database.execute(by).unwrap();
    let dropped: Vec<_> = all.iter().filter(|(one, _)| one.said().contains("dropped")).collect();
    assert!(dropped.is_empty(), "nobody drops a day by his own clock");
    drop(all);

    let findings = bed.findings();
    assert_eq!(findings, Bed::undisturbed(ticks, hour(ticks)).await);
    report(
        Part::Scan,
        format!(
            "5 schedulers at {ticks} ticks, at each the clock of each machine steps: by an hour, to \
             1970, to 2040, and back"
        ),
        "each window judged once, in order; none early, none passed over; no day dropped",
        format!(
            "{ticks} windows, each once, in order, by {by} of the 5; {} findings, as undisturbed",
            findings.len()
        ),
    );
}
