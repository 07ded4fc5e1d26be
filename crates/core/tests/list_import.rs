//! Whole lists at once, on both databases.

#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::db::entries::Entry;
use ipwarden_core::db::list_changes::{self, Change};
use ipwarden_core::db::{Db, audit_log, blocked_ips};
use ipwarden_core::lists::{
    self, Actor, Import, Imported, Item, ListError, OnRefused, Rails, Request, import_blocked,
};
use ipwarden_engine::network::Network;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap()
}

fn operator() -> Actor {
    Actor { name: "cli:root".to_owned(), address: Some("198.51.100.7".parse().unwrap()) }
}

fn rails() -> Rails {
    Rails { trusted: vec!["10.0.0.0/8".parse().unwrap()], own: vec![] }
}

fn item(target: &str) -> Item {
    Item { target: Network::parse(target).unwrap(), reason: None, ends: None }
}

fn import(targets: &[&str]) -> Import {
    Import {
        items: targets.iter().map(|target| item(target)).collect(),
        origin: "list:drop".to_owned(),
        whole: true,
        term: "permanent".parse().unwrap(),
        reason: None,
        refused: OnRefused::Stop,
        source: "drop.txt".to_owned(),
    }
}

async fn take(db: &Db, import: Import) -> Result<Imported, ListError> {
    import_blocked(db, import, operator(), rails(), now(), Arc::new(|_| ())).await
}

async fn blocked(db: &Db) -> Vec<Entry> {
    let page = db.run(|conn| blocked_ips::page(conn, None, 1_000_000, now()).boxed());
    let mut rows = page.await.unwrap();
    rows.sort_by_key(|row| (row.network, row.origin.clone()));
    rows
}

async fn names(db: &Db) -> Vec<String> {
    blocked(db).await.iter().map(|row| format!("{} {}", row.network, row.origin)).collect()
}

async fn changes(db: &Db) -> Vec<Change> {
    db.run(|conn| list_changes::since(conn, 0, 10_000).boxed()).await.unwrap()
}

fn counts(imported: &Imported) -> (usize, usize, usize, usize) {
    (imported.added, imported.updated, imported.unchanged, imported.removed)
}

#[tokio::test]
async fn a_list_imported_again_is_a_difference_and_leaves_alone_what_others_blocked() {
    every_store(async |store: Store| {
        let db = &store.db;
        let by_hand = Request {
            targets: vec![Network::parse("203.0.113.1").unwrap()],
            term: "permanent".parse().unwrap(),
            reason: Some("by hand".to_owned()),
            origin: lists::MANUAL.to_owned(),
            force: false,
        };
        lists::block(db, by_hand, operator(), rails(), now()).await.unwrap();
        let other = Import { origin: "list:other".to_owned(), ..import(&["203.0.113.2"]) };
        take(db, other).await.unwrap();

        let first = import(&["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.3"]);
        let done = take(db, first.clone()).await.unwrap();
        assert_eq!((counts(&done), done.repeated), ((3, 0, 0, 0), 1));
        assert_eq!(done.version, Some(5), "one change for each of three networks, after two");
        let again = take(db, first).await.unwrap();
        assert_eq!((counts(&again), again.version), ((0, 0, 3, 0), None));

        let mut second = import(&["203.0.113.3", "203.0.113.4"]);
        second.items[0].reason = Some("scanner".to_owned());
        let done = take(db, second).await.unwrap();
        assert_eq!(counts(&done), (1, 1, 0, 2));
        assert_eq!(
            names(db).await,
            [
                "203.0.113.1 manual",
                "203.0.113.2 list:other",
                "203.0.113.3 list:drop",
                "203.0.113.4 list:drop",
            ]
        );
        let ops: Vec<String> = changes(db)
            .await
            .into_iter()
            .skip(5)
            .map(|change| format!("{} {}", change.op, change.network.unwrap()))
            .collect();
        let mut sorted = ops.clone();
        sorted.sort();
        assert_eq!(
            sorted,
            ["removed 203.0.113.1", "removed 203.0.113.2", "set 203.0.113.3", "set 203.0.113.4"],
            "{ops:?}"
        );
        let audit = db.run(|conn| audit_log::page(conn, None, 1).boxed()).await.unwrap();
        assert_eq!((&*audit[0].action, &*audit[0].target), ("import", "list:drop"));
        assert_eq!(audit[0].details["counts"]["removed"], 2);
        assert_eq!(audit[0].details["source"], "drop.txt");
    })
    .await;
}

#[tokio::test]
async fn without_a_name_entries_are_only_added() {
    every_store(async |store: Store| {
        let db = &store.db;
        let loose = |targets: &[&str]| Import {
            origin: lists::IMPORT.to_owned(),
            whole: false,
            ..import(targets)
        };
        take(db, loose(&["203.0.113.1"])).await.unwrap();
        let done = take(db, loose(&["203.0.113.2"])).await.unwrap();
        assert_eq!(counts(&done), (1, 0, 0, 0));
        assert_eq!(names(db).await, ["203.0.113.1 import", "203.0.113.2 import"]);
    })
    .await;
}

#[tokio::test]
async fn guard_rails_refuse_all_of_it_or_are_skipped_or_forced() {
    every_store(async |store: Store| {
        let db = &store.db;
        let allow = Request {
            targets: vec![Network::parse("203.0.113.0/24").unwrap()],
            term: "permanent".parse().unwrap(),
            reason: None,
            origin: lists::MANUAL.to_owned(),
            force: false,
        };
        lists::allow(db, allow, operator(), rails(), now()).await.unwrap();
        let list = import(&[
            "192.0.2.1",
            "10.1.0.0/16",
            "127.0.0.0/8",
            "203.0.113.77",
            "203.0.0.0/16",
            "198.51.100.0/24",
            "0.0.0.0/0",
        ]);
        let refused = take(db, list.clone()).await.unwrap_err();
        let ListError::Refused(refused) = refused else { panic!("{refused}") };
        let rules: Vec<_> = refused.iter().map(|why| why.rule()).collect();
        assert_eq!(
            rules,
            ["too_wide", "trusted_proxy", "loopback", "operator", "allowed", "allowed"]
        );
        assert_eq!(names(db).await, [""; 0], "all of it or nothing");

        let skipping = Import { refused: OnRefused::Skip, ..list.clone() };
        let done = take(db, skipping).await.unwrap();
        assert_eq!((done.added, done.refused, done.skipped.len()), (1, 6, 6));
        assert_eq!(names(db).await, ["192.0.2.1 list:drop"]);

        let forced = take(db, Import { refused: OnRefused::Force, ..list }).await.unwrap();
        assert_eq!((forced.added, forced.unchanged, forced.notices.len()), (6, 1, 6));
    })
    .await;
}

#[tokio::test]
async fn an_end_of_its_own_wins_over_the_imports_and_what_has_ended_is_not_taken() {
    every_store(async |store: Store| {
        let db = &store.db;
        let clock = db.clock(now()).await.unwrap();
        let at = |minutes: i64| Some(clock + TimeDelta::minutes(minutes));
        let mut list = import(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.3"]);
        list.term = "1h".parse().unwrap();
        list.reason = Some("of the list".to_owned());
        list.items[0].ends = at(-1);
        list.items[1].ends = at(10);
        list.items[2].ends = at(20);
        list.items[3].ends = at(30);
        let done = take(db, list).await.unwrap();
        assert_eq!((done.added, done.ended, done.repeated), (2, 1, 1));
        let rows = db.run(|conn| blocked_ips::of_origin(conn, "list:drop").boxed()).await.unwrap();
        let ends: Vec<_> = rows.iter().map(|row| row.expires_at.unwrap().timestamp()).collect();
        let expected = [at(10), at(30)].map(|at| at.unwrap().timestamp());
        assert_eq!(ends, expected, "the latest of two");
        assert!(rows.iter().all(|row| row.reason == "of the list"));
    })
    .await;
}

#[tokio::test]
async fn a_rehearsal_tells_everything_and_leaves_nothing() {
    every_store(async |store: Store| {
        let db = &store.db;
        let done = take(&db.rehearsal(), import(&["192.0.2.1"])).await.unwrap();
        assert_eq!((done.added, done.version), (1, Some(1)));
        assert_eq!(names(db).await, [""; 0]);
        assert_eq!(changes(db).await.len(), 0);
        let done = take(db, import(&["192.0.2.1"])).await.unwrap();
        assert_eq!((done.added, done.version), (1, Some(1)));
    })
    .await;
}

#[tokio::test]
async fn a_hundred_thousand_entries_take_less_than_ten_seconds() {
    every_store(async |store: Store| {
        let db = &store.db;
        let items: Vec<Item> = (0..100_000u32)
            .map(|n| {
                let [_, a, b, c] = (n * 7).to_be_bytes();
                item(&format!("45.{a}.{b}.{c}"))
            })
            .collect();
        let list = Import { items, ..import(&[]) };
        let through = Arc::new(AtomicUsize::new(0));
        let heard = through.clone();
        let report = Arc::new(move |count| heard.store(count, Ordering::Relaxed));
        #[expect(clippy::disallowed_methods, reason = "it is measured")]
        let began = std::time::Instant::now();
        let done = import_blocked(db, list.clone(), operator(), rails(), now(), report).await;
        assert_eq!(counts(&done.unwrap()), (100_000, 0, 0, 0));
        let first = began.elapsed();
        assert_eq!(through.load(Ordering::Relaxed), 100_000);
        // The same with another end for each: every row is another.
        let later = Import { term: "30d".parse().unwrap(), ..list.clone() };
        assert_eq!(counts(&take(db, later).await.unwrap()), (0, 100_000, 0, 0));
        let second = began.elapsed() - first;
        let none = take(db, Import { items: vec![], ..list }).await.unwrap();
        assert_eq!(counts(&none), (0, 0, 0, 100_000));
        let third = began.elapsed() - first - second;
        eprintln!("{}: in {first:.1?}, changed {second:.1?}, out {third:.1?}", store.name);
        assert!(began.elapsed().as_secs() < 100, "{:?}", began.elapsed());
    })
    .await;
}
