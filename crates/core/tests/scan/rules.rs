//! What the rules say is suspicious.

use std::net::IpAddr;
use std::sync::Arc;

use chrono::TimeDelta;
use ipwarden_core::db::request_logs::NewLogged;
use ipwarden_core::scan::Terms;
use ipwarden_engine::client_ip::ClientIpResolver;
use ipwarden_engine::network::Network;

use crate::common::Store;
use crate::{at, burst, every_store, log, log_late, open, request, rows, run, terms};

#[tokio::test]
async fn a_hundred_requests_in_an_hour_are_fine_and_one_more_is_not() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:00:00"), 100, TimeDelta::seconds(30))).await;
        log(&store, burst("192.0.2.2", at("10:00:00"), 101, TimeDelta::seconds(30))).await;
        assert_eq!(run(&store, &terms(), at("11:00:10")).await, ["10"]);
        assert_eq!(open(&store).await, ["192.0.2.2 volume 101"]);
        let row = rows(&store.db, None).await.remove(0);
        assert_eq!((row.first_seen, row.last_seen), (at("10:00:00"), at("10:50:00")));
        let requests = row.evidence["requests"].as_array().unwrap();
        assert_eq!(requests.len(), 5);
        assert_eq!(requests[0]["at"], "2026-03-01T10:50:00Z");
        assert_eq!((&requests[0]["path"], &requests[0]["country"]), (&"/".into(), &"NL".into()));
    })
    .await;
}

#[tokio::test]
async fn exactly_an_hour_from_first_to_last_is_too_far_apart() {
    every_store(async |store: Store| {
        // 101 requests, one every 36 s: an hour from first to last.
        log(&store, burst("192.0.2.1", at("09:30:00"), 101, TimeDelta::seconds(36))).await;
        let mut nearer = burst("192.0.2.2", at("09:30:00"), 101, TimeDelta::seconds(36));
        nearer[100].at -= TimeDelta::microseconds(1);
        log(&store, nearer).await;
        run(&store, &terms(), at("11:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.2 volume 101"]);
    })
    .await;
}

#[tokio::test]
async fn ipv6_is_counted_by_its_64_and_a_sensitive_path_by_its_address() {
    every_store(async |store: Store| {
        let mut all: Vec<NewLogged> = (0..101)
            .map(|n| {
                request(
                    &format!("2001:db8:0:1::{n:x}"),
                    at("10:00:00"),
                    if n == 7 { "/login" } else { "/" },
                )
            })
            .collect();
        all.extend(burst("2001:db8:0:2::1", at("10:00:00"), 100, TimeDelta::seconds(1)));
        log(&store, all).await;
        run(&store, &terms(), at("11:00:10")).await;
        assert_eq!(
            open(&store).await,
            ["2001:db8:0:1::/64 volume 101", "2001:db8:0:1::7 sensitive_path 1"]
        );
    })
    .await;
}

#[tokio::test]
async fn blocked_requests_do_not_count() {
    every_store(async |store: Store| {
        let mut all = burst("192.0.2.1", at("10:00:00"), 101, TimeDelta::seconds(1));
        all[50].verdict = "blocked";
        all.extend(burst("192.0.2.2", at("10:00:00"), 101, TimeDelta::seconds(1)));
        all.iter_mut().filter(|row| row.verdict == "allowed").step_by(2).for_each(|row| {
            row.verdict = "throttled";
        });
        let mut refused = request("192.0.2.3", at("10:00:00"), "/login");
        refused.verdict = "blocked";
        all.push(refused);
        log(&store, all).await;
        run(&store, &terms(), at("11:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.2 volume 101"]);
    })
    .await;
}

#[tokio::test]
async fn a_proxy_within_a_64_does_not_count_for_its_neighbours() {
    every_store(async |store: Store| {
        log(&store, burst("2001:db8:0:1::a", at("10:00:00"), 500, TimeDelta::seconds(1))).await;
        log(&store, burst("2001:db8:0:1::b", at("10:00:00"), 100, TimeDelta::seconds(1))).await;
        let trusted = vec!["2001:db8:0:1::a".parse().unwrap()];
        let terms = Arc::new(Terms { trusted, ..Terms::default() });
        run(&store, &terms, at("11:00:10")).await;
        assert_eq!(open(&store).await, Vec::<String>::new());

        let one_more = request("2001:db8:0:1::b", at("10:05:00"), "/");
        log_late(&store, vec![one_more], at("11:01:00")).await;
        run(&store, &terms, at("11:05:10")).await;
        assert_eq!(open(&store).await, ["2001:db8:0:1::/64 volume 101"]);
        let row = rows(&store.db, None).await.remove(0);
        let shown = row.evidence["requests"].as_array().unwrap();
        assert!(shown.iter().all(|one| one["address"] == "2001:db8:0:1::b"), "{shown:?}");
    })
    .await;
}

#[tokio::test]
async fn who_forges_the_header_is_found_and_not_the_victim() {
    let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
    let resolver = ClientIpResolver::new("X-Forwarded-For", &trusted, false).unwrap();
    every_store(async |store: Store| {
        let attacker: IpAddr = "203.0.113.66".parse().unwrap();
        let direct = resolver.resolve(attacker, &[b"198.51.100.1"]);
        let proxied =
            resolver.resolve("10.0.0.1".parse().unwrap(), &[b"198.51.100.1, 203.0.113.66"]);
        let all = (0..1_000).map(|n| {
            let client = if n % 2 == 0 { direct.ip } else { proxied.ip };
            request(&client.to_string(), at("10:00:00") + TimeDelta::seconds(n), "/login")
        });
        log(&store, all.collect()).await;
        let terms = Arc::new(Terms { trusted: trusted.clone(), ..Terms::default() });
        run(&store, &terms, at("11:00:10")).await;
        assert_eq!(
            open(&store).await,
            ["203.0.113.66 sensitive_path 1000", "203.0.113.66 volume 1000"]
        );
    })
    .await;
}
