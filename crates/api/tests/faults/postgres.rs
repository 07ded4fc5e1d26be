//! PostgreSQL killed, frozen, away at the start, out of connections and out of disk: it is never on
//! the path of a request, and nothing that was answered is lost or stored twice.

mod away;
mod connections;
mod disk;
mod overflow;
mod pooler;
mod start;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::blocked_ips;
use ipwarden_testbed::PostgresServer;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::check::{Tally, each_is_logged_once, percentile};
use super::common::{Bed, Replica, eventually, now};
use super::load::{Load, anybody};

/// Blocked before anything breaks (RFC 5737).
const BLOCKED: &str = "203.0.113.9";
/// What nobody manages to block while the store is away.
const SPARED: &str = "203.0.113.10";
/// The goal after five minutes at 1,000 requests a second.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);
/// What each of these tests promises.
const PROMISE: &str = "no request fails, no record is lost or stored twice, the backlog is drained \
    within 30 s; blocks made meanwhile fail with 503 and change nothing";

/// Requests a second, and clients that send them.
fn rate() -> (u32, u32) {
    super::short_or_long((300, 16), (1_000, 64))
}

async fn server() -> PostgresServer {
    let server = tokio::task::spawn_blocking(ipwarden_testbed::postgres_private);
    server.await.unwrap().unwrap()
}

async fn bed(replicas: usize) -> (PostgresServer, Bed) {
    let server = server().await;
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed =
        Bed::on_own_postgres(&server, replicas, Some(redis), |one| one.behind_proxies()).await;
    block_one(&bed).await;
    (server, bed)
}

/// One is blocked everywhere before anything breaks.
async fn block_one(bed: &Bed) {
    assert_eq!(block(bed.first(), &bed.admin, BLOCKED).await.0, StatusCode::CREATED);
    for replica in &bed.replicas {
        eventually(DRAINED_WITHIN, "the block is live", async || {
            let answer = replica.get(BLOCKED, "/").await;
            (answer.status() == StatusCode::FORBIDDEN).then_some(())
        })
        .await;
    }
}

fn load(bed: &Bed, seed: u64) -> Load {
    let targets: Vec<_> = bed.replicas.iter().map(Replica::public_address).collect();
    let (per_second, connections) = rate();
    Load::start(&targets, per_second, connections, seed, anybody())
}

/// What operators met while the store was away.
struct Outage {
    began: Instant,
    refused: usize,
    slowest: Duration,
    /// How much each replica had said before.
    said: Vec<usize>,
}

/// The store is away: blocks fail loudly, those that there are stand, and the replicas say so.
async fn outage(bed: &Bed, lasts: Duration) -> Outage {
    let said = bed.replicas.iter().map(|replica| replica.said().lines().count()).collect();
    let mut outage = Outage { began: Instant::now(), refused: 0, slowest: Duration::ZERO, said };
    while outage.began.elapsed() < lasts || outage.refused == 0 {
        let asked = Instant::now();
        let replica = &bed.replicas[outage.refused % bed.replicas.len()];
        let (status, problem) = block(replica, &bed.admin, SPARED).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "a block without a store: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("Nothing was changed; try again"), "{problem}");
        outage.refused += 1;
        outage.slowest = outage.slowest.max(asked.elapsed());
        assert_eq!(replica.get(BLOCKED, "/").await.status(), StatusCode::FORBIDDEN);
        assert_ne!(replica.get(SPARED, "/").await.status(), StatusCode::FORBIDDEN);
        sleep(Duration::from_secs(1)).await;
    }
    for replica in &bed.replicas {
        assert_degraded(replica).await;
    }
    outage
}

/// The store is back: everything is as if it had never been away. What was measured, in words.
async fn recovery(bed: &Bed, load: Load, outage: Outage, back: Instant) -> String {
    for replica in &bed.replicas {
        whole_again(replica).await;
    }
    drained(bed).await;
    let drained = back.elapsed();
    for (replica, said) in bed.replicas.iter().zip(&outage.said) {
        assert_terse(replica, *said, outage.began.elapsed());
    }
    let shots = load.stop().await;
    let tally = Tally::of(&shots);
    tally.assert_none_failed();
    each_is_logged_once(&bed.db, &tally.references, DRAINED_WITHIN * 10).await;

    let rows = bed.db.run(|conn| blocked_ips::page(conn, None, 100, now()).boxed()).await.unwrap();
    let there: Vec<String> = rows.iter().map(|row| row.network.to_string()).collect();
    assert_eq!(there, [BLOCKED], "what failed has changed nothing");
    for replica in &bed.replicas {
        assert_ne!(replica.get(SPARED, "/").await.status(), StatusCode::FORBIDDEN);
        assert_eq!(replica.get(BLOCKED, "/").await.status(), StatusCode::FORBIDDEN);
    }
    let lasted = shots.last().unwrap().sent - shots[0].sent;
    format!(
        "{} answers ({:.0} a second), none failed, each logged once; drained {:.1} s after the \
         return; p50 {:.1} ms, p99 {:.1} ms; {} blocks refused, within {:.1} s",
        tally.references.len(),
        tally.references.len() as f64 / lasted.as_secs_f64(),
        drained.as_secs_f64(),
        percentile(&shots, 50).as_secs_f64() * 1e3,
        percentile(&shots, 99).as_secs_f64() * 1e3,
        outage.refused,
        outage.slowest.as_secs_f64(),
    )
}

/// Waits until each replica has shipped all but what it answered within the last second.
async fn drained(bed: &Bed) {
    let of_a_second = i64::from(rate().0) / bed.replicas.len() as i64;
    for replica in &bed.replicas {
        eventually(DRAINED_WITHIN * 10, "the backlog is drained", async || {
            let shipped = replica.metric("ipwarden_records_shipped_total").await;
            (requests(replica).await - shipped <= of_a_second).then_some(())
        })
        .await;
    }
}

/// All that it has answered on its public listener since it started.
async fn requests(replica: &Replica) -> i64 {
    let mut all = 0;
    for verdict in ["allowed", "blocked", "throttled"] {
        all += replica.metric(&format!("ipwarden_requests_total{{verdict=\"{verdict}\"}}")).await;
    }
    all
}

/// It does not flood its own log: what it says of one cause takes a line in ten seconds at most. Calls
/// that failed are told each with the reference that their callers got.
fn assert_terse(replica: &Replica, before: usize, lasted: Duration) {
    let said = replica.said();
    let mut causes: HashMap<&str, usize> = HashMap::new();
    for line in said.lines().skip(before) {
        let Some((_time, cause)) = line.split_once(' ') else { continue };
        // The words before its fields.
        let cause = cause.split_once('=').map_or(cause, |(words, _)| words);
        *causes.entry(cause).or_default() += 1;
    }
    causes.retain(|cause, _| !cause.contains("a request failed"));
    let bound = 1 + lasted.as_secs().div_ceil(10) as usize;
    let often: Vec<_> = causes.iter().filter(|(_, times)| **times > bound).collect();
    assert!(often.is_empty(), "more than {bound} times in {lasted:?}: {often:?}");
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
    eventually(DRAINED_WITHIN * 2, "its store is back", async || {
        let (_, text) = replica.open("/readyz?verbose").await;
        (text.contains("[+] lists") && text.contains("[+] request log")).then_some(())
    })
    .await;
}

/// Tries to block somebody; a failure is a problem document.
async fn block(replica: &Replica, key: &str, target: &str) -> (StatusCode, Value) {
    let target: Ipv4Addr = target.parse().unwrap();
    let url = format!("{}/api/v1/blocks", replica.control);
    let request = reqwest::Client::new().post(url).bearer_auth(key);
    let answer = request.json(&json!({ "target": target })).send().await.unwrap();
    let status = answer.status();
    let kind = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    assert!(status.is_success() || kind == "application/problem+json", "{status}: {kind}");
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

/// Starting and stopping a server waits for it.
async fn on_thread<S: Clone + Send + 'static, T: Send + 'static>(
    server: &S,
    act: impl FnOnce(&S) -> anyhow::Result<T> + Send + 'static,
) -> T {
    let server = server.clone();
    tokio::task::spawn_blocking(move || act(&server)).await.unwrap().unwrap()
}
