use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_engine::record::{RecordRef, RecordVerdict, Reference};
use ipwarden_engine::spool::{Draft, Spool, SpoolOptions};

use super::{BATCH, Recorder};
use crate::db::{Create, Db, request_logs, spool_positions};
use crate::geo::Geo;

fn record(path: &str) -> RecordRef<'_> {
    RecordRef {
        at: 1_790_000_000_000_000,
        address: "192.0.2.1".parse().unwrap(),
        method: b"GET",
        path: path.as_bytes(),
        status: 200,
        verdict: RecordVerdict::Allowed,
        sensitive: false,
        identity: None,
        user_agent: None,
        reference: Reference::random(),
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_000_000).unwrap()
}

async fn sql(db: &Db, statement: &'static str) {
    db.run(move |conn| conn.batch(statement).boxed()).await.unwrap();
}

#[tokio::test]
async fn a_record_that_the_store_refuses_holds_up_its_own_segment_only() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    db.migrate().await.unwrap();
    sql(
        &db,
        "create trigger refuse before insert on request_logs when new.path = '/refused' \
         begin select raise(abort, 'on purpose'); end",
    )
    .await;
    let spool = Spool::open(dir.path(), SpoolOptions::default()).unwrap();
    let geo = Arc::new(Geo::open(Vec::new(), None, None));
    let recorder = Recorder::new(spool.clone(), db.clone(), geo, "node-a");
    let mut writers = [spool.writer(), spool.writer(), spool.writer()];
    for (path, writer) in ["/refused", "/one", "/two"].into_iter().zip(&mut writers) {
        writer.append(Draft::of(&record(path)));
    }
    let now = now();
    let error = recorder.ship_all(now).await.unwrap_err();
    assert!(error.to_string().contains("1 segments"), "{error}");
    assert_eq!(recorder.status().shipped, 2);

    // The others go on at once, and the refused one too when the store has changed its mind.
    writers[1].append(Draft::of(&record("/three")));
    recorder.ship_all(now).await.unwrap_err();
    assert_eq!(recorder.status().shipped, 3);
    sql(&db, "drop trigger refuse").await;
    assert_eq!(recorder.ship_all(now).await.unwrap(), 1);
    let count = db.run(|conn| request_logs::count(conn).boxed()).await.unwrap();
    assert_eq!(count, 4);
}

#[tokio::test]
async fn what_was_read_ahead_of_a_refused_batch_is_neither_lost_nor_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    db.migrate().await.unwrap();
    sql(
        &db,
        "create trigger refuse before insert on request_logs when new.path = '/refused' \
         begin select raise(abort, 'on purpose'); end",
    )
    .await;
    let spool = Spool::open(dir.path(), SpoolOptions::default()).unwrap();
    let geo = Arc::new(Geo::open(Vec::new(), None, None));
    let recorder = Recorder::new(spool.clone(), db.clone(), geo, "node-a");
    let mut writers = [spool.writer(), spool.writer()];
    for number in 0..2 * BATCH {
        // In the second batch of the first segment, while the third waits.
        let path = if number == BATCH + 7 { "/refused" } else { "/" };
        writers[0].append(Draft::of(&record(path)));
        writers[1].append(Draft::of(&record("/other")));
    }
    recorder.ship_all(now()).await.unwrap_err();
    let in_the_store = async || db.run(|conn| request_logs::count(conn).boxed()).await.unwrap();
    // All of the other segment, and the first batch of this one.
    assert_eq!(recorder.status().shipped, 3 * BATCH as u64);
    assert_eq!(in_the_store().await, 3 * BATCH as i64);
    sql(&db, "drop trigger refuse").await;
    assert_eq!(recorder.ship_all(now()).await.unwrap(), BATCH as u64);
    assert_eq!(in_the_store().await, 4 * BATCH as i64);
    assert_eq!(recorder.ship_all(now()).await.unwrap(), 0);
}

#[tokio::test]
async fn positions_are_kept_while_their_segment_is_there_and_some_weeks_longer() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    db.migrate().await.unwrap();
    let spool = Spool::open(dir.path(), SpoolOptions::default()).unwrap();
    let geo = Arc::new(Geo::open(Vec::new(), None, None));
    let recorder = Recorder::new(spool.clone(), db.clone(), geo, "node-a");
    let (mut open, mut closed) = (spool.writer(), spool.writer());
    open.append(Draft::of(&record("/")));
    closed.append(Draft::of(&record("/")));
    recorder.ship_all(now()).await.unwrap();
    let segments: Vec<_> = spool.segments().iter().map(|segment| segment.id.to_string()).collect();
    drop(closed);
    recorder.ship_all(now()).await.unwrap();

    let known = async |days: i64| {
        recorder.tidy(now() + TimeDelta::days(days)).await.unwrap();
        let segments = segments.clone();
        db.run(move |conn| spool_positions::of(conn, segments).boxed()).await.unwrap()
    };
    assert_eq!(known(34).await.len(), 2);
    let left = known(36).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].0, spool.segments()[0].id.to_string());
    open.append(Draft::of(&record("/")));
    assert_eq!(recorder.ship_all(now()).await.unwrap(), 1);
}
