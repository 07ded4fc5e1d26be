//! PostgreSQL killed and frozen under load.

use std::time::Duration;

use ipwarden_testbed::PostgresServer;
use ipwarden_testbed::report::{Part, report};
use tokio::time::{Instant, sleep};

use super::super::{seed, short_or_long, turn};
use super::{PROMISE, bed, load, on_thread, outage, rate, recovery};

const REPLICAS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_fails_no_request_and_loses_no_record() {
    trial("killed", PostgresServer::stop, PostgresServer::start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_postgres_fails_no_request_and_loses_no_record() {
    trial("frozen (SIGSTOP)", PostgresServer::freeze, PostgresServer::thaw).await;
}

type Act = fn(&PostgresServer) -> anyhow::Result<()>;

async fn trial(how: &str, break_it: Act, heal_it: Act) {
    let _turn = turn().await;
    let seed = seed();
    let (server, bed) = bed(REPLICAS).await;
    let load = load(&bed, seed);
    sleep(Duration::from_secs(1)).await;

    let lasts = Duration::from_secs(short_or_long(15, 300));
    on_thread(&server, break_it).await;
    let outage = outage(&bed, lasts).await;
    on_thread(&server, heal_it).await;
    let measured = recovery(&bed, load, outage, Instant::now()).await;
    let fault = format!(
        "PostgreSQL {how} for {} s at {} requests a second, {REPLICAS} replicas",
        lasts.as_secs(),
        rate().0
    );
    report(Part::Postgres, fault, PROMISE, measured);
}
