//! Old records lose their addresses, and the scan does not go wrong by it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use common::every_store;
use futures_util::FutureExt;
use ipwarden_core::anonymise;
use ipwarden_core::db::request_logs::{self, Filter, NewLogged};
use ipwarden_core::db::{Db, suspicious_ips};
use ipwarden_core::detect::Rules;
use ipwarden_core::scan::{self, Outcome, Terms};

const AFTER: TimeDelta = TimeDelta::days(7);
const SPAN: TimeDelta = TimeDelta::hours(1);

#[tokio::test]
async fn old_addresses_are_cut_once_and_young_ones_stay() {
    every_store(async |store| {
        let (db, now) = (&store.db, now());
        let old = now - AFTER - TimeDelta::hours(3);
        write(db, "203.0.113.9", old, 3).await;
        write(db, "2001:db8:1:2::3", old, 1).await;
        write(db, "203.0.113.9", old - TimeDelta::days(20), 1).await;
        write(db, "198.51.100.7", now - AFTER + TimeDelta::hours(2), 1).await;
        assert_eq!(cut(db, now).await, 0, "nothing was judged yet");
        judge(db, now).await;
        assert_eq!(cut(db, now).await, 5);
        assert_eq!(
            addresses(db).await,
            [
                "198.51.100.7",
                "2001:db8:1::",
                "203.0.113.0",
                "203.0.113.0",
                "203.0.113.0",
                "203.0.113.0"
            ]
        );
        assert_eq!(cut(db, now).await, 0);
        assert_eq!(cut(db, now + TimeDelta::hours(4)).await, 1, "its time has come");
    })
    .await;
}

#[tokio::test]
async fn what_comes_late_is_judged_whole_and_then_cut() {
    every_store(async |store| {
        let (db, now) = (&store.db, now());
        let old = now - AFTER - TimeDelta::days(1);
        // Sixty each, which is no finding; together they would be one.
        write(db, "203.0.113.9", old, 60).await;
        write(db, "203.0.113.10", old, 60).await;
        judge(db, now).await;
        assert_eq!(cut(db, now).await, 120);
        assert_eq!(found(db).await, Vec::<String>::new());

        // Judged again for a late record, or because somebody asks: those that were cut are nobody.
        write(db, "203.0.113.77", old, 1).await;
        assert_eq!(cut(db, now).await, 0, "the late one was not judged yet");
        judge(db, now).await;
        again(db, old, now).await;
        assert_eq!(found(db).await, Vec::<String>::new());
        assert_eq!(cut(db, now).await, 1);

        // A late one that hammered is found, whole.
        write(db, "203.0.113.78", old, 101).await;
        judge(db, now).await;
        assert_eq!(found(db).await, ["203.0.113.78"]);
        assert_eq!(cut(db, now).await, 101);
        again(db, old, now).await;
        assert_eq!(found(db).await, ["203.0.113.78"], "and stays found");
    })
    .await;
}

async fn cut(db: &Db, now: DateTime<Utc>) -> usize {
    anonymise::run(db, AFTER, SPAN, now).await.unwrap()
}

fn terms() -> Arc<Terms> {
    let rules = Rules { max_requests: 100, span: SPAN };
    Arc::new(Terms { rules, ..Terms::default() })
}

async fn judge(db: &Db, now: DateTime<Utc>) {
    let judged = scan::run_due(db, &terms(), "test", || now).await.unwrap();
    assert!(matches!(judged, Outcome::Done(_)));
}

async fn again(db: &Db, hour: DateTime<Utc>, now: DateTime<Utc>) {
    let between = (hour - TimeDelta::hours(1), hour + TimeDelta::hours(2));
    let judged = scan::run_between(db, &terms(), between, || now).await.unwrap();
    assert!(matches!(judged, Outcome::Done(_)));
}

async fn found(db: &Db) -> Vec<String> {
    let rows = db.run(|conn| suspicious_ips::page(conn, None, None, 100).boxed()).await.unwrap();
    rows.iter().map(|row| row.address.to_string()).collect()
}

async fn addresses(db: &Db) -> Vec<String> {
    let filter = Filter::default();
    let rows = db.run(move |conn| {
        async move { request_logs::page(conn, &filter, None, 1_000).await }.boxed()
    });
    let mut all: Vec<_> = rows.await.unwrap().iter().map(|row| row.address.to_string()).collect();
    all.sort_unstable();
    all
}

async fn write(db: &Db, address: &str, at: DateTime<Utc>, count: i64) {
    let record = |n| NewLogged {
        at: at + TimeDelta::milliseconds(n),
        address: address.parse().unwrap(),
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
    };
    let batch = (0..count).map(record).collect();
    request_logs::write(db, batch, ()).await.unwrap();
}

/// PostgreSQL judges by a clock of its own, which goes with this one.
#[expect(clippy::disallowed_methods, reason = "PostgreSQL's clock is compared with it")]
fn now() -> DateTime<Utc> {
    Utc::now()
}
