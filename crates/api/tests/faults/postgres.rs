//! PostgreSQL killed, frozen, and away at the start: it is never on the path of a request.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::blocked_ips;
use ipwarden_testbed::PostgresServer;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::check::{Tally, each_is_logged_once, percentile};
use super::common::{Bed, Replica, eventually, now};
use super::load::{Load, anybody};
use super::{seed, turn};

/// Blocked before anything breaks (RFC 5737).
const BLOCKED: &str = "203.0.113.9";
/// What nobody manages to block while the store is away.
const SPARED: &str = "203.0.113.10";
/// The goal after five minutes; the outage here is shorter.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_fails_no_request_and_loses_no_record() {
    let _turn = turn().await;
    let seed = seed();
    let (server, bed) = bed(2).await;
    let load = load(&bed, seed);
    sleep(Duration::from_secs(1)).await;

    on_thread(&server, PostgresServer::stop).await;
    outage(&bed, Duration::from_secs(8)).await;
    on_thread(&server, PostgresServer::start).await;
    let back = Instant::now();
    recovery(&bed, load, back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_postgres_fails_no_request_and_loses_no_record() {
    let _turn = turn().await;
    let seed = seed();
    let (server, bed) = bed(2).await;
    let load = load(&bed, seed);
    sleep(Duration::from_secs(1)).await;

    on_thread(&server, PostgresServer::freeze).await;
    outage(&bed, Duration::from_secs(8)).await;
    on_thread(&server, PostgresServer::thaw).await;
    let back = Instant::now();
    recovery(&bed, load, back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_starts_without_postgres_on_its_last_lists() {
    let _turn = turn().await;
    let (server, mut bed) = bed(1).await;
    bed.replicas[0].terminate();
    assert!(bed.replicas[0].ended().await.success());
    on_thread(&server, PostgresServer::stop).await;

    let ready = bed.replicas[0].start_again().await;
    eprintln!("ready after {ready:?} without PostgreSQL");
    assert_degraded(bed.first()).await;
    assert_eq!(bed.first().get(BLOCKED, "/").await.status(), StatusCode::FORBIDDEN);
    let served = bed.first().get("198.18.0.1", "/").await;
    assert_eq!(served.status(), StatusCode::OK);
    let reference = served.headers()["x-ipwarden-reference"].to_str().unwrap().to_owned();

    on_thread(&server, PostgresServer::start).await;
    let back = Instant::now();
    whole_again(bed.first()).await;
    eprintln!("connected {:?} after its return", back.elapsed());
    each_is_logged_once(&bed.db, &[reference], DRAINED_WITHIN).await;
    let (_, took) = eventually(DRAINED_WITHIN, "keys count, blocks are made", async || {
        (block(bed.first(), &bed.admin, SPARED).await == StatusCode::CREATED).then_some(())
    })
    .await;
    eprintln!("a block could be made {took:?} later");
}

async fn bed(replicas: usize) -> (PostgresServer, Bed) {
    let server = tokio::task::spawn_blocking(ipwarden_testbed::postgres_private);
    let server = server.await.unwrap().unwrap();
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed =
        Bed::on_own_postgres(&server, replicas, Some(redis), |one| one.behind_proxies()).await;
    assert_eq!(block(bed.first(), &bed.admin, BLOCKED).await, StatusCode::CREATED);
    for replica in &bed.replicas {
        eventually(DRAINED_WITHIN, "the block is live", async || {
            let answer = replica.get(BLOCKED, "/").await;
            (answer.status() == StatusCode::FORBIDDEN).then_some(())
        })
        .await;
    }
    (server, bed)
}

fn load(bed: &Bed, seed: u64) -> Load {
    let targets: Vec<_> = bed.replicas.iter().map(Replica::public_address).collect();
    Load::start(&targets, 300, 16, seed, anybody())
}

/// The store is away: blocks fail loudly, those that there are stand, and the replicas say so.
async fn outage(bed: &Bed, lasts: Duration) {
    let began = Instant::now();
    let mut refused = 0;
    while began.elapsed() < lasts || refused == 0 {
        let (asked, replica) = (Instant::now(), &bed.replicas[refused % bed.replicas.len()]);
        let status = block(replica, &bed.admin, SPARED).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "a block without a store");
        refused += 1;
        eprintln!("block {refused}: {status} after {:?}", asked.elapsed());
        assert_eq!(replica.get(BLOCKED, "/").await.status(), StatusCode::FORBIDDEN);
        assert_ne!(replica.get(SPARED, "/").await.status(), StatusCode::FORBIDDEN);
        sleep(Duration::from_secs(1)).await;
    }
    for replica in &bed.replicas {
        assert_degraded(replica).await;
    }
}

async fn recovery(bed: &Bed, load: Load, back: Instant) {
    for replica in &bed.replicas {
        whole_again(replica).await;
    }
    sleep(Duration::from_secs(1)).await;
    let shots = load.stop().await;
    let tally = Tally::of(&shots);
    tally.assert_none_failed();
    let within = DRAINED_WITHIN * 10;
    each_is_logged_once(&bed.db, &tally.references, within).await;
    eprintln!(
        "{} answers, none failed, all logged once {:?} after the return (goal {DRAINED_WITHIN:?}); \
         p50 {:?}, p99 {:?}",
        tally.references.len(),
        back.elapsed(),
        percentile(&shots, 50),
        percentile(&shots, 99),
    );
    let rows = bed.db.run(|conn| blocked_ips::page(conn, None, 100, now()).boxed()).await.unwrap();
    let there: Vec<String> = rows.iter().map(|row| row.network.to_string()).collect();
    assert_eq!(there, [BLOCKED], "what failed has changed nothing");
    for replica in &bed.replicas {
        assert_ne!(replica.get(SPARED, "/").await.status(), StatusCode::FORBIDDEN);
        assert_eq!(replica.get(BLOCKED, "/").await.status(), StatusCode::FORBIDDEN);
    }
}

/// It is ready, and says that its store is away.
async fn assert_degraded(replica: &Replica) {
    eventually(DRAINED_WITHIN, "it says that it is degraded", async || {
        let (status, text) = replica.open("/readyz?verbose").await;
        assert_eq!(status, StatusCode::OK, "degraded is ready: {text}");
        text.contains("[!] lists").then_some(())
    })
    .await;
    assert_eq!(replica.metric("ipwarden_degraded").await, 1);
}

async fn whole_again(replica: &Replica) {
    eventually(DRAINED_WITHIN, "its store is back", async || {
        let (_, text) = replica.open("/readyz?verbose").await;
        (text.contains("[+] lists") && text.contains("[+] request log")).then_some(())
    })
    .await;
}

async fn block(replica: &Replica, key: &str, target: &str) -> StatusCode {
    let target: Ipv4Addr = target.parse().unwrap();
    let body = json!({ "target": target });
    replica.control_status(Method::POST, "/api/v1/blocks", key, body).await
}

/// Starting and stopping a server waits for it.
async fn on_thread(
    server: &PostgresServer,
    act: impl FnOnce(&PostgresServer) -> anyhow::Result<()> + Send + 'static,
) {
    let server = server.clone();
    tokio::task::spawn_blocking(move || act(&server)).await.unwrap().unwrap();
}
