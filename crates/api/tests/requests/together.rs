//! Requests that race, over one process and over several.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use reqwest::StatusCode;

use crate::common::{Bed, Launch, PATIENCE, TEN_TIMES_A_SECOND, eventually};

const CLIENTS: usize = 50;
const EACH: usize = 20;

#[tokio::test]
async fn each_of_many_racing_clients_gets_exactly_five() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let requests = (0..CLIENTS * EACH).map(|n| {
            let replica = &bed.replicas[n / CLIENTS % bed.replicas.len()];
            async move {
                let client = format!("203.0.113.{}", n % CLIENTS);
                let status = replica.get(&client, "/").await.status();
                (client, status)
            }
        });
        let answers: Vec<_> =
            futures_util::stream::iter(requests).buffer_unordered(200).collect().await;
        let mut admitted = BTreeMap::new();
        for (client, status) in answers {
            match status {
                StatusCode::OK => *admitted.entry(client).or_insert(0) += 1,
                status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
            }
        }
        assert_eq!(admitted.len(), CLIENTS, "{}", bed.size);
        let mut alone = 0;
        if bed.redis.is_some() {
            for replica in &bed.replicas {
                alone += replica.metric("ipwarden_limiter_fallbacks_total").await;
            }
        }
        // On a machine that is too busy for Redis to answer in time, each such decision is at most one
        // admission more.
        let beyond: i64 = admitted.values().map(|count| (count - 5).max(0)).sum();
        assert!(beyond <= alone, "{}: {alone} without Redis, {admitted:?}", bed.size);
        let exact = alone > 0 || admitted.values().all(|count| *count == 5);
        assert!(exact, "{}: {admitted:?}", bed.size);
        bed.logs(CLIENTS * EACH).await;
    }
}

#[tokio::test]
async fn without_redis_each_replica_gives_its_share_and_says_that_this_is_degraded() {
    let bed = Bed::on_postgres(2, None, Launch::behind_proxies).await;
    for replica in &bed.replicas {
        let (text, _) = eventually(PATIENCE, "each hears of the other", async || {
            let (status, text) = replica.open("/readyz?verbose").await;
            assert_eq!(status, StatusCode::OK, "degraded but serving is ready");
            text.contains("1 of 2").then_some(text)
        })
        .await;
        assert!(text.contains("[!] quotas: no Redis"), "{text}");
        assert!(text.contains("[!] scan: none has run yet"), "{text}");
        assert!(text.ends_with("degraded\nready\n"), "{text}");
        assert_eq!(replica.metric("ipwarden_degraded").await, 1);
    }
    for replica in &bed.replicas {
        let mut admitted = 0;
        for _ in 0..10 {
            let status = replica.get("203.0.113.1", "/").await.status();
            admitted += usize::from(status == StatusCode::OK);
        }
        assert_eq!(admitted, 2, "half of five");
    }
    // Changes reach the other replica without a hint.
    let block = serde_json::json!({ "target": "203.0.113.1" });
    bed.api(reqwest::Method::POST, "/api/v1/blocks", Some(block)).await;
    let (_, took) = eventually(TEN_TIMES_A_SECOND, "the block arrives", async || {
        let answer = bed.replicas[1].get("203.0.113.1", "/").await;
        (answer.status() == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
    eprintln!("without a hint the other replica blocked after {took:?} (goal 2 s)");
}
