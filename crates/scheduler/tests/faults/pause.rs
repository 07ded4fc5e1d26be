//! A leader that is stopped in the middle of a window, and goes on when another has finished it.

use std::process::{Child, Stdio};

use chrono::TimeDelta;
use ipwarden_testbed::report::{Part, report};

use crate::bed::{Bed, Scheduler, eventually, hour};
use crate::turn;

/// Holds up whoever wants to use a table, until it is dropped.
struct Held(Child);

impl Held {
    async fn table(bed: &Bed, table: &str) -> Held {
        let mut psql = bed.database.psql().unwrap();
        let sql = format!("begin; lock {table}; select pg_sleep(60)");
        let held = psql.args(["-c", &sql]).stdout(Stdio::null()).stderr(Stdio::null());
        let held = Held(held.spawn().unwrap());
        let granted = format!(
            "select count(*) from pg_locks where granted and mode = 'AccessExclusiveLock' \
             and relation = '{table}'::regclass"
        );
        eventually("the table is locked", async || {
            (bed.database.execute(&granted).unwrap() == "1").then_some(())
        })
        .await;
        held
    }

    fn release(mut self, bed: &Bed) {
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                   where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()";
        bed.database.execute(end).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn waits_for_a_lock(bed: &Bed, statement: &str) {
    let waiting = format!(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query ~ \
         '{statement}' and application_name = 'ipwarden' and datname = current_database()"
    );
    eventually("the leader waits", async || {
        (bed.database.execute(&waiting).unwrap() != "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_stopped_while_it_counts_is_refused_by_its_number_when_it_goes_on() {
    let _turn = turn().await;
    let bed = Bed::begun().await;
    bed.traffic(0, 5);
    bed.set_clock(hour(5) + TimeDelta::seconds(10));
    let held = Held::table(&bed, "request_logs").await;
    let leader = Scheduler::start(&bed, "leader");
    waits_for_a_lock(&bed, "^select count").await;
    leader.signal("STOP");
    held.release(&bed);

    bed.set_clock(hour(5) + TimeDelta::minutes(3));
    let other = Scheduler::start(&bed, "other");
    bed.is_done_until(5).await;
    let (judged, findings) = (bed.judged(), bed.findings());
    leader.signal("CONT");
    eventually("it is refused", async || {
        leader.said().contains("somebody else has taken the lease `scan`").then_some(())
    })
    .await;
    assert_eq!((bed.judged(), bed.findings()), (judged.clone(), findings), "nothing of it counts");
    assert!(!findings_are_doubled(&bed));
    bed.assert_each_once(-1, 5);
    let leaders = "select count(*) from judged where scheduler ~ 'leader'";
    assert_eq!(bed.database.execute(leaders).unwrap(), "0");
    drop(other);
    report(
        Part::Scan,
        "the acting scheduler stopped (SIGSTOP) while it counts a window, another takes over, SIGCONT",
        "its late commit is refused by its fencing number; nothing is doubled",
        format!("refused; {} windows, each judged by the other alone", judged.len() - 1),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_stopped_in_its_transaction_leaves_nothing_of_it() {
    let _turn = turn().await;
    let bed = Bed::begun().await;
    bed.traffic(0, 5);
    bed.set_clock(hour(5) + TimeDelta::seconds(10));
    let held = Held::table(&bed, "suspicious_ips").await;
    let leader = Scheduler::start(&bed, "leader");
    waits_for_a_lock(&bed, "suspicious_ips").await;
    leader.signal("STOP");
    held.release(&bed);

    // PostgreSQL ends a transaction that idles for 30 s; the test does not wait for that.
    let idle = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where state = 'idle in transaction' and datname = current_database()";
    eventually("its transaction is ended", async || {
        (bed.database.execute(idle).unwrap() != "0").then_some(())
    })
    .await;
    bed.set_clock(hour(5) + TimeDelta::minutes(3));
    let other = Scheduler::start(&bed, "other");
    bed.is_done_until(5).await;
    let (judged, findings) = (bed.judged(), bed.findings());
    leader.signal("CONT");
    eventually("it says that it failed", async || {
        leader.said().contains("a job failed").then_some(())
    })
    .await;
    assert_eq!((bed.judged(), bed.findings()), (judged, findings), "nothing of it counts");
    bed.assert_each_once(-1, 5);
    assert!(!findings_are_doubled(&bed));
    drop(other);
    report(
        Part::Scan,
        "the acting scheduler stopped (SIGSTOP) inside the transaction that writes a window",
        "PostgreSQL ends the transaction; another judges the window; nothing is doubled",
        "the window was judged once, by the other",
    );
}

fn findings_are_doubled(bed: &Bed) -> bool {
    let sql = "select count(*) from (select from suspicious_ips where status = 'open' \
               group by address, rule having count(*) > 1) twice";
    bed.database.execute(sql).unwrap() != "0"
}
