//! Replicas that are cut off from PostgreSQL and Redis while the lists change, and the healing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipwarden_testbed::proxy::Proxy;
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::common::{Bed, Launch, PATIENCE, Replica, eventually};
use super::turn;

/// The first two reach the stores directly, the others through proxies.
const REPLICAS: usize = 4;
const DIRECT: usize = 2;
const GOAL: Duration = Duration::from_secs(2);

/// Clients, by what becomes of them while the partition lasts.
const STAYS: &str = "203.0.113.1";
const UNBLOCKED: &str = "203.0.113.2";
const BLOCKED: &str = "203.0.113.3";
const UNDONE: &str = "203.0.113.4";
const REDONE: &str = "203.0.113.5";
const BEFORE: [(&str, bool); 5] =
    [(STAYS, true), (UNBLOCKED, true), (BLOCKED, false), (UNDONE, false), (REDONE, true)];
const AFTER: [(&str, bool); 5] =
    [(STAYS, true), (UNBLOCKED, false), (BLOCKED, true), (UNDONE, false), (REDONE, true)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_cut_off_without_a_reset_have_the_last_lists_soon_after_the_healing() {
    // Longer than anybody waits for an answer of the store.
    let lasts = Duration::from_secs(short_or_long(12, 120));
    partition("held back without a reset", lasts, Proxy::hold, Proxy::release).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_connections_were_cut_have_the_last_lists_soon_after_the_healing() {
    let lasts = Duration::from_secs(short_or_long(4, 120));
    let cut = |proxy: &Proxy| {
        proxy.hold();
        proxy.cut();
    };
    partition("cut, and new connections held back", lasts, cut, Proxy::release).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_connections_were_forgotten_have_the_last_lists_soon_after_the_healing() {
    // As a firewall does that starts anew: what was open leads nowhere, and nobody says so.
    let lasts = Duration::from_secs(short_or_long(4, 120));
    let heal = |proxy: &Proxy| {
        proxy.strand();
        proxy.release();
    };
    partition("held back and then forgotten", lasts, Proxy::hold, heal).await;
}

async fn partition(
    how: &str,
    lasts: Duration,
    break_it: impl Fn(&Proxy),
    heal_it: impl Fn(&Proxy),
) {
    let _turn = turn().await;
    let redis = ipwarden_testbed::redis_private().unwrap();
    let postgres = ipwarden_testbed::postgres().unwrap().url("any");
    let proxies = [redis.url(), &postgres].map(|url| Proxy::to(server_of(url)).unwrap());
    let started = Arc::new(AtomicUsize::new(0));
    let bed = Bed::on_postgres(REPLICAS, Some(redis), |launch: Launch| {
        let launch = launch.behind_proxies();
        if started.fetch_add(1, Ordering::Relaxed) < DIRECT {
            return launch;
        }
        launch
            .through("REDIS_URL", proxies[0].address())
            .through("DATABASE_URL", proxies[1].address())
    })
    .await;
    for (client, blocked) in BEFORE {
        if blocked {
            block(&bed, client).await;
        }
    }
    all_have(&bed.replicas, BEFORE).await;

    proxies.iter().for_each(&break_it);
    let broken = Instant::now();
    block(&bed, BLOCKED).await;
    unblock(&bed, UNBLOCKED).await;
    block(&bed, UNDONE).await;
    unblock(&bed, UNDONE).await;
    unblock(&bed, REDONE).await;
    block(&bed, REDONE).await;
    all_have(&bed.replicas[..DIRECT], AFTER).await;
    while broken.elapsed() < lasts {
        for replica in &bed.replicas[DIRECT..] {
            assert!(has(replica, BEFORE).await, "what it had stays in force");
        }
        sleep(Duration::from_millis(100)).await;
    }

    proxies.iter().for_each(&heal_it);
    let healed = all_have(&bed.replicas[DIRECT..], AFTER).await;
    // Nothing that was held back undoes it.
    sleep(Duration::from_millis(1_500)).await;
    all_have(&bed.replicas, AFTER).await;
    report(
        Part::Lists,
        format!(
            "{} of {REPLICAS} replicas cut off from PostgreSQL and Redis for {} s ({how}) while \
             networks are blocked and unblocked elsewhere",
            REPLICAS - DIRECT,
            lasts.as_secs(),
        ),
        format!(
            "their lists stay in force, and are the last committed ones {GOAL:?} after the healing"
        ),
        format!("after {healed:?}"),
    );
    assert!(healed <= GOAL * 10, "{healed:?}");
}

fn server_of(url: &str) -> SocketAddr {
    let (_, rest) = url.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().parse().unwrap()
}

/// Waits until these replicas answer these clients so; returns how long that took.
async fn all_have(replicas: &[Replica], expected: [(&str, bool); 5]) -> Duration {
    let (_, took) = eventually(PATIENCE, "each has these lists", async || {
        for replica in replicas {
            if !has(replica, expected).await {
                return None;
            }
        }
        Some(())
    })
    .await;
    took
}

async fn has(replica: &Replica, expected: [(&str, bool); 5]) -> bool {
    for (client, blocked) in expected {
        let status = replica.get(client, "/").await.status();
        assert!(!status.is_server_error(), "{client}: {status}");
        if (status == StatusCode::FORBIDDEN) != blocked {
            return false;
        }
    }
    true
}

async fn block(bed: &Bed, client: &str) {
    let body = json!({ "target": client });
    let status = bed.first().control_status(Method::POST, "/api/v1/blocks", &bed.admin, body).await;
    assert_eq!(status, StatusCode::CREATED);
}

async fn unblock(bed: &Bed, client: &str) {
    let path = format!("/api/v1/blocks/{client}");
    let (status, _) = bed.api(Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::OK);
}
