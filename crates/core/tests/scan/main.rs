//! The scan, on both databases: what it finds, how often, and what it leaves alone.
#![expect(clippy::unwrap_used, reason = "tests")]

mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod counts;
mod long;
mod model;
mod reviews;
mod rules;
mod windows;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use common::Store;
use futures_util::FutureExt;
use ipwarden_core::db::Db;
use ipwarden_core::db::request_logs::{self, NewLogged};
use ipwarden_core::db::scan_runs::{self, ScanRun};
use ipwarden_core::db::suspicious_ips::{self, Review, Status, SuspiciousIp};
use ipwarden_core::scan::{self, Outcome, Terms};

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    format!("2026-03-01T{text}Z").parse().unwrap()
}

pub(crate) fn request(address: &str, at: DateTime<Utc>, path: &str) -> NewLogged {
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
pub(crate) fn burst(
    address: &str,
    from: DateTime<Utc>,
    count: i32,
    step: TimeDelta,
) -> Vec<NewLogged> {
    (0..count).map(|n| request(address, from + step * n, "/")).collect()
}

pub(crate) async fn log(store: &Store, rows: Vec<NewLogged>) {
    request_logs::write(&store.db, rows, ()).await.unwrap();
}

pub(crate) async fn log_late(store: &Store, mut rows: Vec<NewLogged>, recorded_at: DateTime<Utc>) {
    rows.iter_mut().for_each(|row| row.recorded_at = recorded_at);
    log(store, rows).await;
}

pub(crate) fn terms() -> Arc<Terms> {
    Arc::new(Terms::default())
}

/// As [`common::every_store`], with a clock that the test sets in PostgreSQL, too.
pub(crate) async fn every_store(test: impl AsyncFn(Store)) {
    for store in common::empty_stores().await {
        eprintln!("on {}", store.name);
        if let Some(database) = &store.database {
            database.own_clock().unwrap();
        }
        store.db.migrate().await.unwrap();
        test(store).await;
    }
}

/// Stops the store's clock at `now`; that of SQLite is whatever the run is told.
pub(crate) fn set_clock(store: &Store, now: DateTime<Utc>) {
    if let Some(database) = &store.database {
        database.stop_clock(&now.to_rfc3339()).unwrap();
    }
}

/// The windows that were judged when the store's clock and the machine's agree, by their hour.
pub(crate) async fn run(store: &Store, terms: &Arc<Terms>, now: DateTime<Utc>) -> Vec<String> {
    set_clock(store, now);
    match scan::run_due(&store.db, terms, "one", || now).await.unwrap() {
        Outcome::Done(all) => {
            all.iter().map(|judged| judged.window.start().format("%H").to_string()).collect()
        }
        Outcome::Busy => panic!("nobody else is at it"),
    }
}

pub(crate) async fn rows(db: &Db, status: Option<Status>) -> Vec<SuspiciousIp> {
    db.run(move |conn| suspicious_ips::page(conn, status, None, 1_000).boxed()).await.unwrap()
}

/// All open rows as `address rule hits`, sorted.
pub(crate) async fn open(store: &Store) -> Vec<String> {
    let mut all: Vec<String> = rows(&store.db, Some(Status::Open))
        .await
        .into_iter()
        .map(|row| format!("{} {} {}", row.address, row.rule, row.hits))
        .collect();
    all.sort();
    all
}

pub(crate) async fn runs(db: &Db) -> Vec<ScanRun> {
    db.run(|conn| scan_runs::page(conn, None, 1_000).boxed()).await.unwrap()
}

pub(crate) async fn review(store: &Store, id: i64, status: Status, now: DateTime<Utc>) {
    let review = Review { status, by: "cli:anna".to_owned(), at: now };
    let reviewed = store
        .db
        .run(move |conn| async move { suspicious_ips::review(conn, id, &review).await }.boxed())
        .await
        .unwrap();
    assert_eq!(reviewed.unwrap().status, status);
}
