use std::time::Duration;

use futures_util::FutureExt;
use ipwarden_engine::blocklist::{ListEntry, disk};
use ipwarden_testbed::proxy::Proxy;
use tokio::time::timeout;

use super::*;
use crate::db::Create;
use crate::redis::RedisPool;
use crate::redis::tests::Topology;

#[tokio::test]
async fn a_store_that_was_set_back_is_loaded_whole() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    db.migrate().await.unwrap();
    let set = |db: &Db, sql: &'static str| {
        let db = db.clone();
        async move { db.run(move |conn| conn.batch(sql).boxed()).await.unwrap() }
    };
    set(&db, "update list_version set version = 7").await;
    let mut feeder = Feeder::new(db.clone(), Copy::new(dir.path().join(COPY)), |_| (), |_, _| ());
    assert!(feeder.refresh(Moment::now()).await.unwrap());
    assert_eq!(feeder.feed().status().borrow().version, 7);
    set(&db, "update list_version set version = 3").await;
    assert!(feeder.refresh(Moment::now()).await.unwrap());
    assert_eq!(feeder.feed().status().borrow().version, 3);
}

#[tokio::test]
async fn what_was_read_ahead_is_loaded_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(COPY);
    disk::save(&path, 7, 0, [], []).unwrap();
    let ahead = Copy::new(path.clone()).read_ahead();
    timeout(Duration::from_secs(60), ahead.has_read()).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    let mut feeder = Feeder::new(db, ahead, |_| (), |_, _| ());
    feeder.load_copy().await;
    let status = feeder.feed().status().borrow().clone();
    assert_eq!((status.source, status.version), (Source::Disk, 7));
}

#[tokio::test]
async fn a_start_waits_for_nothing_that_only_a_change_of_the_lists_needs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(COPY);
    let network = "192.0.2.1".parse().unwrap();
    disk::save(&path, 1, 5, [ListEntry { network, ends: None, by_scan: false }], []).unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    db.migrate().await.unwrap();
    // A key that was made after the last change of a list, as at the very first start.
    let changes = "insert into list_changes (version, list, op, at) values (1, 'blocked', 'set', 5), \
        (2, 'keys', 'set', 6); update list_version set version = 2";
    db.run(move |conn| conn.batch(changes).boxed()).await.unwrap();
    let mut feeder = Feeder::new(db, Copy::new(path), |_| (), |_, _| ());
    feeder.start().await;
    let status = feeder.feed().status().borrow().clone();
    assert_eq!((status.source, status.version, status.blocked), (Source::Store, 2, 1));
    assert!(feeder.unfilled.is_some() && feeder.filling.is_none());
}

#[tokio::test]
async fn connections_that_lead_nowhere_do_not_hold_up_what_changed() {
    let database = ipwarden_testbed::postgres_database().unwrap();
    let (rest, name) = database.url().rsplit_once('/').unwrap();
    let (user, server) = rest.rsplit_once('@').unwrap();
    let proxy = Proxy::to(server.parse().unwrap()).unwrap();
    let db = Db::postgres(&format!("{user}@{}/{name}", proxy.address()), 4).unwrap();
    db.migrate().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut feeder = Feeder::new(db.clone(), Copy::new(dir.path().join(COPY)), |_| (), |_, _| ());
    feeder.refresh(Moment::now()).await.unwrap();
    // Three in the pool; each of them is given three seconds to show that it is alive.
    let sleeping = [(); 3].map(|()| db.run(|conn| conn.batch("select pg_sleep(0.2)").boxed()));
    futures_util::future::try_join_all(sleeping).await.unwrap();
    let before = proxy.accepted();
    assert!(before >= 3, "{before}");

    proxy.strand();
    let direct = Db::postgres(database.url(), 1).unwrap();
    let change = "update list_version set version = version + 1; insert into list_changes \
        (version, list, op, network, at) select version, 'keys', 'set', null, now() from list_version";
    direct.run(move |conn| conn.batch(change).boxed()).await.unwrap();
    let asked = tokio::time::Instant::now();
    feeder.refresh(Moment::now()).await.unwrap();
    assert_eq!(feeder.feed().status().borrow().version, 1);
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_hint_has_the_store_asked() {
    let redis = ipwarden_testbed::redis_private().unwrap();
    let pool = RedisPool::new(redis.url().parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    let feeder = Feeder::new(db, Copy::new(dir.path().join(COPY)), |_| (), |_, _| ());
    let nudge = feeder.nudge.clone();
    let nudged = || timeout(Duration::from_secs(20), nudge.notified());
    let listening =
        hints::listen(redis.url().parse().unwrap(), nudge.clone(), feeder.feed().status());
    let hinting = async {
        nudged().await.expect("whoever has just subscribed asks once");
        announce(&pool, 41).await.unwrap();
        nudged().await.expect("a version that is not ours is a reason to ask");
        redis.stop().unwrap();
        redis.start().unwrap();
        nudged().await.expect("after a reconnect there may be something that was missed");
        announce(&pool, 42).await.unwrap();
        nudged().await.expect("hints arrive on the new connection");
    };
    tokio::select! {
        never = listening => match never {},
        () = hinting => {}
    }
}

#[tokio::test]
async fn a_hint_crosses_a_cluster() {
    let url = Topology::Cluster.url();
    let pool = RedisPool::new(url.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    let feeder = Feeder::new(db, Copy::new(dir.path().join(COPY)), |_| (), |_, _| ());
    let nudge = feeder.nudge.clone();
    let nudged = || timeout(Duration::from_secs(20), nudge.notified());
    let listening = hints::listen(url.parse().unwrap(), nudge.clone(), feeder.feed().status());
    let hinting = async {
        nudged().await.expect("whoever has just subscribed asks once");
        for version in 41..44 {
            announced(&pool, version).await;
            nudged().await.expect("a version that is not ours is a reason to ask");
        }
    };
    tokio::select! {
        never = listening => match never {},
        () = hinting => {}
    }
}

#[tokio::test]
async fn hints_go_on_after_a_failover() {
    let servers = ipwarden_testbed::redis_sentinel().unwrap();
    let pool = RedisPool::new(servers.url().parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    let feeder = Feeder::new(db, Copy::new(dir.path().join(COPY)), |_| (), |_, _| ());
    let nudge = feeder.nudge.clone();
    let nudged = || timeout(Duration::from_secs(30), nudge.notified());
    let url = servers.url().parse().unwrap();
    let listening = hints::listen(url, nudge.clone(), feeder.feed().status());
    let hinting = async {
        nudged().await.expect("whoever has just subscribed asks once");
        announced(&pool, 41).await;
        nudged().await.expect("a version that is not ours is a reason to ask");
        servers.kill_master().unwrap();
        announce(&pool, 42).await.unwrap_err();
        nudged().await.expect("subscribed to the new master, whoever that is, it asks once");
        announced(&pool, 43).await;
        nudged().await.expect("hints arrive from the new master");
    };
    tokio::select! {
        never = listening => match never {},
        () = hinting => {}
    }
}

/// Announces until Redis takes it: the machine may be busy.
async fn announced(pool: &RedisPool, version: i64) {
    for _ in 0..40 {
        if announce(pool, version).await.is_ok() {
            return;
        }
    }
    panic!("not announced");
}

#[tokio::test]
async fn a_copy_that_could_not_be_written_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    db.migrate().await.unwrap();
    let path = dir.path().join("later").join(COPY);
    let mut feeder = Feeder::new(db, Copy::new(path.clone()), |_| (), |_, _| ());
    feeder.refresh(Moment { wall: 0, steady: 0 }).await.unwrap();
    feeder.copy.written().await;
    assert!(!path.exists() && feeder.copy.is_outdated());
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    feeder.save_copy_if_due(Moment { wall: 0, steady: 1 }).await;
    feeder.copy.written().await;
    assert!(!path.exists(), "a full disk is not tried again at once");
    feeder.save_copy_if_due(Moment { wall: 0, steady: 60_000_000 }).await;
    feeder.copy.written().await;
    assert!(path.exists() && !feeder.copy.is_outdated());
}
