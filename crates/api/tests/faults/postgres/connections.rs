//! PostgreSQL without a free connection: others have taken all that it allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ipwarden_testbed::report::{Part, report};
use ipwarden_testbed::{Guest, PostgresServer, postgres_private_with};
use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use super::super::common::Bed;
use super::super::{seed, short_or_long, turn};
use super::{
    BLOCKED, PROMISE, assert_degraded, block_one, load, on_thread, outage, rate, recovery,
    whole_again,
};

const REPLICAS: u32 = 2;
/// Of each replica, with the one for the log; see `Bed`.
const POOL: u32 = 4;
/// What PostgreSQL allows in all; three of them are kept for superusers.
const CONNECTIONS: &str = "max_connections=24";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_out_of_connections_fails_no_request_and_loses_no_record() {
    let _turn = turn().await;
    let seed = seed();
    let (server, mut bed) = bed().await;
    let watch = Watch::start(server.clone());
    let load = load(&bed, seed);
    sleep(Duration::from_secs(1)).await;

    let guests = on_thread(&server, take_all).await;
    let taken = guests.len();
    let lasts = Duration::from_secs(short_or_long(8, 300));
    let outage = outage(&bed, lasts).await;
    drop(guests);
    let measured = recovery(&bed, load, outage, Instant::now()).await;

    // Once more, and a replica starts in the midst of it.
    let guests = on_thread(&server, take_all).await;
    bed.replicas[0].crash();
    let ready = bed.replicas[0].start_again().await;
    assert_degraded(bed.first()).await;
    assert_eq!(bed.first().get(BLOCKED, "/").await.status(), StatusCode::FORBIDDEN);
    drop(guests);
    whole_again(bed.first()).await;

    let most = watch.stop();
    assert!(most > 0, "the replicas are recognised");
    assert!(most <= REPLICAS * POOL, "{most} connections of {REPLICAS} replicas");
    report(
        Part::Postgres,
        format!(
            "PostgreSQL out of connections ({taken} taken by others) for {} s at {} requests a \
             second, {REPLICAS} replicas",
            lasts.as_secs(),
            rate().0
        ),
        format!("{PROMISE}; no replica has more than its {POOL} connections"),
        format!(
            "{measured}; at most {most} connections of {REPLICAS} replicas; one that started \
             meanwhile was ready after {:.1} s",
            ready.as_secs_f64()
        ),
    );
}

/// Replicas that are ordinary users of the database.
async fn bed() -> (PostgresServer, Bed) {
    let start = || postgres_private_with(&[CONNECTIONS], None);
    let server = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
    server.execute("create role ipwarden login; create role guest login").unwrap();
    let database = server.database().unwrap();
    server.execute(&format!("alter database {} owner to ipwarden", database.name())).unwrap();
    let url = database.url_of("ipwarden");
    let redis = ipwarden_testbed::redis_private().unwrap();
    let replicas = REPLICAS as usize;
    let bed = Bed::on_url(database, &url, replicas, Some(redis), |one| one.behind_proxies()).await;
    block_one(&bed).await;
    (server, bed)
}

/// Ends the replicas' connections until others have them all, for a while.
fn take_all(server: &PostgresServer) -> anyhow::Result<Vec<Guest>> {
    let (mut guests, mut calm) = (Vec::new(), 0);
    // Whoever asks here holds a connection itself, which is free for anybody a moment later.
    while calm < 10 {
        let more = server.take_connections("guest")?;
        let ended = server.execute(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity \
             where application_name = 'ipwarden'",
        )?;
        calm = if more.is_empty() && ended == "0" { calm + 1 } else { 0 };
        guests.extend(more);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(guests)
}

/// Counts the replicas' connections all the time.
struct Watch {
    most: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start(server: PostgresServer) -> Watch {
        let (most, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (highest, stopped) = (most.clone(), stop.clone());
        let count = "select count(*) from pg_stat_activity where application_name = 'ipwarden'";
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // As a superuser, for whom there is always a connection, unless several ask at once.
                if let Ok(count) = server.execute(count) {
                    highest.fetch_max(count.parse().unwrap(), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Watch { most, stop, thread }
    }

    /// The most that there were at once.
    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.most.load(Ordering::Relaxed)
    }
}
