//! Which windows are judged, by whom, and how often.

use chrono::TimeDelta;
use futures_util::FutureExt;
use ipwarden_core::db::touched_hours::{self, TouchedHour};
use ipwarden_core::db::{DbError, leases};
use ipwarden_core::detect::Window;
use ipwarden_core::scan::{self, Due, Outcome, Reason};

use crate::common::Store;
use crate::{at, burst, every_store, log, log_late, open, request, run, runs, set_clock, terms};

#[tokio::test]
async fn a_row_at_the_hour_counts_in_the_hour_that_it_begins() {
    every_store(async |store: Store| {
        log(&store, vec![request("192.0.2.1", at("10:00:00"), "/login")]).await;
        log(&store, vec![request("192.0.2.2", at("11:00:00"), "/login")]).await;
        run(&store, &terms(), at("11:00:00")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1"]);
        run(&store, &terms(), at("12:00:00")).await;
        assert_eq!(
            open(&store).await,
            ["192.0.2.1 sensitive_path 1", "192.0.2.2 sensitive_path 1"]
        );
    })
    .await;
}

#[tokio::test]
async fn requests_around_the_hour_count_together_in_the_hour_of_the_last() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:30:00"), 101, TimeDelta::seconds(30))).await;
        run(&store, &terms(), at("11:00:10")).await;
        assert_eq!(open(&store).await, Vec::<String>::new(), "only 60 of them in the first hour");
        run(&store, &terms(), at("12:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101"]);
    })
    .await;
}

#[tokio::test]
async fn five_schedulers_judge_each_window_once() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:00:00"), 150, TimeDelta::seconds(20))).await;
        log(&store, vec![request("192.0.2.1", at("12:30:00"), "/login")]).await;
        let mut judged: Vec<Window> = Vec::new();
        for tick in 0..100 {
            // A tick every six minutes: ten hours.
            let now = at("11:00:10") + TimeDelta::minutes(6) * tick;
            set_clock(&store, now);
            let all = (0..5).map(|n| {
                let (db, terms) = (store.db.clone(), terms());
                tokio::spawn(async move {
                    scan::run_due(&db, &terms, &format!("scheduler-{n}"), || now).await.unwrap()
                })
            });
            for one in all.collect::<Vec<_>>() {
                if let Outcome::Done(windows) = one.await.unwrap() {
                    judged.extend(windows.iter().map(|judged| judged.window));
                }
            }
        }
        let expected: Vec<Window> =
            (0..10).map(|n| Window::of(at("10:00:00") + TimeDelta::hours(n))).collect();
        judged.sort();
        assert_eq!(judged, expected, "each exactly once");
        assert_eq!(runs(&store.db).await.len(), 10, "one row per window");
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1", "192.0.2.1 volume 150"]);
    })
    .await;
}

#[tokio::test]
async fn missed_hours_are_caught_up_in_order_once_each() {
    every_store(async |store: Store| {
        assert_eq!(run(&store, &terms(), at("05:00:10")).await, ["04"]);
        log(&store, burst("192.0.2.1", at("07:10:00"), 101, TimeDelta::seconds(1))).await;
        assert_eq!(run(&store, &terms(), at("10:30:00")).await, ["05", "06", "07", "08", "09"]);
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101"]);
        assert_eq!(run(&store, &terms(), at("10:59:59")).await, Vec::<String>::new());
        assert_eq!(runs(&store.db).await.len(), 6);
    })
    .await;
}

#[tokio::test]
async fn an_empty_hour_is_recorded_as_done() {
    every_store(async |store: Store| {
        assert_eq!(run(&store, &terms(), at("11:00:10")).await, ["10"]);
        let all = runs(&store.db).await;
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].window_start, all[0].window_end), (at("10:00:00"), at("11:00:00")));
        assert_eq!((all[0].scheduler.as_str(), all[0].findings), ("one", 0));
    })
    .await;
}

#[tokio::test]
async fn late_records_are_judged_and_nothing_counts_twice() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:30:00"), 60, TimeDelta::seconds(1))).await;
        log(&store, vec![request("192.0.2.2", at("10:30:00"), "/login")]).await;
        run(&store, &terms(), at("11:00:10")).await;
        log(&store, burst("192.0.2.1", at("11:00:00"), 20, TimeDelta::seconds(1))).await;
        run(&store, &terms(), at("12:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.2 sensitive_path 1"]);

        // What a replica had in its spool: it completes a span that reaches into the next hour.
        let late = burst("192.0.2.1", at("10:31:00"), 30, TimeDelta::seconds(1));
        log_late(&store, late, at("12:10:00")).await;
        log_late(&store, vec![request("192.0.2.2", at("10:20:00"), "/login")], at("12:10:00"))
            .await;
        assert_eq!(run(&store, &terms(), at("12:30:00")).await, ["10", "11"]);
        let found = ["192.0.2.1 volume 110", "192.0.2.2 sensitive_path 2"];
        assert_eq!(open(&store).await, found);

        assert_eq!(run(&store, &terms(), at("12:40:00")).await, Vec::<String>::new());
        let between = (at("09:00:00"), at("12:00:00"));
        for _ in 0..3 {
            scan::run_between(&store.db, &terms(), between, || at("12:50:00")).await.unwrap();
        }
        assert_eq!(open(&store).await, found, "however often it is judged");
        let of_11 =
            runs(&store.db).await.into_iter().find(|run| run.window_start == at("11:00:00"));
        assert_eq!(of_11.unwrap().findings, 1, "the row of the window tells what it holds now");
    })
    .await;
}

#[tokio::test]
async fn a_scheduler_that_lost_its_lease_writes_nothing() {
    every_store(async |store: Store| {
        log(&store, vec![request("192.0.2.1", at("10:10:00"), "/login")]).await;
        let take = async |holder: &'static str| {
            store
                .db
                .transaction(move |conn| {
                    let ttl = TimeDelta::minutes(5);
                    leases::acquire(conn, scan::LEASE, holder, ttl, at("11:00:10")).boxed()
                })
                .await
                .unwrap()
        };
        let slow = take("slow").await.unwrap();
        assert_eq!(take("quick").await, None, "one at a time");
        let ended = slow.clone();
        store
            .db
            .run(move |conn| {
                async move { leases::release(conn, &ended, at("11:00:10")).await }.boxed()
            })
            .await
            .unwrap();
        let quick = take("quick").await.unwrap();
        assert!(quick.fencing > slow.fencing);

        let due = Due {
            window: Window::of(at("10:00:00")),
            reason: Reason::Schedule,
            settles: Vec::new(),
        };
        let outcome = scan::scan(&store.db, &terms(), due.clone(), &slow, at("11:00:10")).await;
        assert!(matches!(outcome, Err(DbError::Conflict(_))), "{outcome:?}");
        assert_eq!(open(&store).await, Vec::<String>::new());
        assert_eq!(runs(&store.db).await, Vec::new());

        scan::scan(&store.db, &terms(), due, &quick, at("11:00:10")).await.unwrap();
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1"]);
    })
    .await;
}

#[tokio::test]
async fn an_operators_scan_makes_no_hour_a_missed_one() {
    every_store(async |store: Store| {
        let old =
            (at("00:00:00") - TimeDelta::days(4_000), at("01:00:00") - TimeDelta::days(4_000));
        scan::run_between(&store.db, &terms(), old, || at("11:00:10")).await.unwrap();
        assert_eq!(runs(&store.db).await[0].scheduler, "ipctl");
        assert_eq!(run(&store, &terms(), at("11:00:10")).await, ["10"]);
        // An hour that an operator had scanned while it went on is judged when it has ended.
        let running = (at("11:00:00"), at("12:00:00"));
        scan::run_between(&store.db, &terms(), running, || at("11:30:00")).await.unwrap();
        assert_eq!(run(&store, &terms(), at("12:00:10")).await, ["11"]);
        assert_eq!(run(&store, &terms(), at("12:10:10")).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn an_hour_that_is_touched_while_it_is_judged_stays_touched() {
    every_store(async |store: Store| {
        let touched = async || {
            let before = touched_hours::before;
            store.db.run(move |conn| before(conn, at("11:00:00")).boxed()).await.unwrap()
        };
        let forget = async |row: TouchedHour| {
            let forgotten = store
                .db
                .run(move |conn| async move { touched_hours::forget(conn, &row).await }.boxed());
            forgotten.await.unwrap();
        };
        let late = |recorded| {
            log_late(&store, vec![request("192.0.2.1", at("10:00:00"), "/")], at(recorded))
        };
        late("10:00:01").await;
        let judged = touched().await.remove(0);
        // The recorder dates all the batches of one look alike, and a clock may be set back.
        late("10:00:00").await;
        late("10:00:01").await;
        forget(judged).await;
        let rest = touched().await;
        assert_eq!(rest.len(), 1, "the later records have not been judged");
        forget(rest[0].clone()).await;
        assert_eq!(touched().await, []);
    })
    .await;
}
