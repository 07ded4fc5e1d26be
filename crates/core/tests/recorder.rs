//! The way of a record from the spool into both databases.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::db::request_logs::{self, Filter, Logged};
use ipwarden_core::db::{Create, Db};
use ipwarden_core::geo::Geo;
use ipwarden_core::recorder::{BATCH, Recorder};
use ipwarden_engine::record::{RecordRef, RecordVerdict, Reference};
use ipwarden_engine::spool::{Draft, Spool, SpoolOptions, SpoolWriter};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const START: i64 = 1_790_000_000_000_000;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(START).unwrap()
}

fn spool(data_dir: &Path) -> Spool {
    let options = SpoolOptions { segment_bytes: 64 << 10, ..SpoolOptions::default() };
    Spool::open(data_dir, options).unwrap()
}

fn recorder(spool: &Spool, db: &Db) -> Recorder {
    Recorder::new(spool.clone(), db.clone(), Arc::new(Geo::open(Vec::new(), None, None)), "node-a")
}

fn record(number: i64) -> RecordRef<'static> {
    RecordRef {
        at: START + number,
        address: "192.0.2.1".parse().unwrap(),
        method: b"GET",
        path: b"/some/path?token=secret",
        status: 200,
        verdict: RecordVerdict::Allowed,
        sensitive: false,
        identity: None,
        user_agent: Some(b"curl/8.0"),
        reference: Reference::from_bits(number as u64).unwrap(),
    }
}

fn append(writer: &mut SpoolWriter, numbers: std::ops::Range<i64>) {
    numbers.for_each(|number| writer.append(Draft::of(&record(number))));
}

/// The newest records, oldest first.
async fn logged(db: &Db) -> Vec<Logged> {
    let mut rows = db
        .run(|conn| {
            async move { request_logs::page(conn, &Filter::default(), None, 1_000_000).await }
                .boxed()
        })
        .await
        .unwrap();
    rows.reverse();
    rows
}

/// Fails unless the store holds exactly the records of these numbers, each once.
async fn expect_exactly(db: &Db, numbers: std::ops::Range<i64>) {
    let there: Vec<_> =
        logged(db).await.iter().map(|row| row.at.timestamp_micros() - START).collect();
    assert_eq!(there.len() as i64, numbers.end - numbers.start);
    assert!(there.into_iter().eq(numbers));
}

/// The data directory as a backup tool would copy it, while it is in use.
fn copy_of(data_dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("spool")).unwrap();
    for file in fs::read_dir(data_dir.join("spool")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join("spool").join(file.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn a_record_arrives_whole_with_its_place() {
    every_store(async |store: Store| {
        let files = store.dir.path().join("city.mmdb");
        ipwarden_testbed::geo::write_city(&files, &[("192.0.2.0/24", "DE", "Köln")]).unwrap();
        let spool = spool(store.dir.path());
        let geo = Arc::new(Geo::open(vec![files], None, None));
        let recorder = Recorder::new(spool.clone(), store.db.clone(), geo, "node-a");
        let mut writer = spool.writer();
        let refused = RecordRef {
            method: b"POST",
            path: b"/a\0b\r\n\xff?token=secret",
            status: 429,
            verdict: RecordVerdict::Throttled,
            sensitive: true,
            identity: Some("key:zo\u{eb}\0"),
            user_agent: Some(b"\x1b[31m\xf0\0"),
            ..record(7)
        };
        writer.append(Draft::of(&refused));
        assert_eq!(recorder.ship_all(now()).await.unwrap(), 1);

        let [row] = &logged(&store.db).await[..] else { panic!("one row") };
        assert_eq!(row.at.timestamp_micros(), START + 7);
        assert_eq!(row.address, refused.address);
        assert_eq!((&*row.method, &*row.path), ("POST", "/a%00b%0D%0A%FF"));
        assert_eq!((row.status, &*row.verdict, row.sensitive), (429, "throttled", true));
        assert_eq!(row.identity.as_deref(), Some("key:zo\u{eb}%00"));
        assert_eq!(row.user_agent.as_deref(), Some("%1B[31m%F0%00"));
        assert_eq!(row.reference, Some(refused.reference.to_string()));
        assert_eq!((row.country.as_deref(), row.city.as_deref()), (Some("DE"), Some("Köln")));
        assert_eq!(row.node, "node-a");
        if store.db.is_sqlite() {
            assert_eq!(row.recorded_at, now());
        }
        assert_eq!(recorder.status().shipped, 1);
    })
    .await;
}

#[tokio::test]
async fn an_open_segment_is_shipped_as_it_grows_and_removed_when_it_is_done() {
    every_store(async |store: Store| {
        let spool = spool(store.dir.path());
        let recorder = recorder(&spool, &store.db);
        let mut writer = spool.writer();
        append(&mut writer, 0..10);
        assert_eq!(recorder.ship_all(now()).await.unwrap(), 10);
        assert_eq!(recorder.ship_all(now()).await.unwrap(), 0);
        append(&mut writer, 10..15);
        assert_eq!(recorder.ship_all(now()).await.unwrap(), 5);
        assert_eq!(spool.segments().len(), 1);
        drop(writer);
        assert_eq!(recorder.ship_all(now()).await.unwrap(), 0);
        assert_eq!(spool.segments(), []);
        expect_exactly(&store.db, 0..15).await;
    })
    .await;
}

#[tokio::test]
async fn more_than_a_batch_is_shipped_in_one_go() {
    every_store(async |store: Store| {
        let spool = spool(store.dir.path());
        let all = BATCH as i64 * 2 + 500;
        append(&mut spool.writer(), 0..all);
        assert_eq!(recorder(&spool, &store.db).ship_all(now()).await.unwrap(), all as u64);
        assert_eq!(spool.segments(), []);
        expect_exactly(&store.db, 0..all).await;
    })
    .await;
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_process_stopped() {
    every_store(async |store: Store| {
        let first = spool(store.dir.path());
        let mut writer = first.writer();
        append(&mut writer, 0..10);
        recorder(&first, &store.db).ship_all(now()).await.unwrap();
        append(&mut writer, 10..20);
        drop((writer, first));
        let second = spool(store.dir.path());
        append(&mut second.writer(), 20..30);
        assert_eq!(recorder(&second, &store.db).ship_all(now()).await.unwrap(), 20);
        expect_exactly(&store.db, 0..30).await;
    })
    .await;
}

#[tokio::test]
async fn a_copied_directory_neither_doubles_nor_skips() {
    every_store(async |store: Store| {
        let original = spool(store.dir.path());
        let ours = recorder(&original, &store.db);
        let mut writer = original.writer();
        append(&mut writer, 0..10);
        ours.ship_all(now()).await.unwrap();
        append(&mut writer, 10..20);
        let copy = copy_of(store.dir.path());
        append(&mut writer, 20..30);

        // The copy ships what it has; we have not heard of it, and still ship only the rest.
        let copied = spool(copy.path());
        assert_eq!(recorder(&copied, &store.db).ship_all(now()).await.unwrap(), 10);
        assert_eq!(ours.ship_all(now()).await.unwrap(), 10);
        expect_exactly(&store.db, 0..30).await;

        // A copy that comes back when everything was shipped, and more than it knows.
        let late = copy_of(copy.path());
        assert_eq!(copied.segments(), []);
        let old = copy_of(store.dir.path());
        append(&mut writer, 30..40);
        drop(writer);
        ours.ship_all(now()).await.unwrap();
        for directory in [late, old] {
            let late = spool(directory.path());
            assert_eq!(recorder(&late, &store.db).ship_all(now()).await.unwrap(), 0);
            assert_eq!((late.segments(), late.status().damaged), (Vec::new(), 0));
        }
        expect_exactly(&store.db, 0..40).await;
    })
    .await;
}

#[tokio::test]
async fn two_who_ship_copies_at_once_write_each_record_once() {
    every_store(async |store: Store| {
        let original = spool(store.dir.path());
        append(&mut original.writer(), 0..3000);
        let copy = copy_of(store.dir.path());
        let copied = spool(copy.path());
        let (ours, theirs) = (recorder(&original, &store.db), recorder(&copied, &store.db));
        let (one, two) = tokio::join!(ours.ship_all(now()), theirs.ship_all(now()));
        assert_eq!(one.unwrap() + two.unwrap(), 3000);
        expect_exactly(&store.db, 0..3000).await;
    })
    .await;
}

#[tokio::test]
async fn a_damaged_segment_is_set_aside_and_holds_nothing_up() {
    every_store(async |store: Store| {
        let spool = spool(store.dir.path());
        append(&mut spool.writer(), 0..10);
        let damaged = spool.segments()[0].id;
        let path = spool.dir().join(format!("{damaged}.segment"));
        let mut bytes = fs::read(&path).unwrap();
        let first = bytes.windows(10).position(|bytes| bytes == b"/some/path").unwrap();
        bytes[first] ^= 1;
        fs::write(&path, bytes).unwrap();
        append(&mut spool.writer(), 10..20);

        let recorder = recorder(&spool, &store.db);
        assert_eq!(recorder.ship_all(now()).await.unwrap(), 19);
        expect_exactly(&store.db, 1..20).await;
        assert_eq!(spool.segments(), []);
        assert_eq!(spool.status().damaged, 1);
        assert!(spool.dir().join(format!("damaged/{damaged}-64.segment")).exists());
    })
    .await;
}

#[tokio::test]
async fn what_runs_by_itself_has_a_record_in_the_store_soon() {
    every_store(async |store: Store| {
        let spool = spool(store.dir.path());
        let recorder = Arc::new(recorder(&spool, &store.db));
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (recorder, stop) = (recorder.clone(), stop.clone());
            async move { recorder.run(&stop).await }
        });
        append(&mut spool.writer(), 0..10);
        // A second is the goal; ten times that fails.
        let arrived = tokio::time::timeout(Duration::from_secs(10), async {
            while recorder.status().shipped < 10 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        arrived.await.unwrap();
        stop.cancel();
        running.await.unwrap();
        expect_exactly(&store.db, 0..10).await;
    })
    .await;
}

#[tokio::test]
async fn while_the_store_is_away_records_wait_in_the_spool() {
    let server = ipwarden_testbed::postgres_private().unwrap();
    let database = server.database().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let db = Db::postgres(database.url(), 2).unwrap();
    db.migrate().await.unwrap();
    let spool = spool(dir.path());
    let recorder = recorder(&spool, &db);
    let mut writer = spool.writer();
    append(&mut writer, 0..10);
    recorder.ship_all(now()).await.unwrap();
    server.stop().unwrap();
    append(&mut writer, 10..2000);
    let error = recorder.ship_all(now()).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    assert!(recorder.status().failing);
    server.start().unwrap();
    // This server, which syncs nothing, may have lost the first ten with its crash; then their
    // position was lost with them.
    assert!(recorder.ship_all(now()).await.unwrap() >= 1990);
    assert!(!recorder.status().failing);
    expect_exactly(&db, 0..2000).await;
}

#[tokio::test]
async fn a_store_without_its_file_is_no_end_of_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    let spool = spool(dir.path());
    append(&mut spool.writer(), 0..10);
    let recorder = recorder(&spool, &db);
    // Not migrated: the store refuses every statement.
    recorder.ship_all(now()).await.unwrap_err();
    db.migrate().await.unwrap();
    assert_eq!(recorder.ship_all(now()).await.unwrap(), 10);
    expect_exactly(&db, 0..10).await;
}

/// A writer seals its segment a moment before the spool knows that it is done; a recorder that looks just
/// then tries again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_sealed_while_the_recorder_looks_is_put_away_at_the_next_look() {
    every_store(async |store: Store| {
        let spool = spool(store.dir.path());
        let recorder = recorder(&spool, &store.db);
        for round in 0..300 {
            let mut writer = spool.writer();
            append(&mut writer, round..round + 1);
            let ending = std::thread::spawn(move || drop(writer));
            recorder.ship_all(now()).await.unwrap();
            ending.join().unwrap();
        }
        recorder.ship_all(now()).await.unwrap();
        assert_eq!(spool.segments(), [], "segments that nobody will put away");
        expect_exactly(&store.db, 0..300).await;
    })
    .await;
}
