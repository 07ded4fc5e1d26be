//! Schedulers killed at random instants of a run.

use std::time::Duration;

use chrono::TimeDelta;
use ipwarden_testbed::report::{Part, report, seed, short_or_long};
use tokio::time::sleep;

use crate::bed::{Bed, Scheduler, hour};
use crate::turn;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_killed_at_random_instants_finds_what_an_undisturbed_one_finds() {
    let _turn = turn().await;
    let mut random = fastrand::Rng::with_seed(seed());
    let kills: i64 = short_or_long(20, 200);
    // Enough for all of them, so that each is killed at its work; less than the days that are kept.
    let hours = short_or_long(40, 690);
    let bed = Bed::begun().await;
    bed.traffic(0, hours);
    bed.slow_down();

    let mut at_work = 0;
    let mut now = hour(hours) + TimeDelta::seconds(10);
    let held = "select count(*) from leases where expires_at > clock_timestamp()";
    for n in 0..kills {
        // Whoever was killed keeps the lease for two minutes.
        now += TimeDelta::minutes(3);
        bed.set_clock(now);
        let before = bed.runs();
        let scheduler = Scheduler::start(&bed, &format!("victim-{n}"));
        sleep(Duration::from_millis(random.u64(20..400))).await;
        scheduler.kill();
        let in_a_run = bed.database.execute(held).unwrap() == "1";
        at_work += usize::from(in_a_run);
        assert!(bed.runs() >= before, "what was judged stays judged");
    }
    // On a fast machine those that were killed have judged all of them, and hours that ended since.
    let left = (usize::try_from(hours).unwrap() + 1).saturating_sub(bed.runs());
    now += TimeDelta::minutes(3);
    bed.set_clock(now);
    let last = Scheduler::start(&bed, "last");
    let ended = (now - hour(0)).num_hours();
    bed.is_done_until(ended).await;
    assert!(last.stop().await.success());
    bed.assert_each_once(-1, ended);

    let findings = bed.findings();
    assert_eq!(findings, Bed::undisturbed(hours, hour(ended)).await);
    assert!(findings.len() >= 13, "there is something to find: {}", findings.len());
    assert!(at_work * 4 >= usize::try_from(kills).unwrap(), "{at_work} of {kills} at work");
    report(
        Part::Scan,
        format!("a scheduler killed at {kills} random instants of a catch-up over {hours} hours"),
        "each window judged once, in order; findings equal an undisturbed run's",
        format!(
            "{at_work} of {kills} kills hit a run; {left} hours were left for the last; each judged \
             once, in order; {} findings, equal to the last byte of evidence",
            findings.len()
        ),
    );
}
