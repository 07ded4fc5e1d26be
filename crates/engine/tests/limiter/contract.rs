//! What both stores promise alike.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use ipwarden_engine::quota::{Bucket, Quota};
use rstest::rstest;

use super::bench::{Bench, Store, address, numbered, per_minute};

const BOTH: [Store; 2] = [Store::Process, Store::Redis];

#[rstest]
#[tokio::test]
async fn the_sixth_request_within_a_minute_is_refused_and_the_headers_count_down(
    #[values(Store::Process, Store::Redis)] store: Store,
) {
    let bench = Bench::new(store);
    let client = address("203.0.113.9");
    for remaining in [4, 3, 2, 1, 0] {
        let taken = bench.take(client, Quota::ANONYMOUS).await;
        assert_eq!((taken.admitted, taken.remaining), (true, remaining));
        assert!(taken.frees_in > Duration::from_secs(50), "{taken:?}");
        assert!(taken.frees_in <= Duration::from_secs(60), "{taken:?}");
    }
    for _ in 0..3 {
        let taken = bench.take(client, Quota::ANONYMOUS).await;
        assert_eq!((taken.admitted, taken.remaining), (false, 0));
        assert!((51..=60).contains(&taken.retry_after_seconds()), "{taken:?}");
    }
    assert_eq!(bench.limiter.state().fallbacks, 0);
}

#[rstest]
#[tokio::test]
async fn credit_returns_as_each_request_leaves_the_window_and_not_before(
    #[values(Store::Process, Store::Redis)] store: Store,
) {
    let bench = Bench::new(store);
    let quota = Quota::new(3, bench.short_period());
    let client = address("203.0.113.9");
    // Between these two moments of this process each admission was decided.
    let mut admissions = Vec::new();
    let mut refusals = 0;
    while admissions.len() < 10 {
        let before = bench.now().steady;
        let taken = bench.take(client, quota).await;
        if taken.admitted {
            admissions.push((before, bench.now().steady));
            bench.pass(quota.period / 10).await;
        } else {
            refusals += 1;
            assert!(taken.frees_in <= quota.period, "{taken:?}");
            // The one permissible wait on a real store: as long as it said itself.
            bench.pass(taken.frees_in).await;
            let before = bench.now().steady;
            let taken = bench.take(client, quota).await;
            assert!(taken.admitted, "refused after the time that the refusal named");
            admissions.push((before, bench.now().steady));
        }
    }
    for four in admissions.windows(4) {
        let span = four[3].1 - four[0].0;
        assert!(span >= quota.period.as_micros() as u64, "4 of 3 admitted in {span} us");
    }
    assert!(refusals > 0 || store == Store::Redis, "the case must reach the limit");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_requests_released_at_once_on_a_cold_key_exactly_five_are_admitted(
    #[values(Store::Process, Store::Redis)] store: Store,
) {
    let bench = Bench::new(store);
    let barrier = Arc::new(tokio::sync::Barrier::new(100));
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (worker, barrier) = (bench.worker.clone(), Arc::clone(&barrier));
        let (policy, now) = (bench.policy.clone(), bench.now());
        requests.spawn(async move {
            barrier.wait().await;
            worker.take(&policy, address("203.0.113.9"), Quota::ANONYMOUS, now).await
        });
    }
    let taken = requests.join_all().await;
    let mut left: Vec<u32> =
        taken.iter().filter(|taken| taken.admitted).map(|taken| taken.remaining).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2, 3, 4]);
}

#[rstest]
fn sixteen_threads_with_a_thousand_requests_each_on_a_hundred_keys_get_exactly_five_per_key(
    #[values(Store::Process, Store::Redis)] store: Store,
) {
    let bench = Bench::new(store);
    let (limiter, policy, now) = (&bench.limiter, &bench.policy, bench.now());
    let barrier = Barrier::new(16);
    let admitted_by_thread: Vec<[u32; 100]> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16_usize)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread();
                    let runtime = { runtime }.enable_all().build().unwrap();
                    runtime.block_on(async {
                        let worker = limiter.worker();
                        let mut admitted = [0; 100];
                        barrier.wait();
                        for request in 0..1_000 {
                            let key = (request + 7 * thread) % 100;
                            let bucket = numbered(key as u32);
                            let taken = worker.take(policy, bucket, Quota::ANONYMOUS, now).await;
                            admitted[key] += u32::from(taken.admitted);
                        }
                        admitted
                    })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for key in 0..100 {
        let admitted: u32 = admitted_by_thread.iter().map(|admitted| admitted[key]).sum();
        assert_eq!(admitted, 5, "key {key}");
    }
}

#[rstest]
#[tokio::test]
async fn a_lowered_limit_refuses_at_once_and_a_raised_one_admits_the_difference(
    #[values(Store::Process, Store::Redis)] store: Store,
) {
    let bench = Bench::new(store);
    let client = address("203.0.113.9");
    for _ in 0..4 {
        assert!(bench.take(client, per_minute(5)).await.admitted);
    }
    for _ in 0..2 {
        let taken = bench.take(client, per_minute(3)).await;
        assert_eq!((taken.admitted, taken.remaining), (false, 0));
    }
    for remaining in [3, 2, 1, 0] {
        let taken = bench.take(client, per_minute(8)).await;
        assert_eq!((taken.admitted, taken.remaining), (true, remaining));
    }
    assert!(!bench.take(client, per_minute(8)).await.admitted);
    let taken = bench.take(client, per_minute(2)).await;
    assert_eq!((taken.admitted, taken.remaining), (false, 0));
}

#[rstest]
#[tokio::test]
async fn policies_identities_and_networks_do_not_share(
    #[values(Store::Process, Store::Redis)] store: Store,
) {
    let bench = Bench::new(store);
    let other_policy = format!("{} too", bench.policy);
    let buckets = [
        address("203.0.113.9"),
        address("203.0.113.10"),
        address("2001:db8::1"),
        address("2001:db8:0:1::1"),
        Bucket::Identity("alice"),
        Bucket::Identity("bob"),
        Bucket::Identity("203.0.113.9"),
        Bucket::Identity(""),
        Bucket::Identity("with space|and bar}"),
    ];
    for policy in [&bench.policy, &other_policy] {
        for bucket in buckets {
            for at in 0..7 {
                let taken = bench.worker.take(policy, bucket, per_minute(5), bench.now()).await;
                assert_eq!(taken.admitted, at < 5, "{policy} {bucket:?} request {at}");
            }
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_thousand_addresses_of_one_64_are_one_client(
    #[values(Store::Process, Store::Redis)] store: Store,
) {
    let bench = Bench::new(store);
    let mut admitted = 0;
    for host in 0..1_000 {
        let client = address(&format!("2001:db8:1:2::{host:x}"));
        admitted += u32::from(bench.take(client, Quota::ANONYMOUS).await.admitted);
    }
    assert_eq!(admitted, 5);
    for other in ["2001:db8:1:3::1", "2001:db8:1:1::1"] {
        for at in 0..6 {
            let taken = bench.take(address(other), Quota::ANONYMOUS).await;
            assert_eq!(taken.admitted, at < 5);
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_limit_above_a_thousand_is_never_passed(
    #[values(Store::Process, Store::Redis)] store: Store,
) {
    let bench = Bench::new(store);
    let client = address("203.0.113.9");
    let mut admitted = 0;
    for _ in 0..1_600 {
        let taken = bench.take(client, per_minute(1_500)).await;
        admitted += u32::from(taken.admitted);
        assert_eq!(taken.remaining, 1_500 - admitted);
        // The end of the last grain is up to a 64th of the period ahead.
        assert!(taken.frees_in <= Duration::from_secs(61), "{taken:?}");
    }
    assert_eq!(admitted, 1_500);
    // Exact and in grains by turns: what was admitted stays counted.
    assert!(!bench.take(client, per_minute(900)).await.admitted);
    let taken = bench.take(client, per_minute(1_600)).await;
    assert_eq!((taken.admitted, taken.remaining), (true, 99));
}

#[tokio::test]
async fn a_quota_of_one_and_one_of_a_thousand_hold_on_both_stores() {
    for store in BOTH {
        let bench = Bench::new(store);
        assert!(bench.take(address("203.0.113.1"), per_minute(1)).await.admitted);
        assert!(!bench.take(address("203.0.113.1"), per_minute(1)).await.admitted);
        for at in 0..1_010 {
            let taken = bench.take(address("203.0.113.2"), per_minute(1_000)).await;
            assert_eq!(taken.admitted, at < 1_000, "request {at}");
        }
    }
}
