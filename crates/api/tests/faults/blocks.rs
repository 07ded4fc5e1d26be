//! How soon a block is live on every replica, with Redis and without.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipwarden_testbed::RedisServer;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::common::{Bed, Launch, Replica, eventually};
use super::turn;

const REPLICAS: usize = 8;
const WITH_REDIS: Duration = Duration::from_secs(1);
const WITHOUT_REDIS: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_soon_live_on_eight_replicas_with_redis_and_without() {
    let _turn = turn().await;
    let bed = Bed::fleet(REPLICAS, Launch::behind_proxies).await;
    live(&bed, "with Redis", 10, WITH_REDIS).await;

    let redis: RedisServer = bed.redis.clone().unwrap();
    let stopping = redis.clone();
    tokio::task::spawn_blocking(move || stopping.stop()).await.unwrap().unwrap();
    live(&bed, "with Redis down", 3, WITHOUT_REDIS).await;

    // Frozen, it takes hints without passing them on.
    tokio::task::spawn_blocking(move || redis.start().and_then(|()| redis.freeze()))
        .await
        .unwrap()
        .unwrap();
    live(&bed, "with Redis hung", 3, WITHOUT_REDIS).await;
}

/// Blocks and unblocks some addresses, each through another replica, and watches all of them.
async fn live(bed: &Bed, how: &str, rounds: usize, goal: Duration) {
    let (mut blocked, mut unblocked) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let target = Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 1).to_bits() + round as u32);
        let replica = &bed.replicas[round % bed.replicas.len()];
        let path = "/api/v1/blocks";
        let body = json!({ "target": target });
        let status = replica.control_status(Method::POST, path, &bed.admin, body).await;
        assert_eq!(status, StatusCode::CREATED);
        blocked.extend(on_each(bed, target, goal, |status| status == StatusCode::FORBIDDEN).await);

        let path = format!("/api/v1/blocks/{target}");
        let (status, _) = replica.control(Method::DELETE, &path, Some(&bed.admin), None).await;
        assert_eq!(status, StatusCode::OK);
        unblocked
            .extend(on_each(bed, target, goal, |status| status != StatusCode::FORBIDDEN).await);
    }
    for (what, mut times) in [("blocked", blocked), ("unblocked", unblocked)] {
        times.sort_unstable();
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        eprintln!("{how}: {what} on {REPLICAS} replicas: p50 {p50:?}, p99 {p99:?} (goal {goal:?})");
    }
}

/// How long each replica takes until it answers so, from now on.
async fn on_each(
    bed: &Bed,
    client: Ipv4Addr,
    goal: Duration,
    is_live: impl Fn(StatusCode) -> bool + Copy,
) -> Vec<Duration> {
    let changed = Instant::now();
    let watched = bed.replicas.iter().map(async |replica: &Replica| {
        let client = client.to_string();
        eventually(goal * 10, "the change is live", async || {
            is_live(replica.get(&client, "/").await.status()).then_some(())
        })
        .await;
        let took = changed.elapsed();
        assert!(is_live(replica.get(&client, "/").await.status()), "it is back as it was");
        took
    });
    futures_util::future::join_all(watched).await
}
