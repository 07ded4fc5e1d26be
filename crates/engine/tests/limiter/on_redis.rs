//! What only a shared store can show.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{self, Value};
use ipwarden_engine::clock::Moment;
use ipwarden_engine::quota::Quota;
use ipwarden_engine::rate_limit::{BreakerState, Limiter};
use ipwarden_engine::redis::{RedisConnection, RedisUrl};

use super::bench::{Bench, Store, address, numbered, on_redis, patient, per_minute};

pub(crate) async fn connect(url: &str) -> RedisConnection {
    let url: RedisUrl = url.parse().expect("the testbed's URL");
    url.connect(Duration::from_secs(10)).await.expect("the testbed's Redis")
}

/// How many commands that decide the server has been sent.
pub(crate) async fn decisions(redis: &mut RedisConnection) -> u64 {
    let mut info = redis::cmd("INFO");
    let stats: String = info.arg("commandstats").query_async(redis).await.expect("INFO");
    let calls = |line: &str| -> Option<u64> {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        matches!(command, "evalsha" | "eval").then(|| rest.split(',').next())??.parse().ok()
    };
    stats.lines().filter_map(calls).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_replicas_admit_exactly_five_of_a_hundred_requests_on_each_of_a_thousand_cold_keys() {
    let server = ipwarden_testbed::redis().unwrap();
    let policy: Arc<str> = ipwarden_testbed::unique_name("limiter").into();
    let replicas: Vec<Limiter> = (0..4).map(|_| on_redis(server.url(), patient())).collect();
    let mut requests = tokio::task::JoinSet::new();
    for replica in &replicas {
        for offset in 0..25_u32 {
            let (worker, policy) = (replica.worker(), Arc::clone(&policy));
            requests.spawn(async move {
                let mut admitted = Vec::new();
                for number in 0..1_000 {
                    let key = (number + 40 * offset) % 1_000;
                    let taken =
                        worker.take(&policy, numbered(key), Quota::ANONYMOUS, Moment::now()).await;
                    if taken.admitted {
                        admitted.push(key);
                    }
                }
                admitted
            });
        }
    }
    let mut admitted = vec![0; 1_000];
    for key in requests.join_all().await.into_iter().flatten() {
        admitted[key as usize] += 1;
    }
    assert_eq!(admitted, vec![5; 1_000]);
    for replica in replicas {
        let state = replica.state();
        assert_eq!((state.fallbacks, state.in_flight), (0, 0));
        assert_eq!(state.breaker, Some(BreakerState::Closed));
    }
}

#[tokio::test]
async fn a_forgotten_script_is_no_error() {
    let server = ipwarden_testbed::redis().unwrap();
    let mut redis = connect(server.url()).await;
    let bench = Bench::new(Store::Redis);
    for at in 0..8 {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut redis).await.unwrap();
        let taken = bench.take(address("203.0.113.9"), Quota::ANONYMOUS).await;
        assert_eq!(taken.admitted, at < 5);
    }
    assert_eq!(bench.limiter.state().fallbacks, 0);
}

#[tokio::test]
async fn a_flood_from_a_limited_client_does_not_reach_redis() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let mut redis = connect(server.url()).await;
    let (one, other) =
        (on_redis(server.url(), patient()).worker(), on_redis(server.url(), patient()));
    let client = address("203.0.113.9");
    for _ in 0..5 {
        assert!(one.take("anonymous", client, Quota::ANONYMOUS, Moment::now()).await.admitted);
    }
    let before = decisions(&mut redis).await;
    assert!(before >= 5);
    for _ in 0..1_000 {
        // This replica admitted all five itself, so it need not ask even once.
        assert!(!one.take("anonymous", client, Quota::ANONYMOUS, Moment::now()).await.admitted);
    }
    assert_eq!(decisions(&mut redis).await, before);

    let worker = other.worker();
    let first = worker.take("anonymous", client, Quota::ANONYMOUS, Moment::now()).await;
    assert!(!first.admitted);
    assert_eq!(decisions(&mut redis).await, before + 1);
    for _ in 0..1_000 {
        let again = worker.take("anonymous", client, Quota::ANONYMOUS, Moment::now()).await;
        assert!(!again.admitted && again.remaining == 0);
        assert!(again.frees_in <= first.frees_in);
    }
    assert_eq!(decisions(&mut redis).await, before + 1);
    assert_eq!(other.state().remembered_refusals, 1);

    // Another quota is another question.
    assert!(worker.take("anonymous", client, per_minute(6), Moment::now()).await.admitted);
    assert_eq!(decisions(&mut redis).await, before + 2);
}

#[tokio::test]
async fn a_remembered_refusal_ends_when_the_window_frees() {
    let server = ipwarden_testbed::redis().unwrap();
    let policy = ipwarden_testbed::unique_name("limiter");
    let quota = Quota::new(1, Duration::from_millis(300));
    let client = address("203.0.113.9");
    let one = on_redis(server.url(), patient()).worker();
    let other = on_redis(server.url(), patient()).worker();
    assert!(one.take(&policy, client, quota, Moment::now()).await.admitted);
    let mut refused = other.take(&policy, client, quota, Moment::now()).await;
    while !refused.admitted {
        // The one permissible wait on a real store: as long as it said itself.
        tokio::time::sleep(refused.frees_in).await;
        refused = other.take(&policy, client, quota, Moment::now()).await;
    }
    assert_eq!(refused.remaining, 0);
}

#[tokio::test]
async fn a_log_is_one_key_that_ends_with_its_window() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let mut redis = connect(server.url()).await;
    let worker = on_redis(server.url(), patient()).worker();
    let now = Moment::now();
    worker.take("anonymous", address("203.0.113.9"), Quota::ANONYMOUS, now).await;
    worker.take("anonymous", address("2001:db8::1"), Quota::ANONYMOUS, now).await;
    let alice = ipwarden_engine::quota::Bucket::Identity("alice");
    worker.take("authenticated", alice, Quota::AUTHENTICATED, now).await;
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    keys.sort();
    assert_eq!(
        keys,
        [
            "ipwarden:quota:v1:{anonymous|2001:db8::/64}",
            "ipwarden:quota:v1:{anonymous|203.0.113.9}",
            "ipwarden:quota:v1:{authenticated|id|alice}",
        ]
    );
    for key in keys {
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis).await.unwrap();
        assert!((1..=60_001).contains(&left), "{key} lives {left} ms");
        let log: Value = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
        assert!(matches!(log, Value::BulkString(bytes) if bytes.len() == 17));
    }
}

#[tokio::test]
async fn dropped_requests_leak_nothing_and_count_at_most_once() {
    let server = ipwarden_testbed::redis().unwrap();
    let limiter = on_redis(server.url(), patient());
    let policy = ipwarden_testbed::unique_name("limiter");
    let worker = limiter.worker();
    let quota = per_minute(3_000);
    for turn in 0..1_000_u32 {
        let bucket = numbered(0);
        let take = worker.take(&policy, bucket, quota, Moment::now());
        // The client goes away: before the command is written, after, or once it is answered.
        let patience = Duration::from_micros(u64::from(turn % 4) * 100);
        let _gone = tokio::time::timeout(patience, take).await;
    }
    let taken = worker.take(&policy, numbered(0), quota, Moment::now()).await;
    assert!(taken.admitted);
    assert!(taken.remaining >= 3_000 - 1_001, "{taken:?}");
    let state = limiter.state();
    assert_eq!((state.in_flight, state.fallbacks), (0, 0));
}
