//! Clocks that are wrong: a scheduler's machine beside a store that knows better, and the store's own.

use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_core::db::{leases, scan_runs};
use ipwarden_core::scan::{self, Outcome};

use crate::common::Store;
use crate::{at, every_store, log, open, request, run, runs, set_clock, terms};

fn year(text: &str) -> DateTime<Utc> {
    format!("{text}-07-01T12:34:56Z").parse().unwrap()
}

#[tokio::test]
async fn a_scheduler_whose_machine_lives_in_another_year_judges_by_the_stores_clock() {
    every_store(async |store: Store| {
        if store.database.is_none() {
            return; // It has no clock but the machine's.
        }
        let judged =
            async |machine: &'static str| match scan::run_due(&store.db, &terms(), "one", || {
                year(machine)
            })
            .await
            .unwrap()
            {
                Outcome::Done(all) => all.iter().map(|one| one.window.start()).collect(),
                Outcome::Busy => vec![],
            };
        log(&store, vec![request("192.0.2.1", at("12:59:59"), "/login")]).await;
        set_clock(&store, at("12:59:59.9"));
        assert_eq!(judged("2026").await, [at("11:00:00")]);
        assert!(judged("2040").await.is_empty(), "the hour goes on");
        set_clock(&store, at("13:00:10"));
        assert_eq!(judged("2040").await, [at("12:00:00")]);
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1"]);
        set_clock(&store, at("15:00:10"));
        assert_eq!(judged("1970").await, [at("13:00:00"), at("14:00:00")]);
        let all = runs(&store.db).await;
        assert_eq!((all[0].started_at, all[0].finished_at), (at("15:00:10"), at("15:00:10")));
    })
    .await;
}

#[tokio::test]
async fn a_store_that_was_days_ahead_passes_no_hour_over_when_it_is_right_again() {
    every_store(async |store: Store| {
        assert_eq!(run(&store, &terms(), at("11:00:10")).await, ["10"]);
        log(&store, vec![request("192.0.2.1", at("11:10:00"), "/login")]).await;
        let ahead = at("11:30:00") + TimeDelta::days(2);
        assert_eq!(run(&store, &terms(), ahead).await.len(), 48, "as it must think");

        log(&store, vec![request("192.0.2.2", at("11:40:00"), "/login")]).await;
        assert_eq!(run(&store, &terms(), at("11:59:59")).await, Vec::<String>::new());
        let last = async |now| {
            let asked = store.db.run(move |conn| scan_runs::last_finished(conn, now).boxed());
            asked.await.unwrap()
        };
        assert_eq!(last(at("11:59:59")).await, Some(at("11:00:10")), "the future is no news");
        assert_eq!(run(&store, &terms(), at("12:00:10")).await, ["11"]);
        assert_eq!(
            open(&store).await,
            ["192.0.2.1 sensitive_path 1", "192.0.2.2 sensitive_path 1"]
        );
        assert_eq!(last(at("12:00:11")).await, Some(at("12:00:10")));
        assert_eq!(run(&store, &terms(), at("14:00:10")).await, ["12", "13"]);
        assert_eq!(run(&store, &terms(), at("14:05:10")).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_during_a_run_makes_the_rest_wait() {
    every_store(async |store: Store| {
        if store.database.is_some() {
            return; // There the clock cannot be moved from within the run.
        }
        assert_eq!(run(&store, &terms(), at("09:00:10")).await, ["08"]);
        let looks = AtomicUsize::new(0);
        let clock = || match looks.fetch_add(1, Ordering::Relaxed) {
            0..=3 => at("14:00:10"),
            _ => at("11:30:00"),
        };
        let outcome = scan::run_due(&store.db, &terms(), "one", clock).await.unwrap();
        let Outcome::Done(judged) = outcome else { panic!("nobody else is at it") };
        let ends: Vec<_> = judged.iter().map(|one| one.window.end()).collect();
        assert_eq!(ends, [at("10:00:00"), at("11:00:00")]);
        assert_eq!(run(&store, &terms(), at("14:00:20")).await, ["11", "12", "13"]);
    })
    .await;
}

#[tokio::test]
async fn a_lease_from_a_year_to_come_keeps_nobody_out() {
    every_store(async |store: Store| {
        let take = async |now: DateTime<Utc>| {
            let ttl = TimeDelta::minutes(2);
            let taken = store.db.transaction(move |conn| {
                leases::acquire(conn, scan::LEASE, "killed", ttl, now).boxed()
            });
            taken.await.unwrap().is_some()
        };
        assert!(take(at("11:00:10")).await);
        assert!(!take(at("11:00:09")).await, "a clock may be put right by a second");
        assert!(take(year("2040")).await, "whoever had it in 2026 is long gone");
        assert_eq!(run(&store, &terms(), at("12:00:10")).await, ["11"]);
    })
    .await;
}
