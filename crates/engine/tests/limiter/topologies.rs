//! The limiter where Redis is more than one server: a cluster, and a master that Sentinel names.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_redis::redis;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::quota::Quota;
use ipwarden_engine::rate_limit::{BreakerState, Limiter, RedisOptions};
use ipwarden_testbed::{RedisCluster, RedisSentinel, redis_cluster, redis_sentinel};
use rstest::rstest;

use super::bench::{address, numbered, on_redis, patient};
use super::failure::{admitted, until};
use super::on_redis::connect;

/// What stands at the other end.
#[derive(Clone, Copy, Debug)]
enum Topology {
    Cluster,
    Sentinel,
}

/// The cluster that the tests of this file share.
fn cluster() -> &'static RedisCluster {
    static SHARED: OnceLock<RedisCluster> = OnceLock::new();
    SHARED.get_or_init(|| redis_cluster().expect("a cluster"))
}

/// The master with its sentinel that the tests of this file share: nobody may kill it.
fn sentinel() -> &'static RedisSentinel {
    static SHARED: OnceLock<RedisSentinel> = OnceLock::new();
    SHARED.get_or_init(|| redis_sentinel().expect("a sentinel"))
}

fn url(topology: Topology) -> String {
    match topology {
        Topology::Cluster => cluster().url(),
        Topology::Sentinel => sentinel().url(),
    }
}

/// Accepts connections and says nothing, as a machine that froze.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_requests_at_once_on_each_of_fifty_cold_keys_two_replicas_admit_five(
    #[values(Topology::Cluster, Topology::Sentinel)] topology: Topology,
) {
    let url = url(topology);
    let policy: Arc<str> = ipwarden_testbed::unique_name("limiter").into();
    let replicas: Vec<Limiter> = (0..2).map(|_| on_redis(&url, patient())).collect();
    let barrier = Arc::new(tokio::sync::Barrier::new(100));
    let mut requests = tokio::task::JoinSet::new();
    for at in 0..100 {
        let (worker, policy) = (replicas[at % 2].worker(), Arc::clone(&policy));
        let barrier = Arc::clone(&barrier);
        requests.spawn(async move {
            let mut admitted = Vec::new();
            for key in 0..50 {
                barrier.wait().await;
                let now = Moment::now();
                if worker.take(&policy, numbered(key), Quota::ANONYMOUS, now).await.admitted {
                    admitted.push(key);
                }
            }
            admitted
        });
    }
    let mut admitted = vec![0; 50];
    for key in requests.join_all().await.into_iter().flatten() {
        admitted[key as usize] += 1;
    }
    assert_eq!(admitted, vec![5; 50]);
    for replica in replicas {
        let state = replica.state();
        assert_eq!((state.fallbacks, state.in_flight), (0, 0));
        assert_eq!(state.breaker, Some(BreakerState::Closed));
    }
}

#[tokio::test]
async fn the_logs_lie_on_all_nodes_of_the_cluster() {
    let cluster = redis_cluster().expect("a cluster");
    let worker = on_redis(&cluster.url(), patient()).worker();
    for client in 0..60 {
        let now = Moment::now();
        assert!(worker.take("anonymous", numbered(client), Quota::ANONYMOUS, now).await.admitted);
    }
    let mut keys = Vec::new();
    for port in cluster.ports() {
        let mut node = connect(&format!("redis://127.0.0.1:{port}")).await;
        keys.push(redis::cmd("DBSIZE").query_async::<u32>(&mut node).await.expect("DBSIZE"));
    }
    assert_eq!(keys.iter().sum::<u32>(), 60);
    assert!(keys.iter().all(|keys| *keys > 5), "{keys:?}");
}

#[rstest]
#[tokio::test]
async fn a_forgotten_script_is_no_error(
    #[values(Topology::Cluster, Topology::Sentinel)] topology: Topology,
) {
    let url = url(topology);
    let policy = ipwarden_testbed::unique_name("limiter");
    let mut redis = connect(&url).await;
    let limiter = on_redis(&url, patient());
    let worker = limiter.worker();
    for at in 0..8 {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut redis).await.unwrap();
        let client = address("203.0.113.9");
        let taken = worker.take(&policy, client, Quota::ANONYMOUS, Moment::now()).await;
        assert_eq!(taken.admitted, at < 5);
    }
    assert_eq!(limiter.state().fallbacks, 0);
}

#[rstest]
#[tokio::test]
async fn a_host_that_says_nothing_keeps_nobody_from_the_others(
    #[values(Topology::Cluster, Topology::Sentinel)] topology: Topology,
) {
    let (_listener, port) = silent();
    let url = url(topology).replacen("://", &format!("://127.0.0.1:{port},"), 1);
    let connect_patience = match topology {
        Topology::Cluster => Duration::from_secs(3),
        // Sooner than the library gives up a sentinel, which takes it half a second.
        Topology::Sentinel => Duration::from_millis(400),
    };
    let options = RedisOptions { connect_patience, ..patient() };
    let limiter = on_redis(&url, options);
    let policy = ipwarden_testbed::unique_name("limiter");
    let worker = limiter.worker();
    for at in 0..7 {
        let client = address("203.0.113.9");
        let taken = worker.take(&policy, client, Quota::ANONYMOUS, Moment::now()).await;
        assert_eq!(taken.admitted, at < 5);
    }
    assert_eq!(limiter.state().fallbacks, 0);
    let url: ipwarden_engine::redis::RedisUrl = url.parse().unwrap();
    url.subscriber(Duration::from_secs(3)).await.expect("a subscription to one of the others");
}

#[tokio::test]
async fn a_lost_node_of_a_cluster_costs_no_answer_and_is_asked_again_when_it_is_back() {
    let cluster = redis_cluster().expect("a cluster");
    let options = RedisOptions {
        patience: Duration::from_millis(100),
        silence: Duration::from_millis(250),
        ..RedisOptions::default()
    };
    let limiter = on_redis(&cluster.url(), options);
    let worker = limiter.worker();
    for client in 0..30 {
        assert_eq!(admitted(&worker, client, 3).await, 3);
    }
    assert_eq!(limiter.state().fallbacks, 0);
    cluster.stop_one().expect("stopped");
    for client in 0..30 {
        assert_eq!(admitted(&worker, client, 4).await, 2, "client {client}, of the five");
    }
    let lost = limiter.state().fallbacks;
    assert!(lost > 0, "a third of the keys was there");

    let back = tokio::task::spawn_blocking(move || cluster.start_one().map(|()| cluster));
    let _cluster = back.await.unwrap().expect("it is back");
    let exact_again = async {
        for client in 1_000.. {
            let before = limiter.state().fallbacks;
            for same in 0..30 {
                assert_eq!(admitted(&worker, client * 30 + same, 6).await, 5);
            }
            if limiter.state().fallbacks == before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), exact_again).await.expect("on all nodes again");
    assert_eq!(limiter.state().breaker, Some(BreakerState::Closed));
}

#[tokio::test]
async fn a_failover_costs_no_answer_and_the_new_master_decides() {
    let servers = redis_sentinel().expect("a sentinel");
    let options = RedisOptions {
        patience: Duration::from_millis(100),
        silence: Duration::from_millis(250),
        ..RedisOptions::default()
    };
    let replicas: Vec<Limiter> = (0..2).map(|_| on_redis(&servers.url(), options)).collect();
    let workers: Vec<_> = replicas.iter().map(Limiter::worker).collect();
    replicas.iter().for_each(|replica| replica.set_live_replicas(2));
    assert_eq!(admitted(&workers[0], 1, 3).await, 3);
    assert_eq!(admitted(&workers[1], 1, 10).await, 2, "of the five");

    let mut master = connect(&servers.url()).await;
    let () = redis::cmd("SET").arg("last").arg(1).query_async(&mut master).await.unwrap();
    let mut wait = redis::cmd("WAIT");
    let copies: u32 = wait.arg(1).arg(10_000).query_async(&mut master).await.unwrap();
    assert_eq!(copies, 1, "of everything up to here");

    servers.kill_master().expect("killed");
    // Each replica by its share, and at once: 2 of 5.
    for worker in &workers {
        assert_eq!(admitted(worker, 2, 10).await, 2);
    }
    for replica in &replicas {
        until(replica, BreakerState::Open).await;
    }
    let promoted = tokio::task::spawn_blocking(move || servers.await_promotion().map(|()| servers));
    let servers = promoted.await.unwrap().expect("promoted");
    for replica in &replicas {
        until(replica, BreakerState::Closed).await;
    }
    let fallbacks: Vec<u64> = replicas.iter().map(|replica| replica.state().fallbacks).collect();
    assert_eq!(admitted(&workers[0], 3, 3).await, 3);
    assert_eq!(admitted(&workers[1], 3, 10).await, 2, "exact again");
    assert_eq!(admitted(&workers[0], 1, 10).await, 0, "the copy knows what the master counted");
    for (replica, before) in replicas.iter().zip(fallbacks) {
        let state = replica.state();
        assert_eq!((state.fallbacks, state.in_flight), (before, 0));
    }
    drop(servers);
}
