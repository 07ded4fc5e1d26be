//! Redis going away and coming back, seen from one replica.

use std::time::Duration;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::quota::Quota;
use ipwarden_engine::rate_limit::{BreakerState, Limiter, RedisOptions, WorkerLimiter};
use ipwarden_testbed::proxy::Proxy;

use super::bench::{address, numbered, on_redis};

/// Quicker to give up than a patient bench, slower than production: the machine may be busy.
fn impatient() -> RedisOptions {
    RedisOptions {
        patience: Duration::from_millis(100),
        silence: Duration::from_millis(250),
        ..RedisOptions::default()
    }
}

pub(crate) async fn admitted(worker: &WorkerLimiter, client: u32, requests: u32) -> u32 {
    let mut admitted = 0;
    for _ in 0..requests {
        let bucket = numbered(client);
        let taken = worker.take("anonymous", bucket, Quota::ANONYMOUS, Moment::now()).await;
        admitted += u32::from(taken.admitted);
    }
    admitted
}

/// Waits for an event, not for time: the server is a real one, and comes back when it does.
pub(crate) async fn until(limiter: &Limiter, state: BreakerState) {
    let reached = async {
        while limiter.state().breaker != Some(state) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("the breaker's state");
}

#[tokio::test]
async fn without_redis_a_replica_goes_on_with_its_share_and_what_it_admitted_before() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let limiter = on_redis(server.url(), impatient());
    let worker = limiter.worker();
    assert_eq!(admitted(&worker, 1, 3).await, 3);
    server.stop().unwrap();
    assert_eq!(admitted(&worker, 1, 10).await, 2, "of the five");
    assert_eq!(admitted(&worker, 2, 10).await, 5);
    limiter.set_live_replicas(4);
    assert_eq!(admitted(&worker, 3, 10).await, 1, "of four live replicas");
    until(&limiter, BreakerState::Open).await;
    assert!(limiter.state().fallbacks > 10);

    server.start().unwrap();
    until(&limiter, BreakerState::Closed).await;
    let fallbacks = limiter.state().fallbacks;
    assert_eq!(admitted(&worker, 4, 10).await, 5, "exact again");
    assert_eq!(limiter.state().fallbacks, fallbacks);
    assert_eq!(limiter.state().in_flight, 0);
}

#[tokio::test]
async fn each_loss_and_each_return_of_redis_admits_at_most_one_quota_more() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let replicas: Vec<Limiter> = (0..4).map(|_| on_redis(server.url(), impatient())).collect();
    let workers: Vec<WorkerLimiter> = replicas.iter().map(Limiter::worker).collect();
    let all = async |client, each| {
        let mut total = 0;
        for worker in &workers {
            total += admitted(worker, client, each).await;
        }
        total
    };
    replicas.iter().for_each(|replica| replica.set_live_replicas(4));
    assert_eq!(all(1, 10).await, 5);
    server.stop().unwrap();
    assert_eq!(all(1, 10).await, 0, "what Redis refused stays refused until its window frees");
    assert_eq!(all(2, 10).await, 4, "a share of one each");
    for replica in &replicas {
        until(replica, BreakerState::Open).await;
    }
    server.start().unwrap();
    for replica in &replicas {
        until(replica, BreakerState::Closed).await;
    }
    // It came back empty, and knows nothing of what was admitted without it.
    assert_eq!(all(1, 10).await, 0);
    assert_eq!(all(2, 10).await, 5);
    assert_eq!(all(2, 10).await, 0);
    assert_eq!(all(3, 10).await, 5, "exact again");
}

#[tokio::test]
async fn a_replica_that_starts_without_redis_limits_by_its_share_until_there_is_one() {
    let server = ipwarden_testbed::redis_private().unwrap();
    server.stop().unwrap();
    let limiter = on_redis(server.url(), impatient());
    let worker = limiter.worker();
    assert_eq!(admitted(&worker, 1, 10).await, 5);
    server.start().unwrap();
    until(&limiter, BreakerState::Closed).await;
    assert_eq!(admitted(&worker, 2, 10).await, 5);
}

#[tokio::test]
async fn a_frozen_redis_delays_few_requests_and_admits_no_more() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let limiter = on_redis(server.url(), impatient());
    let worker = limiter.worker();
    assert_eq!(admitted(&worker, 1, 2).await, 2);
    server.freeze().unwrap();
    // Three misses in a row open the breaker; from then on nothing waits.
    assert_eq!(admitted(&worker, 1, 10).await, 3);
    assert!(limiter.state().breaker != Some(BreakerState::Closed));
    let before = Moment::now().steady;
    assert_eq!(admitted(&worker, 2, 1_000).await, 5);
    let took = Duration::from_micros(Moment::now().steady - before);
    assert!(took < Duration::from_secs(1), "a thousand local decisions took {took:?}");

    server.thaw().unwrap();
    until(&limiter, BreakerState::Closed).await;
    let taken =
        worker.take("anonymous", address("203.0.113.9"), Quota::ANONYMOUS, Moment::now()).await;
    assert_eq!((taken.admitted, taken.remaining), (true, 4));
}

#[tokio::test]
async fn an_unanswered_request_is_decided_locally_and_silence_opens_the_breaker() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let limiter = on_redis(server.url(), impatient());
    let worker = limiter.worker();
    assert_eq!(admitted(&worker, 1, 1).await, 1);
    let fallbacks = limiter.state().fallbacks;
    server.freeze().unwrap();
    // One miss is not three in a row: it is the silence after it that counts.
    assert_eq!(admitted(&worker, 1, 1).await, 1);
    assert_eq!(limiter.state().fallbacks, fallbacks + 1);
    assert_eq!(limiter.state().in_flight, 1, "its turn is kept while an answer may come");
    until(&limiter, BreakerState::Open).await;
    assert_eq!(limiter.state().in_flight, 0);
    server.thaw().unwrap();
    until(&limiter, BreakerState::Closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_a_turn_are_let_go_when_redis_is_lost() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let options = RedisOptions {
        most_in_flight: 4,
        // Long, so that turns do not come free by themselves in this case.
        silence: Duration::from_secs(60),
        ..impatient()
    };
    let limiter = on_redis(server.url(), options);
    let worker = limiter.worker();
    assert_eq!(admitted(&worker, 0, 1).await, 1);
    server.freeze().unwrap();
    let mut requests = tokio::task::JoinSet::new();
    for client in 1..=400 {
        let worker = worker.clone();
        requests.spawn(async move { admitted(&worker, client, 1).await });
    }
    let all = tokio::time::timeout(Duration::from_secs(30), requests.join_all()).await;
    assert_eq!(all.expect("nobody waits for a turn that never comes").len(), 400);
    assert_eq!(limiter.state().fallbacks, 400);
    server.thaw().unwrap();
}

#[tokio::test]
async fn a_silent_redis_is_tried_seldom_and_at_irregular_times() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let proxy = Proxy::to(server.url().strip_prefix("redis://").unwrap().parse().unwrap()).unwrap();
    let limiter = on_redis(&format!("redis://{}", proxy.address()), impatient());
    let worker = limiter.worker();
    assert_eq!(admitted(&worker, 1, 1).await, 1);
    proxy.hold();
    assert_eq!(admitted(&worker, 2, 10).await, 5);
    let tried = async {
        while proxy.accepted() < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), tried).await.expect("it is tried again");
    let at = proxy.accepted_at();
    for eleven in at.windows(11) {
        assert!(eleven[10] - eleven[0] >= Duration::from_secs(1), "eleven in a second: {at:?}");
    }
    // From where the pause grows no more.
    let gaps: Vec<Duration> = at[4..].windows(2).map(|two| two[1] - two[0]).collect();
    let (shortest, longest) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*longest - *shortest > Duration::from_millis(30), "in step: {gaps:?}");
    proxy.release();
    until(&limiter, BreakerState::Closed).await;
}

#[tokio::test]
async fn what_a_loss_and_a_return_may_have_admitted_more_is_told() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let limiter = on_redis(server.url(), impatient());
    let worker = limiter.worker();
    assert_eq!(admitted(&worker, 1, 1).await, 1);
    assert_eq!(limiter.state().extra_admissions_possible(5), 0);
    limiter.set_live_replicas(8);
    server.stop().unwrap();
    assert_eq!(admitted(&worker, 2, 10).await, 1);
    until(&limiter, BreakerState::Open).await;
    let lost = limiter.state();
    assert_eq!((lost.losses, lost.returns), (1, 0));
    assert_eq!(lost.extra_admissions_possible(5), 8, "of eight replicas one each");
    assert_eq!(lost.extra_admissions_possible(10), 10);
    limiter.set_live_replicas(4);
    server.start().unwrap();
    until(&limiter, BreakerState::Closed).await;
    let back = limiter.state();
    assert_eq!((back.losses, back.returns, back.most_live_replicas), (1, 1, 8));
    assert_eq!(back.extra_admissions_possible(5), 16, "it does not fall with the replicas");
}

#[tokio::test]
async fn a_connection_that_breaks_and_is_made_again_is_told_of() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let proxy = Proxy::to(server.url().strip_prefix("redis://").unwrap().parse().unwrap()).unwrap();
    let limiter = on_redis(&format!("redis://{}", proxy.address()), impatient());
    let worker = limiter.worker();
    assert_eq!(admitted(&worker, 1, 1).await, 1);
    proxy.lose_answers();
    // Redis has counted the first of these, and this replica as well.
    assert_eq!(admitted(&worker, 2, 10).await, 5);
    let state = limiter.state();
    assert_eq!((state.losses, state.interruptions, state.fallbacks), (0, 1, 1));
    assert_eq!(state.extra_admissions_possible(5), 5);
    assert_eq!(state.in_flight, 0);
}
