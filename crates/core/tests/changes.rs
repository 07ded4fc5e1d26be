//! Changes travel from the store to the lists in force.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod common;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::changes::{self, Feed, Feeder, Source, Status};
use ipwarden_core::db::entries::NewEntry;
use ipwarden_core::db::list_changes::{self, List, Op};
use ipwarden_core::db::{Conn, Db, DbError, allowed_ips, blocked_ips};
use ipwarden_core::redis::RedisPool;
use ipwarden_engine::blocklist::{Block, Lists, disk};
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A replica: a feeder and what it put into force.
struct Replica {
    feeder: Feeder,
    feed: Feed,
    lists: Arc<Mutex<Arc<Lists>>>,
    store_ahead: Arc<AtomicI64>,
}

impl Replica {
    fn new(db: &Db, dir: &Path) -> Replica {
        let lists = Arc::new(Mutex::new(Arc::new(Lists::empty())));
        let store_ahead = Arc::new(AtomicI64::new(i64::MIN));
        let (into, ahead) = (lists.clone(), store_ahead.clone());
        let feeder = Feeder::new(
            db.clone(),
            changes::Copy::new(dir.join(changes::COPY)),
            move |lists| *into.lock() = Arc::new(lists),
            move |store_now, at| ahead.store(store_now - at.wall, Ordering::Relaxed),
        );
        Replica { feed: feeder.feed(), feeder, lists, store_ahead }
    }

    async fn refresh(&mut self) -> bool {
        self.feeder.refresh(Moment::now()).await.unwrap()
    }

    fn block(&self, address: &str) -> Option<Block> {
        self.lists.lock().find_block(address.parse().unwrap(), Moment::now().wall)
    }

    fn is_blocked(&self, address: &str) -> bool {
        self.block(address).is_some()
    }

    fn status(&self) -> Status {
        self.feed.status().borrow().clone()
    }

    /// Follows on a task of its own until the token is cancelled.
    fn run(self) -> (CancellationToken, tokio::task::JoinHandle<()>, Arc<Mutex<Arc<Lists>>>) {
        let stop = CancellationToken::new();
        (stop.clone(), tokio::spawn(self.feeder.run(None, stop)), self.lists)
    }

    /// Stops in order, so that the copy on disk is current.
    async fn stop(self) {
        let (stop, running, _) = self.run();
        stop.cancel();
        running.await.unwrap();
    }
}

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

fn seconds(since_epoch: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_secs(since_epoch).unwrap()
}

/// In 2001, in 2065 and in 2081.
const PAST: i64 = 1_000_000_000;
const FUTURE: i64 = 3_000_000_000;
const LATER: i64 = 3_500_000_000;

fn entry(network: Network, origin: &str, ends: Option<i64>) -> NewEntry {
    NewEntry {
        network,
        reason: String::new(),
        origin: origin.to_owned(),
        created_by: "test".to_owned(),
        created_at: seconds(PAST),
        expires_at: ends.map(seconds),
    }
}

/// Blocks and returns the version.
async fn block(db: &Db, target: &str, origin: &'static str, ends: Option<i64>) -> i64 {
    let target = network(target);
    db.transaction(move |conn| {
        async move {
            blocked_ips::put(conn, entry(target, origin, ends)).await?;
            recorded(conn, List::Blocked, Op::Set, target).await
        }
        .boxed()
    })
    .await
    .unwrap()
}

async fn unblock(db: &Db, target: &str) -> i64 {
    let target = network(target);
    db.transaction(move |conn| {
        async move {
            blocked_ips::remove(conn, target).await?;
            recorded(conn, List::Blocked, Op::Removed, target).await
        }
        .boxed()
    })
    .await
    .unwrap()
}

async fn allow(db: &Db, target: &str) -> i64 {
    let target = network(target);
    db.transaction(move |conn| {
        async move {
            allowed_ips::put(conn, entry(target, "manual", None)).await?;
            recorded(conn, List::Allowed, Op::Set, target).await
        }
        .boxed()
    })
    .await
    .unwrap()
}

async fn recorded(conn: &mut Conn, list: List, op: Op, target: Network) -> Result<i64, DbError> {
    list_changes::record(conn, list, op, &[Some(target)], seconds(PAST)).await
}

#[tokio::test]
async fn a_block_comes_into_force_and_goes_again() {
    every_store(async |store: Store| {
        let mut replica = Replica::new(&store.db, store.dir.path());
        assert_eq!(replica.status().source, Source::None);
        assert!(replica.refresh().await, "the first answer is news even of empty lists");
        assert_eq!(replica.status().source, Source::Store);
        assert!(!replica.refresh().await);

        let version = block(&store.db, "192.0.2.0/24", "manual", None).await;
        assert!(!replica.is_blocked("192.0.2.9"));
        assert!(replica.refresh().await);
        assert!(replica.is_blocked("192.0.2.9"));
        assert_eq!((replica.status().version, replica.status().blocked), (version, 1));
        assert_eq!(replica.lists.lock().version, version);

        unblock(&store.db, "192.0.2.0/24").await;
        assert!(replica.refresh().await);
        assert!(!replica.is_blocked("192.0.2.9"));
    })
    .await;
}

#[tokio::test]
async fn unblocking_one_of_nested_networks_leaves_the_others_in_force() {
    every_store(async |store: Store| {
        let mut replica = Replica::new(&store.db, store.dir.path());
        for target in ["10.2.0.0/16", "10.2.3.0/24", "10.2.3.4"] {
            block(&store.db, target, "manual", None).await;
        }
        replica.refresh().await;
        unblock(&store.db, "10.2.3.0/24").await;
        replica.refresh().await;
        assert!(replica.is_blocked("10.2.3.4") && replica.is_blocked("10.2.3.9"));
        unblock(&store.db, "10.2.0.0/16").await;
        replica.refresh().await;
        assert!(replica.is_blocked("10.2.3.4") && !replica.is_blocked("10.2.3.9"));
    })
    .await;
}

#[tokio::test]
async fn all_origins_of_a_network_come_to_one_block() {
    every_store(async |store: Store| {
        let mut replica = Replica::new(&store.db, store.dir.path());
        replica.refresh().await;
        let micros = |seconds: i64| Some(seconds * 1_000_000);
        block(&store.db, "192.0.2.1", "scan", Some(FUTURE)).await;
        replica.refresh().await;
        assert_eq!(replica.block("192.0.2.1"), Some(Block { ends: micros(FUTURE), by_scan: true }));
        // One that has ended is no longer of any effect.
        block(&store.db, "192.0.2.1", "list:old", Some(PAST)).await;
        replica.refresh().await;
        assert_eq!(replica.block("192.0.2.1"), Some(Block { ends: micros(FUTURE), by_scan: true }));
        block(&store.db, "192.0.2.1", "list:drop", Some(LATER)).await;
        replica.refresh().await;
        assert_eq!(replica.block("192.0.2.1"), Some(Block { ends: micros(LATER), by_scan: false }));
        block(&store.db, "192.0.2.1", "manual", None).await;
        replica.refresh().await;
        assert_eq!(replica.block("192.0.2.1"), Some(Block { ends: None, by_scan: false }));
    })
    .await;
}

#[tokio::test]
async fn following_change_by_change_comes_to_the_same_as_loading_whole() {
    every_store(async |store: Store| {
        let mut random = fastrand::Rng::with_seed(7);
        let mut follower = Replica::new(&store.db, store.dir.path());
        let targets: Vec<String> =
            (0..12).map(|n| format!("10.0.0.{}/{}", n * 16, 24 + n % 9)).collect();
        for _ in 0..30 {
            for _ in 0..random.usize(0..6) {
                let target = targets[random.usize(..targets.len())].clone();
                let target = Network::parse(&target).unwrap().network.to_string();
                let origin = ["manual", "scan", "list:drop"][random.usize(..3)];
                let ends = [None, Some(PAST), Some(FUTURE), Some(LATER)][random.usize(..4)];
                match random.u8(..4) {
                    0 => unblock(&store.db, &target).await,
                    1 => allow(&store.db, &target).await,
                    _ => block(&store.db, &target, origin, ends).await,
                };
            }
            follower.refresh().await;
            let mut fresh = Replica::new(&store.db, store.dir.path());
            fresh.refresh().await;
            assert_eq!(follower.status().version, fresh.status().version);
            let answers = |replica: &Replica| {
                let lists = replica.lists.lock().clone();
                let find = |n| {
                    let address = IpAddr::from([10, 0, 0, n]);
                    (lists.blocked().find(address), lists.allowed().find(address))
                };
                (0..=255).map(find).collect::<Vec<_>>()
            };
            assert_eq!(answers(&follower), answers(&fresh));
        }
    })
    .await;
}

#[tokio::test]
async fn a_gap_in_the_changes_is_made_up_for_whole() {
    every_store(async |store: Store| {
        let mut replica = Replica::new(&store.db, store.dir.path());
        replica.refresh().await;
        block(&store.db, "192.0.2.1", "manual", None).await;
        block(&store.db, "192.0.2.2", "manual", None).await;
        let everything = seconds(LATER);
        store.db.run(move |conn| list_changes::prune(conn, everything).boxed()).await.unwrap();
        let version = block(&store.db, "192.0.2.3", "manual", None).await;
        assert!(replica.refresh().await);
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert!(replica.is_blocked(address), "{address}");
        }
        assert_eq!(replica.status().version, version);
    })
    .await;
}

#[tokio::test]
async fn a_change_of_keys_is_told_to_whoever_keeps_them() {
    every_store(async |store: Store| {
        let mut replica = Replica::new(&store.db, store.dir.path());
        let mut keys = replica.feed.keys();
        replica.refresh().await;
        keys.mark_unchanged();
        block(&store.db, "192.0.2.1", "manual", None).await;
        replica.refresh().await;
        assert!(!keys.has_changed().unwrap());
        let version = store
            .db
            .transaction(|conn| {
                async move {
                    let at = seconds(PAST);
                    list_changes::record(conn, List::Keys, Op::Set, &[None], at).await
                }
                .boxed()
            })
            .await
            .unwrap();
        replica.refresh().await;
        assert_eq!(*keys.borrow(), version);
    })
    .await;
}

/// A store that nobody answers for.
fn nowhere() -> Db {
    Db::postgres("postgres://nobody@127.0.0.1:1/nothing?sslmode=disable", 1).unwrap()
}

#[tokio::test]
async fn a_restart_without_its_store_still_blocks() {
    every_store(async |store: Store| {
        let mut before = Replica::new(&store.db, store.dir.path());
        let version = block(&store.db, "192.0.2.0/24", "manual", None).await;
        allow(&store.db, "192.0.2.7").await;
        before.feeder.start().await;
        before.stop().await;

        let mut after = Replica::new(&nowhere(), store.dir.path());
        after.feeder.start().await;
        let status = after.status();
        assert_eq!((status.source, status.version), (Source::Disk, version + 1));
        assert_eq!((status.blocked, status.allowed, status.confirmed_at), (1, 1, None));
        assert!(status.trouble.is_some());
        assert!(after.is_blocked("192.0.2.1") && !after.is_blocked("192.0.2.7"));
    })
    .await;
}

#[tokio::test]
async fn the_store_has_the_last_word_over_the_copy_on_disk() {
    every_store(async |store: Store| {
        let mut before = Replica::new(&store.db, store.dir.path());
        block(&store.db, "192.0.2.1", "manual", None).await;
        before.feeder.start().await;
        before.stop().await;
        unblock(&store.db, "192.0.2.1").await;

        let mut after = Replica::new(&store.db, store.dir.path());
        after.feeder.load_copy().await;
        assert!(after.is_blocked("192.0.2.1"));
        after.feeder.start().await;
        assert!(!after.is_blocked("192.0.2.1"));
        assert_eq!(after.status().source, Source::Store);
    })
    .await;
}

#[tokio::test]
async fn a_start_with_a_copy_asks_for_what_came_after_it_and_only_its_own_store() {
    every_store(async |store: Store| {
        let mut before = Replica::new(&store.db, store.dir.path());
        block(&store.db, "192.0.2.1", "manual", None).await;
        block(&store.db, "192.0.2.2", "manual", None).await;
        before.feeder.start().await;
        before.stop().await;
        // What has no version of its own tells whether the lists were loaded whole.
        delete_silently(&store.db, "192.0.2.1").await;
        let version = block(&store.db, "192.0.2.3", "manual", None).await;

        let mut after = Replica::new(&store.db, store.dir.path());
        after.feeder.start().await;
        assert!(["192.0.2.1", "192.0.2.2", "192.0.2.3"].iter().all(|it| after.is_blocked(it)));
        let status = after.status();
        assert_eq!((status.source, status.version, status.blocked), (Source::Store, version, 3));
        after.stop().await;

        // Now the copy is current, and its store at the same version.
        let mut again = Replica::new(&store.db, store.dir.path());
        again.feeder.start().await;
        assert!(again.is_blocked("192.0.2.1"), "nothing was loaded at all");
        assert_eq!(again.status().source, Source::Store);

        // The copy of another store that is as far.
        let path = store.dir.path().join(changes::COPY);
        let copy = disk::load(&path).unwrap().unwrap();
        disk::save(&path, copy.version(), copy.made() + 1, copy.blocked(), copy.allowed()).unwrap();
        let mut elsewhere = Replica::new(&store.db, store.dir.path());
        elsewhere.feeder.start().await;
        assert!(!elsewhere.is_blocked("192.0.2.1") && elsewhere.is_blocked("192.0.2.3"));
    })
    .await;
}

async fn delete_silently(db: &Db, target: &str) {
    let target = network(target);
    let deleted = db.run(move |conn| blocked_ips::remove(conn, target).boxed());
    deleted.await.unwrap();
}

#[tokio::test]
async fn without_a_store_and_with_a_damaged_copy_there_are_no_lists() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(changes::COPY), "not a copy").unwrap();
    let mut replica = Replica::new(&nowhere(), dir.path());
    replica.feeder.start().await;
    assert_eq!(replica.status().source, Source::None);
    assert!(replica.status().trouble.unwrap().contains("does not answer"));
}

#[tokio::test]
async fn a_store_that_goes_away_leaves_the_lists_in_force_and_is_followed_again() {
    let server = ipwarden_testbed::postgres_private().unwrap();
    let database = server.database().unwrap();
    let db = Db::postgres(database.url(), 2).unwrap();
    db.migrate().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::new(&db, dir.path());
    block(&db, "192.0.2.1", "manual", None).await;
    replica.refresh().await;
    server.stop().unwrap();
    replica.feeder.refresh(Moment::now()).await.unwrap_err();
    assert!(replica.is_blocked("192.0.2.1"));
    assert!(replica.status().trouble.is_some());
    assert_eq!(replica.status().source, Source::Store);
    server.start().unwrap();
    let version = block_when_back(&db, "192.0.2.2").await;
    assert!(replica.refresh().await);
    assert!(replica.is_blocked("192.0.2.2"));
    assert_eq!((replica.status().version, replica.status().trouble), (version, None));
}

/// A server that was started a moment ago may still refuse, and the pool may hold dead connections.
async fn block_when_back(db: &Db, target: &str) -> i64 {
    for _ in 0..100 {
        match db.run(|conn| list_changes::version(conn).boxed()).await {
            Ok(_) => return block(db, target, "manual", None).await,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the server did not come back");
}

#[tokio::test]
async fn the_clock_of_the_store_is_compared_with_ours() {
    every_store(async |store: Store| {
        let mut replica = Replica::new(&store.db, store.dir.path());
        replica.feeder.start().await;
        let ahead = replica.store_ahead.load(Ordering::Relaxed);
        assert!(ahead.abs() < 500_000, "both are this machine's, {ahead} us apart");
    })
    .await;
}

/// Awaits that the lists in force are the store's and reach a version.
async fn reach(feed: &Feed, version: i64) {
    let mut status = feed.status();
    let reached =
        status.wait_for(|status| status.source == Source::Store && status.version >= version);
    tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap().unwrap();
}

#[tokio::test]
async fn every_running_replica_follows_without_any_hint() {
    every_store(async |store: Store| {
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let replicas: Vec<Replica> =
            dirs.iter().map(|dir| Replica::new(&store.db, dir.path())).collect();
        let feeds: Vec<Feed> = replicas.iter().map(|replica| replica.feed.clone()).collect();
        let running: Vec<_> = replicas.into_iter().map(Replica::run).collect();
        for feed in &feeds {
            reach(feed, 0).await;
        }
        let start = Moment::now();
        let version = block(&store.db, "192.0.2.1", "manual", None).await;
        for feed in &feeds {
            reach(feed, version).await;
        }
        eprintln!("{}: {} ms by polling", store.name, (Moment::now().steady - start.steady) / 1000);
        for (stop, task, lists) in running {
            assert!(lists.lock().blocked().find([192, 0, 2, 1].into()).is_some());
            stop.cancel();
            task.await.unwrap();
        }
        for dir in &dirs {
            let copy = ipwarden_engine::blocklist::disk::load(&dir.path().join(changes::COPY));
            assert_eq!(copy.unwrap().unwrap().version(), version, "stopping leaves a current copy");
        }
    })
    .await;
}

#[tokio::test]
async fn a_hint_over_redis_reaches_a_replica_again_after_redis_was_away() {
    let redis = ipwarden_testbed::redis_private().unwrap();
    let pool = RedisPool::new(redis.url().parse().unwrap());
    every_store(async |store: Store| {
        let replica = Replica::new(&store.db, store.dir.path());
        let (feed, stop) = (replica.feed.clone(), CancellationToken::new());
        let url = redis.url().parse().unwrap();
        let running = tokio::spawn(replica.feeder.run(Some(url), stop.clone()));
        for round in 0..2 {
            heard(&pool).await;
            let start = Moment::now();
            let version = block(&store.db, &format!("192.0.2.{round}"), "manual", None).await;
            changes::announce(&pool, version).await.unwrap();
            reach(&feed, version).await;
            let took = (Moment::now().steady - start.steady) / 1000;
            eprintln!("{}: {took} ms with a hint", store.name);
            redis.stop().unwrap();
            changes::announce(&pool, version).await.unwrap_err();
            redis.start().unwrap();
        }
        heard(&pool).await;
        stop.cancel();
        running.await.unwrap();
    })
    .await;
}

/// Awaits that somebody is subscribed.
async fn heard(pool: &RedisPool) {
    for _ in 0..200 {
        if let Ok(mut connection) = pool.connection().await {
            let mut count = deadpool_redis::redis::cmd("PUBSUB");
            count.arg("NUMSUB").arg(changes::CHANNEL);
            if let Ok((_, 1..)) = count.query_async::<(String, u64)>(&mut connection).await {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody subscribes");
}
