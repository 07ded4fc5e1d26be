//! Replicas that start while PostgreSQL is away or frozen.

use std::time::Duration;

use ipwarden_core::db::Db;
use ipwarden_core::keys::ADMIN_KEY_FILE;
use ipwarden_testbed::PostgresServer;
use ipwarden_testbed::report::{Part, report};
use reqwest::StatusCode;
use tokio::time::Instant;

use super::super::check::each_is_logged_once;
use super::super::common::{Launch, eventually};
use super::super::turn;
use super::{
    BLOCKED, DRAINED_WITHIN, SPARED, assert_degraded, bed, block, on_thread, server, whole_again,
};

type Act = fn(&PostgresServer) -> anyhow::Result<()>;

/// How long a start may wait for a store that does not answer.
const STARTED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_starts_without_postgres_on_its_last_lists() {
    starts_on_its_last_lists("down", PostgresServer::stop, PostgresServer::start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_starts_beside_a_frozen_postgres_on_its_last_lists() {
    starts_on_its_last_lists("frozen", PostgresServer::freeze, PostgresServer::thaw).await;
}

async fn starts_on_its_last_lists(how: &str, break_it: Act, heal_it: Act) {
    let _turn = turn().await;
    let (server, mut bed) = bed(1).await;
    bed.replicas[0].terminate();
    assert!(bed.replicas[0].ended().await.success());
    on_thread(&server, break_it).await;

    let ready = bed.replicas[0].start_again().await;
    assert!(ready <= STARTED_WITHIN * 10, "ready after {ready:?}");
    assert_degraded(bed.first()).await;
    assert_eq!(bed.first().get(BLOCKED, "/").await.status(), StatusCode::FORBIDDEN);
    let served = bed.first().get("198.18.0.1", "/").await;
    assert_eq!(served.status(), StatusCode::OK);
    let reference = served.headers()["x-ipwarden-reference"].to_str().unwrap().to_owned();

    on_thread(&server, heal_it).await;
    let back = Instant::now();
    whole_again(bed.first()).await;
    let connected = back.elapsed();
    each_is_logged_once(&bed.db, &[reference], DRAINED_WITHIN).await;
    eventually(DRAINED_WITHIN, "keys count, blocks are made", async || {
        (block(bed.first(), &bed.admin, SPARED).await.0 == StatusCode::CREATED).then_some(())
    })
    .await;
    report(
        Part::Postgres,
        format!("PostgreSQL {how} before a replica starts"),
        "it starts within 5 s, blocks by the copy of its lists on the disk, says that it is degraded, \
         and connects by itself",
        format!(
            "ready after {:.1} s; connected {:.1} s after the return, blocks could be made {:.1} s \
             after it",
            ready.as_secs_f64(),
            connected.as_secs_f64(),
            back.elapsed().as_secs_f64()
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_without_postgres_waits_for_it_alive_and_not_ready() {
    let _turn = turn().await;
    let server = server().await;
    let database = server.database().unwrap();
    let db = Db::postgres(database.url(), 2).unwrap();
    db.migrate().await.unwrap();
    on_thread(&server, PostgresServer::stop).await;

    let launch = Launch::default().behind_proxies().with("DATABASE_URL", database.url());
    let replica = launch.start_unready().await;
    let (status, text) = replica.open("/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(text.contains("not ready: no lists"), "{text}");
    assert_eq!(replica.open("/livez").await.0, StatusCode::OK);

    on_thread(&server, PostgresServer::start).await;
    let back = Instant::now();
    eventually(DRAINED_WITHIN, "it is ready by itself", async || {
        (replica.open("/readyz").await.0 == StatusCode::OK).then_some(())
    })
    .await;
    let ready = back.elapsed();
    // Nobody could say before whether there was a key.
    let key = replica.dir().join("data").join(ADMIN_KEY_FILE);
    let (key, _) = eventually(DRAINED_WITHIN, "the first admin key is made", async || {
        std::fs::read_to_string(&key).ok().map(|key| key.trim().to_owned())
    })
    .await;
    eventually(DRAINED_WITHIN, "the key counts", async || {
        (block(&replica, &key, BLOCKED).await.0 == StatusCode::CREATED).then_some(())
    })
    .await;
    report(
        Part::Postgres,
        "PostgreSQL down before the first start of all",
        "alive and not ready; ready by itself when it is there, with a first admin key",
        format!(
            "ready {:.1} s after PostgreSQL, an operator could block {:.1} s after it",
            ready.as_secs_f64(),
            back.elapsed().as_secs_f64()
        ),
    );
}
