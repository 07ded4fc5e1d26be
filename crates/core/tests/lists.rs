//! What operators do to the lists, on both databases.

#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::db::audit_log::{self, Audited};
use ipwarden_core::db::entries::Put;
use ipwarden_core::db::list_changes::{self, Change};
use ipwarden_core::db::{Db, blocked_ips};
use ipwarden_core::lists::{
    self, Actor, Because, Done, ListError, Outcome, Rails, Removal, Request, Standing,
};
use ipwarden_engine::network::{Network, Parsed};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap()
}

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

fn parsed(targets: &[&str]) -> Vec<Parsed> {
    targets.iter().map(|target| Network::parse(target).unwrap()).collect()
}

fn operator() -> Actor {
    Actor { name: "cli:root".to_owned(), address: Some("198.51.100.7".parse().unwrap()) }
}

fn rails() -> Rails {
    Rails { trusted: vec![network("10.0.0.0/8")], own: vec!["203.0.113.200".parse().unwrap()] }
}

fn request(targets: &[&str], term: &str) -> Request {
    Request {
        targets: parsed(targets),
        term: term.parse().unwrap(),
        reason: None,
        origin: lists::MANUAL.to_owned(),
        force: false,
    }
}

fn forced(targets: &[&str]) -> Request {
    Request { force: true, ..request(targets, "permanent") }
}

async fn block(db: &Db, request: Request) -> Result<Done<Outcome>, ListError> {
    lists::block(db, request, operator(), rails(), now()).await
}

async fn unblock(db: &Db, target: &str) -> Done<Removal> {
    lists::unblock(db, parsed(&[target]), operator(), now()).await.unwrap()
}

async fn changes(db: &Db) -> Vec<Change> {
    db.run(|conn| list_changes::since(conn, 0, 10_000).boxed()).await.unwrap()
}

async fn audit(db: &Db) -> Vec<Audited> {
    db.run(|conn| audit_log::page(conn, None, 10_000).boxed()).await.unwrap()
}

fn told<T: ToString>(notices: &[T]) -> Vec<String> {
    notices.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn blocking_and_unblocking_twice_is_success_and_audited_each_time() {
    every_store(async |store: Store| {
        let db = &store.db;
        let first = block(db, request(&["203.0.113.9"], "permanent")).await.unwrap();
        assert_eq!((first.outcomes[0].put, first.version), (Put::Created, Some(1)));
        let again = block(db, request(&["203.0.113.9"], "permanent")).await.unwrap();
        assert_eq!((again.outcomes[0].put, again.version), (Put::Unchanged, None));
        let gone = unblock(db, "203.0.113.9").await;
        assert_eq!((gone.outcomes[0].removed.len(), gone.version), (1, Some(2)));
        let again = unblock(db, "203.0.113.9").await;
        assert_eq!((again.outcomes[0].removed.len(), again.version), (0, None));
        let verbs: Vec<_> = audit(db).await.into_iter().rev().map(|row| row.action).collect();
        assert_eq!(verbs, ["block", "block", "unblock", "unblock"]);
        let ops: Vec<_> = changes(db).await.into_iter().map(|change| change.op).collect();
        assert_eq!(ops, ["set", "removed"]);
    })
    .await;
}

#[tokio::test]
async fn blocking_again_updates_end_and_reason_and_keeps_what_is_not_said() {
    every_store(async |store: Store| {
        let db = &store.db;
        let why = |reason: &str| Request {
            reason: Some(reason.to_owned()),
            ..request(&["203.0.113.9"], "4h")
        };
        let first = block(db, why("scraper")).await.unwrap();
        let again = block(db, request(&["203.0.113.9"], "permanent")).await.unwrap();
        assert_eq!(again.outcomes[0].put, Put::Updated);
        assert_eq!(again.outcomes[0].entry.reason, "scraper");
        assert_eq!(again.outcomes[0].entry.expires_at, None);
        assert_eq!(again.outcomes[0].before.as_ref(), Some(&first.outcomes[0].entry));
        assert_eq!(again.outcomes[0].entry.id, first.outcomes[0].entry.id);
        let other = Request { origin: "list:drop".to_owned(), ..why("listed") };
        assert_eq!(block(db, other).await.unwrap().outcomes[0].put, Put::Created);
        let gone = unblock(db, "203.0.113.9").await;
        assert_eq!(gone.outcomes[0].removed.len(), 2, "unblocking deletes all rows of it");
    })
    .await;
}

#[tokio::test]
async fn overlapping_blocks_are_removed_one_by_one() {
    every_store(async |store: Store| {
        let db = &store.db;
        let all = ["10.2.0.0/16", "10.2.3.0/24", "10.2.3.4"];
        block(db, forced(&all)).await.unwrap();
        let gone = unblock(db, "10.2.3.0/24").await;
        assert_eq!(
            told(&gone.outcomes[0].notices),
            [
                "10.2.3.0/24 is still blocked by 10.2.0.0/16: that is an entry of its own",
                "inside 10.2.3.0/24 still blocked: 10.2.3.4",
            ]
        );
        let checked = lists::check(db, network("10.2.3.9"), &[], now()).await.unwrap();
        assert_eq!((checked.verdict, checked.because), (Standing::Blocked, Because::Blocklisted));
        let named: Vec<_> = checked.blocked.iter().map(|entry| entry.network).collect();
        assert_eq!(named, [network("10.2.0.0/16")]);
        let checked = lists::check(db, network("10.2.3.4"), &[], now()).await.unwrap();
        assert_eq!(checked.blocked.len(), 2);
        let checked = lists::check(db, network("10.0.0.0/8"), &[], now()).await.unwrap();
        assert_eq!((checked.verdict, checked.blocked.len()), (Standing::Mixed, 2));
    })
    .await;
}

#[tokio::test]
async fn what_is_allowed_is_blocked_only_by_force_and_with_a_warning() {
    every_store(async |store: Store| {
        let db = &store.db;
        let allowed = request(&["192.168.0.0/16"], "permanent");
        lists::allow(db, allowed, operator(), rails(), now()).await.unwrap();
        for target in ["192.168.1.1", "192.168.10.20/24", "192.168.0.0/15"] {
            let refused = block(db, request(&[target], "permanent")).await.unwrap_err();
            let text = refused.to_string();
            assert!(text.contains("192.168.0.0/16 on the allowlist"), "{text}");
        }
        let done = block(db, forced(&["192.168.10.20/24"])).await.unwrap();
        assert_eq!(
            told(&done.outcomes[0].notices),
            [
                "the host bits were masked: this is the whole network 192.168.10.0/24",
                "192.168.10.0/24 touches 192.168.0.0/16 on the allowlist, which beats every block; \
                 done nevertheless, because it was forced",
            ]
        );
        let checked = lists::check(db, network("192.168.10.1"), &[], now()).await.unwrap();
        assert_eq!((checked.verdict, checked.because), (Standing::Allowed, Because::Allowlisted));
        assert_eq!((checked.allowed.len(), checked.blocked.len()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn an_operator_cannot_lock_out_himself_or_a_proxy_by_a_slip() {
    every_store(async |store: Store| {
        let db = &store.db;
        let (before, rules) = (
            audit(db).await.len(),
            [
                ("10.0.0.1", "trusted proxy 10.0.0.0/8"),
                ("10.0.0.0/7", "wider than /8"),
                ("198.51.100.7", "where you come from"),
                ("198.51.100.0/24", "where you come from"),
                ("203.0.113.0/24", "203.0.113.200, an address of this machine"),
                ("127.0.0.1", "loopback"),
            ],
        );
        for (target, rule) in rules {
            // One that is fine beside it is not written either.
            let refused = block(db, request(&["192.0.2.1", target], "1h")).await.unwrap_err();
            assert!(refused.to_string().contains(rule), "{target}: {refused}");
        }
        assert_eq!(audit(db).await.len(), before);
        assert_eq!(changes(db).await, []);
        let all: Vec<&str> = rules.iter().map(|(target, _)| *target).collect();
        let ListError::Refused(refused) = block(db, request(&all, "1h")).await.unwrap_err() else {
            panic!("refused");
        };
        assert_eq!(refused.len(), rules.len(), "each is named, not only the first");
        assert_eq!(block(db, forced(&all)).await.unwrap().outcomes.len(), rules.len());
    })
    .await;
}

#[tokio::test]
async fn allowing_what_is_wide_trusted_or_blocked_gets_a_notice() {
    every_store(async |store: Store| {
        let db = &store.db;
        block(db, request(&["192.0.2.0/24", "192.0.2.7"], "1h")).await.unwrap();
        let wide = request(&["0.0.0.0/0", "10.1.2.3", "192.0.2.7"], "permanent");
        let done = lists::allow(db, wide, operator(), rails(), now()).await.unwrap();
        let [shared, wide, proxy, beats] = &told(&done.outcomes[0].notices)[..] else {
            panic!("four")
        };
        assert!(shared.contains("carrier-grade NAT"), "{shared}");
        assert!(wide.contains("without quota and without block"), "{wide}");
        assert!(proxy.contains("the trusted proxy 10.0.0.0/8"), "{proxy}");
        assert!(beats.contains("beats the block of 192.0.2.0/24, 192.0.2.7"), "{beats}");
        assert!(told(&done.outcomes[1].notices)[0].contains("the trusted proxy 10.0.0.0/8"));
        assert_eq!(
            told(&done.outcomes[2].notices),
            [
                "192.0.2.7 beats the block of 192.0.2.0/24, 192.0.2.7, which stays on its list",
                "192.0.2.7 is also held by the wider entry 0.0.0.0/0 of the same list",
            ]
        );
        let gone = lists::disallow(db, parsed(&["0.0.0.0/0"]), operator(), now()).await.unwrap();
        assert_eq!(
            told(&gone.outcomes[0].notices),
            ["inside 0.0.0.0/0 still allowed: 10.1.2.3, 192.0.2.7"]
        );
    })
    .await;
}

#[tokio::test]
async fn two_operators_racing_leave_every_change_in_the_audit() {
    every_store(async |store: Store| {
        let both: Vec<_> = ["cli:anna", "cli:ben"]
            .into_iter()
            .map(|name| {
                let db = store.db.clone();
                tokio::spawn(async move {
                    let actor = Actor { name: name.to_owned(), address: None };
                    for step in 0..200 {
                        let actor = actor.clone();
                        if step % 2 == 0 {
                            let request = request(&["192.0.2.0/24"], "permanent");
                            lists::block(&db, request, actor, rails(), now()).await.unwrap();
                        } else {
                            let targets = parsed(&["192.0.2.0/24"]);
                            lists::unblock(&db, targets, actor, now()).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for one in both {
            one.await.unwrap();
        }
        let audit = audit(&store.db).await;
        assert_eq!(audit.len(), 400);
        // The last committed writer wins: the end state is what the last audited verb says, and the
        // changes tell the same story.
        let all = store.db.run(|conn| blocked_ips::listed(conn, now()).boxed()).await.unwrap();
        assert_eq!(all.len(), usize::from(audit[0].action == "block"));
        let changes = changes(&store.db).await;
        let last = changes.last().unwrap();
        assert_eq!(last.op == "set", !all.is_empty());
        for pair in changes.windows(2) {
            assert_ne!(pair[0].op, pair[1].op, "set and removed take turns");
        }
    })
    .await;
}

#[tokio::test]
async fn what_has_ended_is_pruned_with_a_change_of_its_own() {
    every_store(async |store: Store| {
        let db = &store.db;
        let past = now() - TimeDelta::hours(2);
        // The store's clock decides, and PostgreSQL's is not ours: only the past is certain in both.
        let put = |network: &str, ends: Option<DateTime<Utc>>| {
            let new = ipwarden_core::db::entries::NewEntry {
                network: network.parse().unwrap(),
                reason: String::new(),
                origin: lists::MANUAL.to_owned(),
                created_by: "test".to_owned(),
                created_at: past - TimeDelta::hours(1),
                expires_at: ends,
            };
            db.run(move |conn| blocked_ips::put(conn, new).boxed())
        };
        let ended = DateTime::from_timestamp(1_000_000_000, 0);
        for i in 0..1_500 {
            put(&format!("198.18.{}.{}", i / 250, i % 250), ended).await.unwrap();
        }
        put("192.0.2.1", ended).await.unwrap();
        put("192.0.2.2", None).await.unwrap();
        // Blocking what has ended is a new block, made by whoever makes it.
        let done = block(db, request(&["192.0.2.1"], "permanent")).await.unwrap();
        assert_eq!(done.outcomes[0].put, Put::Created);
        assert_eq!(done.outcomes[0].entry.created_by, "cli:root");
        let before = changes(db).await.len();
        let (pruned, version) = lists::prune_ended(db, now()).await.unwrap();
        assert_eq!(pruned, 1_500);
        let all = changes(db).await;
        assert_eq!(version, all.last().map(|change| change.version));
        assert!(all[before..].iter().all(|change| change.op == "ended"));
        assert_eq!(all.len() - before, 1_500);
        assert_eq!(lists::prune_ended(db, now()).await.unwrap(), (0, None));
        let gone = unblock(db, "192.0.2.1").await;
        assert_eq!(gone.outcomes[0].removed.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn every_target_of_the_vectors_is_blocked_or_refused_as_listed() {
    #[derive(serde::Deserialize)]
    struct Case {
        id: String,
        target: String,
        valid: bool,
        canonical: Option<String>,
    }
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/vectors/targets.jsonl");
    let vectors = std::fs::read_to_string(vectors).unwrap();
    let cases: Vec<Case> =
        vectors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 40);
    every_store(async |store: Store| {
        for case in &cases {
            let Ok(target) = Network::parse(&case.target) else {
                assert!(!case.valid, "{}", case.id);
                continue;
            };
            let request = Request { targets: vec![target], ..request(&[], "1h") };
            let nobody = Actor { name: "cli:root".to_owned(), address: None };
            let before = changes(&store.db).await.len();
            let nowhere = Rails::default();
            match lists::block(&store.db, request, nobody, nowhere, now()).await {
                Ok(done) => {
                    assert!(case.valid, "{}", case.id);
                    let network = done.outcomes[0].entry.network.to_string();
                    assert_eq!(Some(network), case.canonical, "{}", case.id);
                }
                Err(ListError::Refused(_)) => {
                    assert!(!case.valid, "{}", case.id);
                    assert_eq!(changes(&store.db).await.len(), before, "{}", case.id);
                }
                Err(other) => panic!("{}: {other}", case.id),
            }
        }
    })
    .await;
}
