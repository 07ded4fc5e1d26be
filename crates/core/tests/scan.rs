//! The scan, on both databases: what it finds, how often, and what it leaves alone.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::db::entries::NewEntry;
use ipwarden_core::db::leases;
use ipwarden_core::db::request_logs::{self, NewLogged};
use ipwarden_core::db::scan_runs::{self, ScanRun};
use ipwarden_core::db::suspicious_ips::{self, Review, Status, SuspiciousIp};
use ipwarden_core::db::{Db, DbError, allowed_ips, audit_log, blocked_ips, traffic};
use ipwarden_core::detect::{Rule, Rules, Window, detect};
use ipwarden_core::scan::{self, Due, Outcome, Reason, Terms};
use ipwarden_engine::client_ip::ClientIpResolver;
use ipwarden_engine::network::Network;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-03-01T{text}Z").parse().unwrap()
}

fn request(address: &str, at: DateTime<Utc>, path: &str) -> NewLogged {
    NewLogged {
        at,
        address: address.parse().unwrap(),
        method: "GET".to_owned(),
        path: path.to_owned(),
        status: 200,
        verdict: "allowed",
        sensitive: path.starts_with("/login"),
        identity: None,
        country: Some("NL".to_owned()),
        city: None,
        asn: None,
        user_agent: None,
        reference: None,
        node: "a".into(),
        recorded_at: at,
    }
}

/// `count` requests, one every `step`.
fn burst(address: &str, from: DateTime<Utc>, count: i32, step: TimeDelta) -> Vec<NewLogged> {
    (0..count).map(|n| request(address, from + step * n, "/")).collect()
}

async fn log(store: &Store, rows: Vec<NewLogged>) {
    request_logs::write(&store.db, rows, |_| async { Ok(()) }.boxed()).await.unwrap();
}

async fn log_late(store: &Store, mut rows: Vec<NewLogged>, recorded_at: DateTime<Utc>) {
    rows.iter_mut().for_each(|row| row.recorded_at = recorded_at);
    log(store, rows).await;
}

fn terms() -> Arc<Terms> {
    Arc::new(Terms::default())
}

/// The windows that were judged, by their hour.
async fn run(store: &Store, terms: &Arc<Terms>, now: DateTime<Utc>) -> Vec<String> {
    match scan::run_due(&store.db, terms, "one", || now).await.unwrap() {
        Outcome::Done(all) => {
            all.iter().map(|judged| judged.window.start().format("%H").to_string()).collect()
        }
        Outcome::Busy => panic!("nobody else is at it"),
    }
}

async fn rows(db: &Db, status: Option<Status>) -> Vec<SuspiciousIp> {
    db.run(move |conn| suspicious_ips::page(conn, status, None, 1_000).boxed()).await.unwrap()
}

/// All open rows as `address rule hits`, sorted.
async fn open(store: &Store) -> Vec<String> {
    let mut all: Vec<String> = rows(&store.db, Some(Status::Open))
        .await
        .into_iter()
        .map(|row| format!("{} {} {}", row.address, row.rule, row.hits))
        .collect();
    all.sort();
    all
}

async fn runs(db: &Db) -> Vec<ScanRun> {
    db.run(|conn| scan_runs::page(conn, None, 1_000).boxed()).await.unwrap()
}

async fn review(store: &Store, id: i64, status: Status, now: DateTime<Utc>) {
    let review = Review { status, by: "cli:anna".to_owned(), at: now };
    let reviewed = store
        .db
        .run(move |conn| async move { suspicious_ips::review(conn, id, &review).await }.boxed())
        .await
        .unwrap();
    assert_eq!(reviewed.unwrap().status, status);
}

#[tokio::test]
async fn sch_01_a_hundred_requests_in_an_hour_are_fine_and_one_more_is_not() {
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
async fn sch_03_a_row_at_the_hour_counts_in_the_hour_that_it_begins() {
    every_store(async |store: Store| {
        log(&store, vec![request("192.0.2.1", at("10:00:00"), "/login")]).await;
        log(&store, vec![request("192.0.2.2", at("11:00:00"), "/login")]).await;
        run(&store, &terms(), at("11:00:00")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1"]);
        run(&store, &terms(), at("12:00:00")).await;
        assert_eq!(
            open(&store).await,
            ["192.0.2.1 sensitive_path 1", "192.0.2.2 sensitive_path 1"]
        );
    })
    .await;
}

#[tokio::test]
async fn requests_around_the_hour_count_together_in_the_hour_of_the_last() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:30:00"), 101, TimeDelta::seconds(30))).await;
        run(&store, &terms(), at("11:00:10")).await;
        assert_eq!(open(&store).await, Vec::<String>::new(), "only 60 of them in the first hour");
        run(&store, &terms(), at("12:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101"]);
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
async fn sch_04_five_schedulers_judge_each_window_once() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:00:00"), 150, TimeDelta::seconds(20))).await;
        log(&store, vec![request("192.0.2.1", at("12:30:00"), "/login")]).await;
        let mut judged: Vec<Window> = Vec::new();
        for tick in 0..100 {
            // A tick every six minutes: ten hours.
            let now = at("11:00:10") + TimeDelta::minutes(6) * tick;
            let all = (0..5).map(|n| {
                let (db, terms) = (store.db.clone(), terms());
                tokio::spawn(async move {
                    scan::run_due(&db, &terms, &format!("scheduler-{n}"), || now).await.unwrap()
                })
            });
            for one in all.collect::<Vec<_>>() {
                if let Outcome::Done(windows) = one.await.unwrap() {
                    judged.extend(windows.iter().map(|judged| judged.window));
                }
            }
        }
        let expected: Vec<Window> =
            (0..10).map(|n| Window::of(at("10:00:00") + TimeDelta::hours(n))).collect();
        judged.sort();
        assert_eq!(judged, expected, "each exactly once");
        assert_eq!(runs(&store.db).await.len(), 10, "one row per window");
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1", "192.0.2.1 volume 150"]);
    })
    .await;
}

#[tokio::test]
async fn sch_07_missed_hours_are_caught_up_in_order_once_each() {
    every_store(async |store: Store| {
        assert_eq!(run(&store, &terms(), at("05:00:10")).await, ["04"]);
        log(&store, burst("192.0.2.1", at("07:10:00"), 101, TimeDelta::seconds(1))).await;
        assert_eq!(run(&store, &terms(), at("10:30:00")).await, ["05", "06", "07", "08", "09"]);
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101"]);
        assert_eq!(run(&store, &terms(), at("10:59:59")).await, Vec::<String>::new());
        assert_eq!(runs(&store.db).await.len(), 6);
    })
    .await;
}

#[tokio::test]
async fn sch_13_a_trusted_proxy_is_not_found_and_an_allowed_address_is_never_blocked() {
    every_store(async |store: Store| {
        for address in ["10.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.9"] {
            log(&store, burst(address, at("10:00:00"), 101, TimeDelta::seconds(1))).await;
        }
        let allowed = NewEntry {
            network: "192.0.2.0/24".parse().unwrap(),
            reason: "our office".to_owned(),
            origin: "manual".to_owned(),
            created_by: "cli:anna".to_owned(),
            created_at: at("09:00:00"),
            expires_at: None,
        };
        store.db.run(move |conn| allowed_ips::put(conn, allowed).boxed()).await.unwrap();
        let terms = Arc::new(Terms {
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
            own: vec!["198.51.100.1".parse().unwrap()],
            auto_block: true,
            ..Terms::default()
        });
        run(&store, &terms, at("11:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101", "198.51.100.1 volume 101"]);
        let all = rows(&store.db, Some(Status::Open)).await;
        let note = all.iter().find(|row| row.address.to_string() == "192.0.2.1").unwrap();
        let note = note.evidence["note"].as_str().unwrap();
        assert!(note.contains("on the allowlist"), "{note}");

        let blocked = rows(&store.db, Some(Status::Blocked)).await;
        assert_eq!(blocked.len(), 1);
        assert_eq!(blocked[0].address.to_string(), "203.0.113.9");
        assert_eq!(blocked[0].reviewed_by.as_deref(), Some("scan"));
        let now = at("11:00:11");
        let blocks = store.db.run(move |conn| blocked_ips::page(conn, None, 10, now).boxed()).await;
        let blocks = blocks.unwrap();
        assert_eq!((blocks.len(), blocks[0].origin.as_str()), (1, "scan"));
        // A day from the last request on, which was 58 minutes and a half ago.
        let lasts = blocks[0].expires_at.unwrap() - blocks[0].created_at;
        assert_eq!(lasts, at("10:01:40") + TimeDelta::hours(24) - at("11:00:10"));
        let audit = store.db.run(|conn| audit_log::page(conn, None, 10).boxed()).await.unwrap();
        assert_eq!((audit[0].actor.as_str(), audit[0].target.as_str()), ("scan", "203.0.113.9"));
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
async fn sch_14_who_forges_the_header_is_found_and_not_the_victim() {
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

#[tokio::test]
async fn sch_18_an_empty_hour_is_recorded_as_done() {
    every_store(async |store: Store| {
        assert_eq!(run(&store, &terms(), at("11:00:10")).await, ["10"]);
        let all = runs(&store.db).await;
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].window_start, all[0].window_end), (at("10:00:00"), at("11:00:00")));
        assert_eq!((all[0].scheduler.as_str(), all[0].findings), ("one", 0));
    })
    .await;
}

#[tokio::test]
async fn late_records_are_judged_and_nothing_counts_twice() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:30:00"), 60, TimeDelta::seconds(1))).await;
        log(&store, vec![request("192.0.2.2", at("10:30:00"), "/login")]).await;
        run(&store, &terms(), at("11:00:10")).await;
        log(&store, burst("192.0.2.1", at("11:00:00"), 20, TimeDelta::seconds(1))).await;
        run(&store, &terms(), at("12:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.2 sensitive_path 1"]);

        // What a replica had in its spool: it completes a span that reaches into the next hour.
        let late = burst("192.0.2.1", at("10:31:00"), 30, TimeDelta::seconds(1));
        log_late(&store, late, at("12:10:00")).await;
        log_late(&store, vec![request("192.0.2.2", at("10:20:00"), "/login")], at("12:10:00"))
            .await;
        assert_eq!(run(&store, &terms(), at("12:30:00")).await, ["10", "11"]);
        let found = ["192.0.2.1 volume 110", "192.0.2.2 sensitive_path 2"];
        assert_eq!(open(&store).await, found);

        assert_eq!(run(&store, &terms(), at("12:40:00")).await, Vec::<String>::new());
        let between = (at("09:00:00"), at("12:00:00"));
        for _ in 0..3 {
            scan::run_between(&store.db, &terms(), between, || at("12:50:00")).await.unwrap();
        }
        assert_eq!(open(&store).await, found, "however often it is judged");
        let of_11 =
            runs(&store.db).await.into_iter().find(|run| run.window_start == at("11:00:00"));
        assert_eq!(of_11.unwrap().findings, 1, "the row of the window tells what it holds now");
    })
    .await;
}

#[tokio::test]
async fn hits_of_sensitive_paths_are_all_from_first_to_last_seen() {
    every_store(async |store: Store| {
        for hour in ["08:10:00", "08:20:00", "10:10:00", "11:10:00"] {
            log(&store, vec![request("192.0.2.1", at(hour), "/login")]).await;
        }
        run(&store, &terms(), at("09:00:00")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 2"]);
        run(&store, &terms(), at("12:00:00")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 4"]);
        let row = rows(&store.db, None).await.remove(0);
        assert_eq!((row.first_seen, row.last_seen), (at("08:10:00"), at("11:10:00")));
        assert_eq!(row.evidence["requests"][0]["at"], "2026-03-01T11:10:00Z");
    })
    .await;
}

#[tokio::test]
async fn a_dismissed_address_stays_dismissed_for_thirty_days() {
    every_store(async |store: Store| {
        log(&store, vec![request("192.0.2.1", at("10:10:00"), "/login")]).await;
        run(&store, &terms(), at("11:00:10")).await;
        let id = rows(&store.db, Some(Status::Open)).await[0].id;
        review(&store, id, Status::Dismissed, at("11:30:00")).await;

        log(&store, vec![request("192.0.2.1", at("11:10:00"), "/login")]).await;
        log(&store, burst("192.0.2.1", at("11:10:01"), 100, TimeDelta::seconds(1))).await;
        run(&store, &terms(), at("12:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101"], "another rule is another matter");

        let almost = at("10:20:00") + TimeDelta::days(30);
        log(&store, vec![request("192.0.2.1", almost, "/login")]).await;
        run(&store, &terms(), almost + TimeDelta::hours(1)).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101"]);

        let after = almost + TimeDelta::hours(1);
        log(&store, vec![request("192.0.2.1", after, "/login")]).await;
        run(&store, &terms(), after + TimeDelta::hours(1)).await;
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1", "192.0.2.1 volume 101"]);
    })
    .await;
}

#[tokio::test]
async fn what_was_reviewed_is_not_put_up_again() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:00:00"), 101, TimeDelta::seconds(30))).await;
        run(&store, &terms(), at("11:00:10")).await;
        let id = rows(&store.db, Some(Status::Open)).await[0].id;
        // It went on until the block.
        log(&store, burst("192.0.2.1", at("10:50:30"), 100, TimeDelta::seconds(20))).await;
        review(&store, id, Status::Blocked, at("11:30:00")).await;

        scan::run_between(&store.db, &terms(), (at("10:00:00"), at("12:00:00")), || at("12:00:10"))
            .await
            .unwrap();
        assert_eq!(open(&store).await, Vec::<String>::new());

        // The block ended, and he came again.
        log(&store, burst("192.0.2.1", at("15:00:00"), 120, TimeDelta::seconds(1))).await;
        run(&store, &terms(), at("16:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 120"]);
    })
    .await;
}

#[tokio::test]
async fn a_scheduler_that_lost_its_lease_writes_nothing() {
    every_store(async |store: Store| {
        log(&store, vec![request("192.0.2.1", at("10:10:00"), "/login")]).await;
        let take = async |holder: &'static str| {
            store
                .db
                .transaction(move |conn| {
                    let ttl = TimeDelta::minutes(5);
                    leases::acquire(conn, scan::LEASE, holder, ttl, at("11:00:10")).boxed()
                })
                .await
                .unwrap()
        };
        let slow = take("slow").await.unwrap();
        assert_eq!(take("quick").await, None, "one at a time");
        let ended = slow.clone();
        store
            .db
            .run(move |conn| {
                async move { leases::release(conn, &ended, at("11:00:10")).await }.boxed()
            })
            .await
            .unwrap();
        let quick = take("quick").await.unwrap();
        assert!(quick.fencing > slow.fencing);

        let due = Due {
            window: Window::of(at("10:00:00")),
            reason: Reason::Schedule,
            settles: Vec::new(),
        };
        let outcome = scan::scan(&store.db, &terms(), due.clone(), &slow, at("11:00:10")).await;
        assert!(matches!(outcome, Err(DbError::Conflict(_))), "{outcome:?}");
        assert_eq!(open(&store).await, Vec::<String>::new());
        assert_eq!(runs(&store.db).await, Vec::new());

        scan::scan(&store.db, &terms(), due, &quick, at("11:00:10")).await.unwrap();
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1"]);
    })
    .await;
}

#[tokio::test]
async fn an_operators_scan_makes_no_hour_a_missed_one() {
    every_store(async |store: Store| {
        let old =
            (at("00:00:00") - TimeDelta::days(4_000), at("01:00:00") - TimeDelta::days(4_000));
        scan::run_between(&store.db, &terms(), old, || at("11:00:10")).await.unwrap();
        assert_eq!(runs(&store.db).await[0].scheduler, "ipctl");
        assert_eq!(run(&store, &terms(), at("11:00:10")).await, ["10"]);
        // An hour that an operator had scanned while it went on is judged when it has ended.
        let running = (at("11:00:00"), at("12:00:00"));
        scan::run_between(&store.db, &terms(), running, || at("11:30:00")).await.unwrap();
        assert_eq!(run(&store, &terms(), at("12:00:10")).await, ["11"]);
        assert_eq!(run(&store, &terms(), at("12:10:10")).await, Vec::<String>::new());
    })
    .await;
}

/// What the rule says, word for word, in quadratic time.
fn naive(requests: &[NewLogged], window: Window, rules: &Rules) -> Vec<(Network, u64)> {
    let mut networks: Vec<Network> =
        requests.iter().map(|row| Network::of_client(row.address, 64)).collect();
    networks.sort();
    networks.dedup();
    networks
        .into_iter()
        .filter_map(|network| {
            let times: Vec<DateTime<Utc>> = requests
                .iter()
                .filter(|row| network.contains(row.address) && row.verdict != "blocked")
                .map(|row| row.at)
                .collect();
            let most = times
                .iter()
                .filter(|last| window.start() <= **last && **last < window.end())
                .map(|last| {
                    times.iter().filter(|at| *at <= last && *last - **at < rules.span).count()
                })
                .max()?;
            (most > rules.max_requests as usize).then_some((network, most as u64))
        })
        .collect()
}

#[tokio::test]
async fn volume_is_what_the_rule_says_word_for_word() {
    every_store(async |store: Store| {
        let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
        // Minutes and microseconds apart, so that ties and exact hours are frequent.
        let one = (0..addresses.len(), -130..70_i64, -1..=1_i64, proptest::bool::weighted(0.1));
        let many = (proptest::collection::vec(one, 0..120), 1..6_u32, 1..130_i64);
        let mut runner = TestRunner::deterministic();
        let mut found = 0;
        for case in 0..40 {
            let (requests, max_requests, span) = many.new_tree(&mut runner).unwrap().current();
            let rules = Rules { max_requests, span: TimeDelta::minutes(span) };
            // Each case has a week of its own.
            let start = at("10:00:00") + TimeDelta::days(7 * case);
            let requests: Vec<NewLogged> = requests
                .into_iter()
                .map(|(address, minutes, microseconds, blocked)| {
                    let offset =
                        TimeDelta::minutes(minutes) + TimeDelta::microseconds(microseconds);
                    let mut row = request(addresses[address], start + offset, "/");
                    row.verdict = if blocked { "blocked" } else { "allowed" };
                    row
                })
                .collect();
            log(&store, requests.clone()).await;
            let window = Window::of(start);
            let traffic = store
                .db
                .run(move |conn| {
                    async move { traffic::of_window(conn, window, &rules, &[]).await }.boxed()
                })
                .await
                .unwrap();
            let findings: Vec<(Network, u64)> = detect(traffic, &rules, &[])
                .into_iter()
                .filter(|finding| finding.rule == Rule::Volume)
                .map(|finding| (finding.network, finding.hits))
                .collect();
            assert_eq!(findings, naive(&requests, window, &rules), "case {case}, {rules:?}");
            found += findings.len();
        }
        assert!(found > 40, "the cases find something: {found}");
    })
    .await;
}
