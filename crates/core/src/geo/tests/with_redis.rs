//! The level of the cache that replicas share, on a real Redis.

use deadpool_redis::redis::AsyncCommands;
use ipwarden_testbed::{RedisServer, redis, redis_private};
use rstest::rstest;

use super::*;
use crate::redis::tests::{Topology, patiently};

fn pool(server: &RedisServer) -> RedisPool {
    RedisPool::new(server.url().parse().expect("a URL"))
}

/// Addresses that no other test asks a shared Redis for.
fn own_addresses(test: u8) -> [IpAddr; 2] {
    let id = u128::from(std::process::id());
    let base = (0x2001_0db8_u128 << 96) | (u128::from(test) << 80) | (id << 16);
    [base, base + 1].map(|bits| std::net::Ipv6Addr::from_bits(bits).into())
}

fn bern(desk: &Desk) {
    write_city(&desk.file("city.mmdb"), &[("2001:db8::/32", "CH", "Bern")]).expect("written");
}

#[tokio::test]
async fn what_one_replica_asked_for_another_finds_in_redis_for_a_day() {
    let server = redis().expect("Redis");
    let desk = Desk::new();
    bern(&desk);
    let addresses = own_addresses(1);
    let first = desk.open_with(Some(pool(&server)));
    first.places(&addresses, noon()).await;
    assert_eq!(first.look_ups(), LookUps { files: 2, ..LookUps::default() });

    let mut connection = pool(&server).connection().await.expect("a connection");
    let key = format!("ipwarden:geo:v1:{}", addresses[0]);
    let seconds: i64 = connection.ttl(&key).await.expect("a time to live");
    assert!((CACHED_SECONDS - 60..=CACHED_SECONDS).contains(&seconds), "{seconds}");

    let second = desk.open_with(Some(pool(&server)));
    let places = second.places(&addresses, noon()).await;
    assert_eq!(places.iter().map(said).collect::<Vec<_>>(), ["CH/Bern/-", "CH/Bern/-"]);
    assert_eq!(second.look_ups(), LookUps { redis: 2, ..LookUps::default() });
    second.places(&addresses, noon()).await;
    assert_eq!(second.look_ups(), LookUps { redis: 2, process: 2, ..LookUps::default() });
    // The day began when the files were asked, not when Redis was.
    let evening = noon() + Duration::seconds(CACHED_SECONDS);
    second.places(&addresses, evening).await;
    assert_eq!(second.look_ups(), LookUps { redis: 2, process: 2, files: 2, redis_failures: 0 });
}

#[rstest]
#[tokio::test]
async fn replicas_share_places_through_a_cluster_and_behind_sentinel(
    #[values(Topology::Cluster, Topology::Sentinel)] topology: Topology,
) {
    let desk = Desk::new();
    write_city(&desk.file("city.mmdb"), &[("2001:db8::/32", "CH", "Bern")]).expect("written");
    let (count, redis) = (200_u128, RedisPool::new(topology.url().parse().expect("a URL")));
    let base = u128::from(0x2001_0db8_u32) << 96;
    let addresses: Vec<IpAddr> =
        (0..count).map(|n| std::net::Ipv6Addr::from_bits(base + n).into()).collect();
    drop(patiently(&redis).await);
    desk.open_with(Some(redis.clone())).places(&addresses, noon()).await;
    let second = desk.open_with(Some(redis));
    let places = second.places(&addresses, noon()).await;
    assert!(places.iter().all(|place| said(place) == "CH/Bern/-"));
    assert_eq!(second.look_ups(), LookUps { redis: 200, ..LookUps::default() });
}

#[tokio::test]
async fn an_entry_of_another_build_is_a_miss_and_is_replaced() {
    let server = redis().expect("Redis");
    let (desk, newer) = (Desk::new(), Desk::new());
    bern(&desk);
    write_city(&newer.file("city.mmdb"), &[("2001:db8::/32", "AT", "Wien")]).expect("written");
    let addresses = own_addresses(2);
    desk.open_with(Some(pool(&server))).places(&addresses, noon()).await;
    for (redis, files) in [(0, 2), (2, 0)] {
        let geo = newer.open_with(Some(pool(&server)));
        let places = geo.places(&addresses, noon()).await;
        assert_eq!(places.iter().map(said).collect::<Vec<_>>(), ["AT/Wien/-", "AT/Wien/-"]);
        assert_eq!(geo.look_ups(), LookUps { redis, files, ..LookUps::default() });
    }
}

#[tokio::test]
async fn one_entry_that_cannot_be_read_spoils_only_itself() {
    let server = redis().expect("Redis");
    let desk = Desk::new();
    bern(&desk);
    let addresses = own_addresses(3);
    desk.open_with(Some(pool(&server))).places(&addresses, noon()).await;
    let mut connection = pool(&server).connection().await.expect("a connection");
    let key = format!("ipwarden:geo:v1:{}", addresses[0]);
    let () = connection.del(&key).await.expect("deleted");
    let () = connection.lpush(&key, "a list").await.expect("pushed");
    let geo = desk.open_with(Some(pool(&server)));
    let places = geo.places(&addresses, noon()).await;
    assert_eq!(places.iter().map(said).collect::<Vec<_>>(), ["CH/Bern/-", "CH/Bern/-"]);
    assert_eq!(geo.look_ups(), LookUps { redis: 1, files: 1, ..LookUps::default() });
}

#[tokio::test]
async fn while_redis_is_frozen_or_gone_the_files_answer_and_it_is_left_alone_for_a_while() {
    let server = redis_private().expect("Redis");
    let desk = Desk::new();
    bern(&desk);
    let geo = desk.open_with(Some(pool(&server)));
    let base = u128::from(0x2001_0db8_u32) << 96;
    let nth = |n: u128| [IpAddr::from(std::net::Ipv6Addr::from_bits(base + n))];
    let failures = async |n, later| {
        let places = geo.places(&nth(n), noon() + Duration::seconds(later)).await;
        assert_eq!(said(&places[0]), "CH/Bern/-");
        geo.look_ups().redis_failures
    };
    assert_eq!(failures(1, 0).await, 0);
    server.freeze().expect("frozen");
    assert_eq!(failures(2, 0).await, 1);
    assert_eq!(failures(3, 4).await, 1, "not asked again at once");
    assert_eq!(failures(4, 5).await, 2);
    server.thaw().expect("thawed");
    server.stop().expect("stopped");
    assert_eq!(failures(5, 10).await, 3);
    server.start().expect("started");
    assert_eq!(failures(6, 15).await, 3, "and it is back");
    let other = desk.open_with(Some(pool(&server)));
    other.places(&nth(6), noon() + Duration::seconds(15)).await;
    assert_eq!(other.look_ups().redis, 1);
}
