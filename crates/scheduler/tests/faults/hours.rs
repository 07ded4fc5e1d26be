//! Hours that nobody judged in time, and records that come hours late.

use chrono::TimeDelta;
use ipwarden_testbed::report::{Part, report};

use crate::bed::{Bed, Scheduler, eventually, hour};
use crate::turn;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hours_without_a_scheduler_are_caught_up_oldest_first_once_each() {
    let _turn = turn().await;
    let bed = Bed::begun().await;
    // The last of the five hours is empty.
    bed.traffic(0, 4);
    bed.set_clock(hour(5) + TimeDelta::seconds(10));
    let all: Vec<Scheduler> =
        (0..5).map(|n| Scheduler::start(&bed, &format!("number-{n}"))).collect();
    bed.is_done_until(5).await;
    bed.assert_each_once(-1, 5);
    let empty = format!("select findings from scan_runs where window_start = '{}'", hour(4));
    assert_eq!(bed.database.execute(&empty).unwrap(), "0", "sch_18: recorded as done");
    for scheduler in all {
        assert!(scheduler.stop().await.success());
    }
    let findings = bed.findings();
    assert_eq!(findings, Bed::undisturbed(4, hour(5)).await);
    report(
        Part::Scan,
        "no scheduler for 5 hours, then 5 at once",
        "five windows, oldest first, once each; an empty hour is recorded as done",
        format!("5 windows, in order, once each; {} findings, as undisturbed", findings.len()),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_arrive_hours_late_are_judged_as_if_they_had_come_in_time() {
    let _turn = turn().await;
    let bed = Bed::begun().await;
    bed.requests(0, 6, "x.n % 2 = 0");
    bed.set_clock(hour(6) + TimeDelta::seconds(10));
    let scheduler = Scheduler::with_own_clock(&bed, "one");
    bed.is_done_until(6).await;
    let before = bed.findings().len();

    bed.requests(0, 6, "x.n % 2 = 1");
    bed.set_clock(hour(6) + TimeDelta::minutes(5));
    scheduler.step_clock(600);
    let touched = format!("select count(*) from touched_hours where hour < '{}'", hour(6));
    eventually("the late records are judged", async || {
        (bed.database.execute(&touched).unwrap() == "0").then_some(())
    })
    .await;
    assert!(scheduler.stop().await.success());
    let expected: Vec<_> = (-1..6).chain(0..6).map(hour).collect();
    assert_eq!(bed.judged(), expected, "each once again, in order");
    assert_eq!(bed.runs(), 7);
    let findings = bed.findings();
    assert!(findings.len() > before, "{before}");
    assert_eq!(findings, Bed::undisturbed(6, hour(6)).await);
    report(
        Part::Scan,
        "half of the records of six hours arrive up to six hours late",
        "judged at the next run, nothing counted twice; findings equal an undisturbed run's",
        format!("{before} findings before, {} after, as undisturbed", findings.len()),
    );
}
