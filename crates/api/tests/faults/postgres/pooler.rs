//! PgBouncer between the replicas and PostgreSQL, restarted under load.

use std::time::Duration;

use ipwarden_testbed::report::{Part, report};
use ipwarden_testbed::{PgBouncer, pgbouncer_private};
use tokio::time::{Instant, sleep};

use super::super::common::Bed;
use super::super::{seed, short_or_long, turn};
use super::{PROMISE, block_one, load, on_thread, outage, rate, recovery, server};

const REPLICAS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_pgbouncer_fails_no_request_and_loses_no_record() {
    let _turn = turn().await;
    let seed = seed();
    let server = server().await;
    let pooler = on_thread(&server, |server| pgbouncer_private(server, "session", 20)).await;
    let database = server.database().unwrap();
    let url = pooler.url(&database);
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed = Bed::on_url(database, &url, REPLICAS, Some(redis), |one| one.behind_proxies()).await;
    block_one(&bed).await;
    let load = load(&bed, seed);
    sleep(Duration::from_secs(1)).await;

    on_thread(&pooler, PgBouncer::stop).await;
    let lasts = Duration::from_secs(short_or_long(5, 60));
    let outage = outage(&bed, lasts).await;
    on_thread(&pooler, PgBouncer::start).await;
    let measured = recovery(&bed, load, outage, Instant::now()).await;
    let fault = format!(
        "PgBouncer (session pooling) killed and started {} s later at {} requests a second, \
         {REPLICAS} replicas",
        lasts.as_secs(),
        rate().0
    );
    report(Part::Postgres, fault, PROMISE, measured);
}
