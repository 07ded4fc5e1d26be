//! What forgetting does to a store, on both databases.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use common::every_store;
use futures_util::FutureExt;
use ipwarden_core::db::bouncers::{self, Pulled, Who};
use ipwarden_core::db::list_changes::{self, List};
use ipwarden_core::db::request_logs::NewLogged;
use ipwarden_core::db::suspicious_ips::NewSuspiciousIp;
use ipwarden_core::db::{
    Db, audit_log, forgotten, idempotency_keys, nodes, request_logs, suspicious_ips,
};
use ipwarden_core::detect::Rule;
use ipwarden_core::duration::Term;
use ipwarden_core::forget::{self, Begun, ForgetError, OnLists, Receipt, State};
use ipwarden_core::lists::{self, Actor, Rails, Request};
use ipwarden_core::scan;
use ipwarden_core::stored::{self, Table};
use ipwarden_engine::network::Network;
use serde_json::{Value, json};

#[tokio::test]
async fn everything_about_an_address_is_handed_out_and_then_forgotten() {
    every_store(async |store| {
        let db = &store.db;
        fill(db).await;
        let six = network("2001:db8::7");

        assert_eq!(rows(db, Table::RequestLogs, six).await.len(), 30);
        assert!(scan::count_due(db, "one", now).await.unwrap());
        let hours = rows(db, Table::RequestTops, six).await;
        assert!(!hours.is_empty() && hours.iter().all(|row| row["key"] == "2001:db8::7"));
        let findings = rows(db, Table::SuspiciousIps, six).await;
        assert_eq!(findings.len(), 2, "its own, and that of its /64");
        assert_eq!(rows(db, Table::BlockedIps, six).await.len(), 1);
        assert_eq!(rows(db, Table::AllowedIps, six).await.len(), 0);
        assert_eq!(rows(db, Table::ListChanges, six).await[0]["op"], "set");
        assert_eq!(rows(db, Table::AuditLog, six).await.len(), 2, "itself, and in a reason");
        let found = forget::found(db, six).await.unwrap();
        assert_eq!((found.request_logs, found.suspicious_ips, found.evidence), (30, 1, 1));
        assert_eq!((found.blocked_ips, found.allowed_ips, found.audit_log), (1, 0, 2));

        let listed = forget::begin(db, six, OnLists::Refuse, actor(), now()).await.unwrap_err();
        assert!(matches!(listed, ForgetError::Listed(entries) if entries.len() == 1));
        let wide = forget::begin(db, network("2001:db8::/63"), OnLists::Keep, actor(), now()).await;
        assert!(matches!(wide, Err(ForgetError::TooWide(_))));
        assert_eq!(forget::found(db, six).await.unwrap(), found, "nothing was forgotten");

        let receipt = forget_it(db, six, OnLists::Remove).await;
        assert!(receipt.is_complete() && receipt.nodes.is_empty(), "{receipt:?}");
        assert_eq!((receipt.row.network, receipt.row.settled_at.is_some()), (None, true));
        for table in Table::ALL {
            assert_eq!(rows(db, table, six).await, Vec::<Value>::new(), "{table:?}");
        }
        // Of others nothing is gone, and what was done to it is still on record.
        assert_eq!(rows(db, Table::RequestLogs, network("2001:db8::/64")).await.len(), 30);
        let wider = rows(db, Table::SuspiciousIps, network("2001:db8::/64")).await;
        assert_eq!(wider.len(), 1);
        let requests = wider[0]["evidence"]["requests"].as_array().unwrap();
        assert_eq!(requests.len(), 1, "that of its neighbour: {requests:?}");
        let audited = db.run(|conn| audit_log::page(conn, None, 100).boxed()).await.unwrap();
        let told: Vec<_> =
            audited.iter().map(|row| (row.action.as_str(), row.target.as_str())).collect();
        let own = format!("forgotten:{}", receipt.row.id);
        assert_eq!(
            told,
            [("forget", own.as_str()), ("block", "192.0.2.1"), ("block", "forgotten")]
        );
        assert_eq!(audited[1].details["reason"], "as forgotten");
    })
    .await;
}

#[tokio::test]
async fn a_record_from_before_is_never_stored_later_whoever_brings_it() {
    every_store(async |store| {
        let db = &store.db;
        let four = network("203.0.113.0/25");
        forget_it(db, four, OnLists::Refuse).await;
        let at = db.clock(now()).await.unwrap();
        let (before, after) = (at - TimeDelta::days(34), at + TimeDelta::seconds(1));
        write(db, vec![record("203.0.113.9", before), record("203.0.113.200", before)]).await;
        write(db, vec![record("203.0.113.127", at - TimeDelta::hours(1))]).await;
        write(db, vec![record("203.0.113.9", after)]).await;
        let stored = rows(db, Table::RequestLogs, network("203.0.113.0/24")).await;
        let stored: Vec<_> = stored.iter().map(|row| row["address"].as_str().unwrap()).collect();
        assert_eq!(stored, ["203.0.113.9", "203.0.113.200"], "what is new, and of another");

        // For as long as a spool may come back; then it is as if it had never been.
        let long_after = at + forgotten::KEPT + TimeDelta::days(1);
        let gone = db.run(move |conn| forgotten::prune(conn, long_after).boxed()).await.unwrap();
        assert_eq!(gone, 1);
        write(db, vec![record("203.0.113.9", before)]).await;
        assert_eq!(rows(db, Table::RequestLogs, network("203.0.113.9")).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_receipt_waits_for_whoever_lives_and_for_bouncers_that_are_behind() {
    every_store(async |store| {
        let db = &store.db;
        let (four, at) = (network("203.0.113.9"), db.clock(now()).await.unwrap());
        block(db, "203.0.113.9", "why").await;
        beat(db, "one", at).await;
        beat(db, "two", at).await;
        beat(db, "long-gone", at - TimeDelta::minutes(5)).await;
        let who = Who {
            key_id: "k".into(),
            address: "192.0.2.1".parse().unwrap(),
            kind: None,
            version: None,
        };
        let told = Pulled { list_version: 1, at, everything: true };
        pulled(db, &who, told).await;

        let Begun { id, version } = begin(db, four, OnLists::Remove).await;
        assert_eq!(state(db, id).await, ["long-gone Silent", "one Waiting", "two Waiting"]);
        assert!(!receipt(db, id).await.is_complete(), "the tables are not through");
        erase(db, id, four).await;
        confirm(db, "one", at).await;
        assert_eq!(state(db, id).await, ["one Confirmed", "long-gone Silent", "two Waiting"]);
        assert_eq!(receipt(db, id).await.row.network, Some(four), "two has to know it");
        confirm(db, "two", at).await;
        let of_two = receipt(db, id).await;
        assert!(of_two.is_complete());
        assert_eq!(of_two.row.network, Some(four), "the bouncer has to be told");
        pulled(db, &who, Pulled { list_version: version, ..told }).await;
        assert_eq!(receipt(db, id).await.row.network, None);
        let changes = db.run(|conn| list_changes::since(conn, 0, 100).boxed()).await.unwrap();
        let emptied = changes.iter().filter(|change| change.is_emptied()).count();
        assert_eq!((changes.len(), emptied), (3, 2), "set, removed, forget: {changes:?}");
        assert_eq!(changes[2].list, List::Forgotten.as_str());
        assert!(changes.iter().all(|change| change.network.is_none()));

        // Who comes late still finds out that there was something.
        let late = db.run(|conn| forgotten::unconfirmed(conn, "late").boxed()).await.unwrap();
        assert_eq!((late.len(), late[0].network), (1, None));
    })
    .await;
}

#[tokio::test]
async fn forgetting_may_be_cut_short_and_begun_again() {
    every_store(async |store| {
        let db = &store.db;
        let four = network("203.0.113.9");
        beat(db, "one", db.clock(now()).await.unwrap()).await;
        write(db, (0..30).map(|n| record("203.0.113.9", minutes_ago(n))).collect()).await;
        let first = begin(db, four, OnLists::Refuse).await;
        let (gone, more) =
            db.transaction(move |conn| request_logs::erase(conn, four, 10).boxed()).await.unwrap();
        assert_eq!((gone, more), (11, true), "the oldest, and as many as came together");

        let second = begin(db, four, OnLists::Refuse).await;
        assert_ne!(first.id, second.id);
        erase(db, second.id, four).await;
        let all = forget::receipts(db, now()).await.unwrap();
        assert_eq!(all.iter().map(|it| it.row.id).collect::<Vec<_>>(), [second.id]);
        assert_eq!(forget::found(db, four).await.unwrap(), forget::Found::default());
    })
    .await;
}

#[tokio::test]
async fn answers_that_name_it_are_not_kept_for_whoever_sends_a_change_again() {
    every_store(async |store| {
        let db = &store.db;
        let at = db.clock(now()).await.unwrap();
        for (key, body) in [("a", r#"{"network":"203.0.113.9"}"#), ("b", "203.0.113.99")] {
            let once =
                idempotency_keys::Once { actor: "key:1".into(), key: key.into(), request: [0; 32] };
            let answer = idempotency_keys::Answer { status: 201, body: body.into() };
            db.transaction(move |conn| {
                async move { idempotency_keys::keep(conn, &once, &answer, at).await }.boxed()
            })
            .await
            .unwrap();
        }
        forget_it(db, network("203.0.113.9"), OnLists::Refuse).await;
        let left = db.run(|conn| idempotency_keys::with(conn, "203").boxed()).await.unwrap();
        assert_eq!(left.iter().map(|(_, key, _)| key.as_str()).collect::<Vec<_>>(), ["b"]);
    })
    .await;
}

async fn fill(db: &Db) {
    let of = |address: &str| (0..30).map(|n| record(address, minutes_ago(n))).collect::<Vec<_>>();
    write(db, [of("2001:db8::7"), of("2001:db8::8")].concat()).await;
    block(db, "2001:db8::7", "scraping").await;
    block(db, "192.0.2.1", "as 2001:db8::7").await;
    let evidence = json!({ "requests": [
        { "address": "2001:db8::7", "path": "/a" }, { "address": "2001:db8::8", "path": "/b" },
    ]});
    let finding = |address: &str, rule| NewSuspiciousIp {
        address: network(address),
        rule,
        first_seen: minutes_ago(30),
        last_seen: minutes_ago(0),
        hits: 30,
        evidence: evidence.clone(),
        review: None,
    };
    let found =
        vec![finding("2001:db8::7", Rule::SensitivePath), finding("2001:db8::/64", Rule::Volume)];
    db.transaction(move |conn| suspicious_ips::insert(conn, found).boxed()).await.unwrap();
}

async fn rows(db: &Db, table: Table, network: Network) -> Vec<Value> {
    let mut all = Vec::new();
    stored::rows(db, table, network, |rows| {
        all.extend(rows);
        Ok::<_, ipwarden_core::db::DbError>(())
    })
    .await
    .unwrap();
    all
}

async fn forget_it(db: &Db, network: Network, on_lists: OnLists) -> Receipt {
    let Begun { id, .. } = begin(db, network, on_lists).await;
    erase(db, id, network).await;
    receipt(db, id).await
}

async fn begin(db: &Db, network: Network, on_lists: OnLists) -> Begun {
    forget::begin(db, network, on_lists, actor(), now()).await.unwrap()
}

async fn erase(db: &Db, id: i64, network: Network) {
    forget::erase(db, id, network, now(), |_| {}).await.unwrap();
}

async fn receipt(db: &Db, id: i64) -> Receipt {
    let all = forget::receipts(db, now()).await.unwrap();
    all.into_iter().find(|receipt| receipt.row.id == id).unwrap()
}

async fn state(db: &Db, id: i64) -> Vec<String> {
    let nodes = receipt(db, id).await.nodes;
    assert!(nodes.iter().any(|node| node.state != State::Confirmed));
    nodes.iter().map(|node| format!("{} {:?}", node.node, node.state)).collect()
}

async fn confirm(db: &Db, node: &'static str, at: DateTime<Utc>) {
    let confirmed = db.transaction(move |conn| {
        async move {
            let due = forgotten::unconfirmed(conn, node).await?;
            let ids: Vec<i64> = due.iter().map(|row| row.id).collect();
            forgotten::confirm(conn, &ids, node, at).await
        }
        .boxed()
    });
    confirmed.await.unwrap();
}

async fn beat(db: &Db, node: &'static str, at: DateTime<Utc>) {
    db.run(move |conn| nodes::beat(conn, node, "api", at, at).boxed()).await.unwrap();
}

async fn pulled(db: &Db, who: &Who, told: Pulled) {
    let who = who.clone();
    let noted = db.run(move |conn| {
        async move {
            bouncers::seen(conn, who.clone(), told.at).await?;
            bouncers::pulled(conn, &who, told).await
        }
        .boxed()
    });
    noted.await.unwrap();
}

async fn block(db: &Db, target: &str, reason: &str) {
    let request = Request {
        targets: vec![Network::parse(target).unwrap()],
        term: Term::Permanent,
        reason: Some(reason.to_owned()),
        origin: lists::MANUAL.to_owned(),
        force: false,
    };
    lists::block(db, request, actor(), Rails::default(), now()).await.unwrap();
}

async fn write(db: &Db, batch: Vec<NewLogged>) {
    request_logs::write(db, batch, ()).await.unwrap();
}

fn record(address: &str, at: DateTime<Utc>) -> NewLogged {
    NewLogged {
        at,
        address: address.parse::<IpAddr>().unwrap(),
        method: "GET".into(),
        path: "/".into(),
        status: 200,
        verdict: "allowed",
        sensitive: false,
        identity: None,
        country: None,
        city: None,
        asn: None,
        user_agent: None,
        reference: None,
        node: Arc::from("n"),
        recorded_at: at,
    }
}

fn actor() -> Actor {
    Actor { name: "cli:test".to_owned(), address: None }
}

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

fn minutes_ago(minutes: i64) -> DateTime<Utc> {
    now() - TimeDelta::minutes(minutes)
}

/// The store of a fleet has a clock of its own, which goes with this one.
#[expect(clippy::disallowed_methods, reason = "PostgreSQL's clock is compared with it")]
fn now() -> DateTime<Utc> {
    Utc::now()
}
