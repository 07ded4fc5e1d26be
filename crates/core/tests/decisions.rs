//! What bouncers are told, on both databases.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::db::bouncers::{self, Who};
use ipwarden_core::db::{Db, list_changes};
use ipwarden_core::decisions::{Decisions, Filter, Pull, pull};
use ipwarden_core::lists::{self, Actor, Rails, Request};
use ipwarden_engine::network::{Network, Parsed};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap()
}

fn actor() -> Actor {
    Actor { name: "cli:root".to_owned(), address: None }
}

fn parsed(target: &str) -> Vec<Parsed> {
    vec![Network::parse(target).unwrap()]
}

async fn block(db: &Db, target: &str, term: &str) {
    let request = Request {
        targets: parsed(target),
        term: term.parse().unwrap(),
        reason: Some("why".to_owned()),
        origin: lists::MANUAL.to_owned(),
        force: true,
    };
    let rails = Rails { trusted: vec![], own: vec![] };
    lists::block(db, request, actor(), rails, now()).await.unwrap();
}

async fn unblock(db: &Db, target: &str) {
    lists::unblock(db, parsed(target), actor(), now()).await.unwrap();
}

async fn allow(db: &Db, target: &str) {
    let request = Request {
        targets: parsed(target),
        term: "permanent".parse().unwrap(),
        reason: None,
        origin: lists::MANUAL.to_owned(),
        force: true,
    };
    let rails = Rails { trusted: vec![], own: vec![] };
    lists::allow(db, request, actor(), rails, now()).await.unwrap();
}

/// A bouncer, and what it has been told to keep out.
struct Bouncer {
    db: Db,
    decisions: Decisions,
    who: Who,
    held: BTreeSet<String>,
}

impl Bouncer {
    fn of(db: &Db) -> Bouncer {
        let address = "192.0.2.77".parse().unwrap();
        let who = Who { key_id: "a".to_owned(), address, kind: None, version: None };
        let decisions = Decisions::of(db.clone());
        Bouncer { db: db.clone(), decisions, who, held: BTreeSet::new() }
    }

    async fn asks(&self, startup: bool) -> Pull {
        pull(&self.db, &self.decisions, self.who.clone(), startup, now()).await.unwrap()
    }

    /// Does what it is told. Returns what was new and what had ended.
    fn hears(&mut self, pull: &Pull, store_now: i64) -> (BTreeSet<String>, BTreeSet<String>) {
        let all = Filter::default();
        let about = |value: &Network| self.decisions.about(*value, &all, store_now);
        let new: BTreeSet<String> = match pull.everything {
            true => {
                let (page, next) = self.decisions.page(None, 1_000, &all, store_now);
                assert_eq!(next, None);
                page.iter().map(|one| one.value.to_string()).collect()
            }
            false => {
                let told = pull.changed.iter().filter_map(about);
                told.map(|one| one.value.to_string()).collect()
            }
        };
        let ended = pull.maybe_ended.iter().filter(|value| about(value).is_none());
        let ended: BTreeSet<String> = ended.map(Network::to_string).collect();
        self.held.retain(|value| !ended.contains(value));
        self.held.extend(new.iter().cloned());
        (new, ended)
    }

    /// A whole pull: what was told arrived.
    async fn pulls(&mut self, startup: bool) -> (BTreeSet<String>, BTreeSet<String>) {
        let pull = self.asks(startup).await;
        let told = self.hears(&pull, self.store_now().await);
        let who = self.who.clone();
        let moved = self.db.run(move |conn| {
            async move { bouncers::pulled(conn, &who, pull.pulled.unwrap()).await }.boxed()
        });
        moved.await.unwrap();
        told
    }

    async fn store_now(&self) -> i64 {
        self.db.clock(now()).await.unwrap().timestamp_micros()
    }

    fn holds(&self) -> Vec<&str> {
        self.held.iter().map(String::as_str).collect()
    }
}

/// As if the last complete pull had been so long ago.
async fn age(db: &Db, days: i64) {
    let who = Who {
        key_id: "a".to_owned(),
        address: "192.0.2.77".parse().unwrap(),
        kind: None,
        version: None,
    };
    db.run(move |conn| {
        async move {
            let known = bouncers::find(conn, &who.key_id, who.address).await?.unwrap();
            let at = conn.clock(now()).await? - TimeDelta::days(days);
            let list_version = known.list_version.unwrap();
            let everything = known.announced_at.is_some();
            bouncers::pulled(conn, &who, bouncers::Pulled { list_version, at, everything }).await
        }
        .boxed()
    })
    .await
    .unwrap();
}

fn texts(values: &BTreeSet<String>) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_bouncer_is_told_everything_once_and_then_what_changed() {
    every_store(async |store: Store| {
        let db = &store.db;
        block(db, "203.0.113.9", "permanent").await;
        block(db, "198.51.100.0/24", "4h").await;
        let mut bouncer = Bouncer::of(db);
        let (new, ended) = bouncer.pulls(true).await;
        assert_eq!((new.len(), ended.len()), (2, 0));
        let (new, ended) = bouncer.pulls(false).await;
        assert_eq!((new.len(), ended.len()), (0, 0));
        block(db, "203.0.113.10", "1h").await;
        unblock(db, "203.0.113.9").await;
        let (new, ended) = bouncer.pulls(false).await;
        assert_eq!((texts(&new), texts(&ended)), (vec!["203.0.113.10"], vec!["203.0.113.9"]));
        assert_eq!(bouncer.holds(), ["198.51.100.0/24", "203.0.113.10"]);
        // One that asks for the first time without saying so knows nothing either.
        let mut other = Bouncer::of(db);
        other.who.address = "192.0.2.78".parse().unwrap();
        other.pulls(false).await;
        assert_eq!(other.holds(), bouncer.holds());
        let fresh = bouncer.pulls(true).await;
        assert!(fresh.1.contains("203.0.113.9"), "what is known to have ended");
    })
    .await;
}

#[tokio::test]
async fn a_pull_that_did_not_arrive_is_told_again() {
    every_store(async |store: Store| {
        let db = &store.db;
        let mut bouncer = Bouncer::of(db);
        bouncer.pulls(true).await;
        block(db, "203.0.113.9", "permanent").await;
        let lost = bouncer.asks(false).await;
        assert_eq!(lost.changed, ["203.0.113.9".parse().unwrap()]);
        block(db, "203.0.113.10", "permanent").await;
        bouncer.pulls(false).await;
        assert_eq!(bouncer.holds(), ["203.0.113.10", "203.0.113.9"]);
    })
    .await;
}

#[tokio::test]
async fn allowing_within_a_block_takes_it_apart_and_disallowing_puts_it_together() {
    every_store(async |store: Store| {
        let db = &store.db;
        let mut bouncer = Bouncer::of(db);
        block(db, "198.51.100.0/30", "permanent").await;
        bouncer.pulls(true).await;
        assert_eq!(bouncer.holds(), ["198.51.100.0/30"]);
        allow(db, "198.51.100.1").await;
        bouncer.pulls(false).await;
        assert_eq!(bouncer.holds(), ["198.51.100.0", "198.51.100.2/31"]);
        allow(db, "198.51.100.0/24").await;
        bouncer.pulls(false).await;
        assert_eq!(bouncer.holds(), [""; 0]);
        lists::disallow(db, parsed("198.51.100.0/24"), actor(), now()).await.unwrap();
        lists::disallow(db, parsed("198.51.100.1"), actor(), now()).await.unwrap();
        bouncer.pulls(false).await;
        assert_eq!(bouncer.holds(), ["198.51.100.0/30"]);
    })
    .await;
}

#[tokio::test]
async fn a_gap_in_the_changes_and_a_long_silence_lead_to_everything() {
    every_store(async |store: Store| {
        let db = &store.db;
        let mut bouncer = Bouncer::of(db);
        block(db, "203.0.113.9", "permanent").await;
        bouncer.pulls(true).await;
        assert!(!bouncer.asks(false).await.everything);
        age(db, 19).await;
        assert!(!bouncer.asks(false).await.everything);
        age(db, 20).await;
        assert!(bouncer.asks(false).await.everything, "ipset would forget it after 24.8 days");

        bouncer.pulls(false).await;
        for target in ["203.0.113.10", "203.0.113.11", "203.0.113.12"] {
            block(db, target, "permanent").await;
        }
        let later = db.clock(now()).await.unwrap() + TimeDelta::days(1);
        db.run(move |conn| list_changes::prune(conn, later).boxed()).await.unwrap();
        let pull = bouncer.asks(false).await;
        assert!(pull.everything);
        bouncer.hears(&pull, bouncer.store_now().await);
        assert_eq!(bouncer.held.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn deletions_of_the_last_two_seconds_before_a_pull_are_told_once_more() {
    every_store(async |store: Store| {
        let db = &store.db;
        let mut bouncer = Bouncer::of(db);
        block(db, "203.0.113.9", "permanent").await;
        bouncer.pulls(true).await;
        unblock(db, "203.0.113.9").await;
        let (_, ended) = bouncer.pulls(false).await;
        assert_eq!(texts(&ended), ["203.0.113.9"]);
        let (new, ended) = bouncer.pulls(false).await;
        assert_eq!((texts(&new), texts(&ended)), (vec![], vec!["203.0.113.9"]));
    })
    .await;
}

#[tokio::test]
async fn what_has_ended_is_deleted_and_nothing_that_has_ended_is_told() {
    every_store(async |store: Store| {
        let db = &store.db;
        let mut bouncer = Bouncer::of(db);
        block(db, "203.0.113.9", "1s").await;
        bouncer.pulls(true).await;
        assert_eq!(bouncer.holds(), ["203.0.113.9"]);
        let later = bouncer.store_now().await + 2_000_000;
        let all = Filter::default();
        let value = "203.0.113.9".parse().unwrap();
        assert_eq!(bouncer.decisions.about(value, &all, later), None);
        assert_eq!(bouncer.decisions.holding(value, &all, later), []);
        let pruned =
            async || lists::prune_ended(db, now() + TimeDelta::seconds(2)).await.unwrap().0;
        while pruned().await == 0 {
            // PostgreSQL has a clock of its own.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let (_, ended) = bouncer.pulls(false).await;
        assert_eq!(texts(&ended), ["203.0.113.9"]);
        assert_eq!(bouncer.holds(), [""; 0]);
    })
    .await;
}
