//! Runs that take long: nobody else judges meanwhile, and nothing is lost.

use std::sync::mpsc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_core::db::{Db, leases};
use ipwarden_core::detect::Window;
use ipwarden_core::scan::{self, Due, Outcome, Reason};
use tokio::time::Instant;

use crate::common::Store;
use crate::{at, every_store, log, open, request, run, runs, set_clock, terms};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_of_eighty_minutes_overlaps_with_no_other_and_loses_nothing() {
    every_store(async |store: Store| {
        let first = at("10:00:10");
        run(&store, &terms(), first - TimeDelta::hours(40)).await;
        for hours in 0..42 {
            let then = at("11:59:59") - TimeDelta::hours(hours);
            log(&store, vec![request("192.0.2.1", then, "/login")]).await;
        }
        // At each look at the clock the run waits until the test has set it, 40 seconds on.
        let (looks, looked) = mpsc::channel::<mpsc::Sender<DateTime<Utc>>>();
        let db = store.db.clone();
        let slow = tokio::spawn(async move {
            let clock = move || {
                let (tell, told) = mpsc::channel();
                looks.send(tell).unwrap();
                told.recv().unwrap()
            };
            scan::run_due(&db, &terms(), "slow", clock).await.unwrap()
        });
        let (mut now, mut kept_out) = (first, 0);
        while let Ok(tell) = looked.recv() {
            set_clock(&store, now);
            if now > first {
                let quick = scan::run_due(&store.db, &terms(), "quick", || now).await.unwrap();
                kept_out += usize::from(quick == Outcome::Busy);
                assert!(quick == Outcome::Busy || slow.is_finished(), "{quick:?} at {now}");
            }
            tell.send(now).unwrap();
            now += TimeDelta::seconds(40);
        }
        let Outcome::Done(judged) = slow.await.unwrap() else { panic!("it was the first") };
        let hours: Vec<_> = judged.iter().map(|one| one.window.start()).collect();
        let expected: Vec<_> = (0..40).map(|n| at("10:00:00") - TimeDelta::hours(40 - n)).collect();
        assert_eq!(hours, expected, "every hour once, in order");
        assert!(now - first > TimeDelta::minutes(80) && kept_out > 80, "{now} {kept_out}");
        // Another hour ended while it ran: the next run's.
        assert_eq!(run(&store, &terms(), at("11:59:59")).await, ["10"]);
        assert_eq!(run(&store, &terms(), at("12:00:10")).await, ["11"]);
        assert_eq!(runs(&store.db).await.len(), 43);
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 42"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_hour_that_takes_longer_to_count_than_the_lease_lasts_is_judged_all_the_same() {
    every_store(async |store: Store| {
        let Some(database) = &store.database else {
            return; // SQLite has no lock that holds up a reader.
        };
        log(&store, vec![request("192.0.2.1", at("10:10:00"), "/login")]).await;
        let lease = take(&store.db, "slow").await.unwrap();
        // Shorter than the five seconds after which PostgreSQL gives a lock up.
        let mut holder = database.psql().unwrap();
        holder.args(["-c", "begin; lock request_logs; select pg_sleep(4.5); commit"]);
        let mut holder = holder.spawn().unwrap();
        let locks = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted \
                     and relation = 'request_logs'::regclass";
        while database.execute(locks).unwrap() != "1" {}

        let db = store.db.clone();
        let due = Due {
            window: Window::of(at("10:00:00")),
            reason: Reason::Schedule,
            settles: Vec::new(),
        };
        let slow =
            tokio::spawn(
                async move { scan::scan(&db, &terms(), due, &lease, at("11:00:10")).await },
            );
        // Two seconds, of a lease that lasts one.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            assert!(!slow.is_finished(), "the hour was counted in spite of the lock");
            let taken = take(&store.db, "quick").await;
            assert_eq!(taken, None, "it was thought dead after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        slow.await.unwrap().unwrap();
        holder.wait().unwrap();
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1"]);
    })
    .await;
}

async fn take(db: &Db, holder: &'static str) -> Option<leases::Lease> {
    let taken = db.transaction(move |conn| {
        async move {
            let now = conn.clock(at("11:00:10")).await?;
            leases::acquire(conn, scan::LEASE, holder, TimeDelta::seconds(1), now).await
        }
        .boxed()
    });
    taken.await.unwrap()
}
