//! The jobs, on both databases: each by itself, and all of them at a start.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_core::config::Config;
use ipwarden_core::db::entries::NewEntry;
use ipwarden_core::db::request_logs::{self, NewLogged};
use ipwarden_core::db::suspicious_ips::{self, Status};
use ipwarden_core::db::{Create, Db, blocked_ips, list_changes, nodes, scan_runs};
use ipwarden_core::detect::Window;
use ipwarden_engine::clock::Moment;
use ipwarden_scheduler::{JOBS, Job, Work};
use tokio_util::sync::CancellationToken;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Moment::now().wall).unwrap()
}

fn work(db: &Db) -> Work {
    Work::of(&Config::default(), db.clone(), None, Moment::now())
}

/// Runs a test on SQLite and on PostgreSQL.
async fn every_store(test: impl AsyncFn(Db)) {
    let directory = tempfile::tempdir().unwrap();
    let sqlite =
        Db::open_sqlite(&directory.path().join("test.db"), Create::IfMissing).await.unwrap();
    let database = ipwarden_testbed::postgres_database().unwrap();
    let postgres = Db::postgres(database.url(), 8).unwrap();
    for db in [sqlite, postgres] {
        db.migrate().await.unwrap();
        test(db).await;
    }
}

async fn log(db: &Db, at: DateTime<Utc>) {
    let row = NewLogged {
        at,
        address: "192.0.2.1".parse().unwrap(),
        method: "GET".to_owned(),
        path: "/login".to_owned(),
        status: 200,
        verdict: "allowed",
        sensitive: true,
        identity: None,
        country: None,
        city: None,
        asn: None,
        user_agent: None,
        reference: None,
        node: "a".into(),
        recorded_at: at,
    };
    request_logs::write(db, vec![row], ()).await.unwrap();
}

async fn block(db: &Db, network: &str, ends: DateTime<Utc>) {
    let entry = NewEntry {
        network: network.parse().unwrap(),
        reason: String::new(),
        origin: "manual".to_owned(),
        created_by: "cli:anna".to_owned(),
        created_at: ends - TimeDelta::hours(1),
        expires_at: Some(ends),
    };
    db.run(move |conn| blocked_ips::put(conn, entry).boxed()).await.unwrap();
}

#[test]
fn every_job_is_on_the_list_once() {
    let jobs: std::collections::HashSet<Job> = JOBS.iter().map(|(job, _)| *job).collect();
    assert_eq!(jobs.len(), JOBS.len());
}

#[tokio::test]
async fn a_start_does_at_once_whatever_was_missed() {
    every_store(async |db: Db| {
        let start = now();
        log(&db, start - TimeDelta::hours(1)).await;
        block(&db, "198.51.100.1", start - TimeDelta::minutes(1)).await;

        // Stopped before it began: the jobs of the start are still done.
        let stop = CancellationToken::new();
        stop.cancel();
        ipwarden_scheduler::run(work(&db), stop).await.unwrap();

        let runs = db.run(|conn| scan_runs::page(conn, None, 10).boxed()).await.unwrap();
        let last_ended = [Window::last_ended(start), Window::last_ended(now())];
        assert!(last_ended.iter().any(|window| window.start() == runs[0].window_start), "{runs:?}");
        let open = db.run(|conn| {
            async move { suspicious_ips::page(conn, Some(Status::Open), None, 10).await }.boxed()
        });
        assert_eq!(open.await.unwrap().len(), 1);
        let changes = db.run(|conn| list_changes::since(conn, 0, 10).boxed()).await.unwrap();
        assert_eq!((changes.len(), changes[0].op.as_str()), (1, "ended"));
        let live = db.run(|conn| {
            async move {
                let now = conn.clock(now()).await?;
                nodes::live(conn, "scheduler", now).await
            }
            .boxed()
        });
        assert_eq!(live.await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_older_than_the_retention_goes_and_the_rest_stays() {
    every_store(async |db: Db| {
        let work = work(&db);
        log(&db, now() - TimeDelta::days(32)).await;
        log(&db, now() - TimeDelta::days(29)).await;
        Job::MakeDays.run(&work).await.unwrap();
        Job::DropDays.run(&work).await.unwrap();
        let left = db.run(|conn| request_logs::count(conn).boxed()).await.unwrap();
        assert_eq!(left, 1);
        Job::Forget.run(&work).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn five_schedulers_at_once_do_everything_once() {
    every_store(async |db: Db| {
        for n in 0..20 {
            block(&db, &format!("198.51.100.{n}"), now() - TimeDelta::minutes(1)).await;
        }
        log(&db, now() - TimeDelta::hours(1)).await;
        let all: Vec<_> = (0..5)
            .map(|_| {
                let work = Arc::new(work(&db));
                tokio::spawn(async move {
                    for (job, _) in JOBS {
                        job.run(&work).await.unwrap();
                    }
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
        let changes = db.run(|conn| list_changes::since(conn, 0, 100).boxed()).await.unwrap();
        assert_eq!(changes.len(), 20, "each block ended once");
        let runs = db.run(|conn| scan_runs::page(conn, None, 10).boxed()).await.unwrap();
        assert!((1..=2).contains(&runs.len()), "one window, or two around the hour: {runs:?}");
    })
    .await;
}
