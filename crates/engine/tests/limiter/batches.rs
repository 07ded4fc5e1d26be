//! Questions that go out together: each is still decided on its own.

use deadpool_redis::redis;
use futures_util::future::join_all;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::quota::Quota;
use ipwarden_engine::redis::RedisConnection;

use super::bench::{numbered, on_redis, patient};
use super::on_redis::{connect, decisions};

fn key(policy: &str, number: u32) -> String {
    format!("ipwarden:quota:v1:{{{policy}|10.0.{}.{}}}", number / 256, number % 256)
}

#[tokio::test]
async fn the_questions_of_a_moment_go_out_together_and_each_is_decided_on_its_own() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let mut redis = connect(server.url()).await;
    let limiter = on_redis(server.url(), patient());
    let worker = limiter.worker();
    // The connection is there.
    assert!(worker.take("first", numbered(0), Quota::ANONYMOUS, Moment::now()).await.admitted);
    let before = decisions(&mut redis).await;
    let takes = (0..100).map(|number| {
        worker.take("anonymous", numbered(number % 25), Quota::ANONYMOUS, Moment::now())
    });
    let taken = join_all(takes).await;
    assert!(taken.iter().all(|taken| taken.admitted && taken.remaining < 5));
    let again = (0..20).map(|_| worker.take("more", numbered(7), Quota::ANONYMOUS, Moment::now()));
    let admitted = join_all(again).await.iter().filter(|taken| taken.admitted).count();
    assert_eq!(admitted, 5);
    let commands = decisions(&mut redis).await - before;
    assert!((2..=12).contains(&commands), "120 questions in {commands} commands");
    assert_eq!((limiter.state().fallbacks, limiter.state().in_flight), (0, 0));
}

#[tokio::test]
async fn a_key_that_cannot_be_counted_keeps_no_other_from_it() {
    let server = ipwarden_testbed::redis_private().unwrap();
    let mut redis = connect(server.url()).await;
    let limiter = on_redis(server.url(), patient());
    let worker = limiter.worker();
    assert!(worker.take("first", numbered(0), Quota::ANONYMOUS, Moment::now()).await.admitted);
    let _: () = redis::cmd("LPUSH")
        .arg(key("anonymous", 3))
        .arg("x")
        .query_async(&mut redis)
        .await
        .unwrap();
    let takes = (0..10)
        .map(|number| worker.take("anonymous", numbered(number), Quota::ANONYMOUS, Moment::now()));
    assert!(join_all(takes).await.iter().all(|taken| taken.admitted));
    assert_eq!(limiter.state().fallbacks, 1, "one is decided in the process");
    for number in (0..10).filter(|number| *number != 3) {
        let log: Vec<u8> =
            redis::cmd("GET").arg(key("anonymous", number)).query_async(&mut redis).await.unwrap();
        assert_eq!(log.len(), 17, "client {number} was counted once");
    }
}

/// The slot of a key, told by a node.
async fn slot(key: &str, redis: &mut RedisConnection) -> u16 {
    redis::cmd("CLUSTER")
        .arg("KEYSLOT")
        .arg(key)
        .query_async(redis)
        .await
        .expect("a node of a cluster")
}

#[tokio::test]
async fn one_node_of_a_cluster_that_is_asked_like_a_single_server_is_asked_one_by_one() {
    let cluster = ipwarden_testbed::redis_cluster().unwrap();
    let url = format!("redis://127.0.0.1:{}", cluster.ports().next().unwrap());
    let mut redis = connect(&url).await;
    let limiter = on_redis(&url, patient());
    let worker = limiter.worker();
    let mut own = Vec::new();
    for number in 0..100 {
        // The first of three nodes has the first third of 16,384 slots.
        if slot(&key("anonymous", number), &mut redis).await < 5_400 {
            own.push(number);
        }
    }
    assert!(own.len() > 10, "{own:?}");
    for turn in 0..2 {
        let takes = own.iter().map(|number| {
            worker.take("anonymous", numbered(*number), Quota::ANONYMOUS, Moment::now())
        });
        for taken in join_all(takes).await {
            assert_eq!((taken.admitted, taken.remaining), (true, 4 - turn));
        }
    }
    assert_eq!(limiter.state().fallbacks, 0);
}
