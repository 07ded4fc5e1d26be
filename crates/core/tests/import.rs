//! Access logs of other servers, on both databases: what goes in, once.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use ipwarden_core::db::request_logs::{self, Filter};
use ipwarden_core::db::suspicious_ips::{self, Status};
use ipwarden_core::db::{Db, scan_runs};
use ipwarden_core::geo::Geo;
use ipwarden_core::import::{self, ImportError, Imported, Importer, Input};
use ipwarden_core::scan::{self, Outcome, Terms};
use ipwarden_engine::sensitive_path::SensitivePaths;

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/access.log.gz")
}

fn now() -> DateTime<Utc> {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

async fn import(db: &Db, input: Input) -> Result<Imported, ImportError> {
    let geo = Geo::open(Vec::new(), None, None);
    let sensitive = Arc::new(SensitivePaths::default());
    let with = Importer { db, geo: &geo, sensitive, by: "cli:anna" };
    import::import(&with, input, now, |_| {}).await
}

async fn import_text(store: &Store, text: &str) -> Imported {
    let input = Input::copy("-".to_owned(), text.as_bytes()).unwrap();
    import(&store.db, input).await.unwrap()
}

async fn paths(db: &Db) -> Vec<String> {
    let page = db.run(|conn| {
        async move { request_logs::page(conn, &Filter::default(), None, 100_000).await }.boxed()
    });
    let mut paths: Vec<String> = page.await.unwrap().into_iter().map(|row| row.path).collect();
    paths.sort();
    paths
}

async fn count(db: &Db) -> i64 {
    db.run(|conn| request_logs::count(conn).boxed()).await.unwrap()
}

fn line(n: usize) -> String {
    let (minute, second) = (n / 60, n % 60);
    format!(
        "192.0.2.7 - - [17/May/2015:10:{minute:02}:{second:02} +0000] \"GET /{n:04} HTTP/1.1\" 200 1\n"
    )
}

fn text(lines: std::ops::Range<usize>) -> String {
    lines.map(line).collect()
}

#[tokio::test]
async fn the_sample_goes_in_whole_and_the_same_twice_adds_nothing() {
    every_store(async |store: Store| {
        let imported = import(&store.db, Input::open(&sample()).unwrap()).await.unwrap();
        assert_eq!((imported.records, imported.known_lines, imported.unreadable), (10_000, 0, 0));
        assert_eq!(imported.cut_short, None);
        let (first, last) = imported.span.unwrap();
        assert_eq!(first.to_rfc3339(), "2015-05-17T10:05:00+00:00");
        assert_eq!(last.to_rfc3339(), "2015-05-20T21:05:59+00:00");
        assert_eq!(count(&store.db).await, 10_000);

        let again = import(&store.db, Input::open(&sample()).unwrap()).await.unwrap();
        assert_eq!((again.records, again.known_lines), (0, 10_000));
        assert_eq!(count(&store.db).await, 10_000);

        let page = store.db.run(|conn| {
            async move { request_logs::page(conn, &Filter::default(), None, 1).await }.boxed()
        });
        let row = page.await.unwrap().remove(0);
        assert_eq!((row.verdict.as_str(), row.node.as_str()), ("allowed", "import"));
        assert_eq!(row.reference, None);
    })
    .await;
}

#[tokio::test]
async fn the_hours_of_an_import_are_judged_and_none_becomes_a_missed_one() {
    every_store(async |store: Store| {
        import(&store.db, Input::open(&sample()).unwrap()).await.unwrap();
        let terms = Arc::new(Terms::default());
        let Outcome::Done(judged) = scan::run_due(&store.db, &terms, "one", now).await.unwrap()
        else {
            panic!("nobody else is at it")
        };
        // Each of the 84 hours, the one after the last, and the hour that ended.
        assert_eq!(judged.len(), 86);
        let runs = store.db.run(|conn| scan_runs::page(conn, None, 100).boxed()).await.unwrap();
        assert_eq!(runs.len(), 1, "2015 was not missed");

        let open = store.db.run(|conn| {
            async move { suspicious_ips::page(conn, Some(Status::Open), None, 100).await }.boxed()
        });
        let mut found: Vec<String> = open
            .await
            .unwrap()
            .iter()
            .map(|row| format!("{} {} {}", row.address, row.rule, row.hits))
            .collect();
        found.sort();
        assert_eq!(found, EXPECTED);
        let again = scan::run_due(&store.db, &terms, "one", now).await.unwrap();
        assert_eq!(again, Outcome::Done(Vec::new()));
    })
    .await;
}

/// Counted in the file by another program.
const EXPECTED: [&str; 1] = ["75.97.9.59 volume 110"];

#[tokio::test]
async fn a_grown_file_adds_only_its_new_lines() {
    every_store(async |store: Store| {
        assert_eq!(import_text(&store, &text(0..20)).await.records, 20);
        let grown = import_text(&store, &text(0..30)).await;
        assert_eq!((grown.records, grown.known_lines), (10, 20));
        // Packed, and begun in the middle of nowhere.
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text(0..40).as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        let input = Input::copy("-".to_owned(), packed.as_slice()).unwrap();
        let grown = import(&store.db, input).await.unwrap();
        assert_eq!((grown.records, grown.known_lines), (10, 30));
        assert_eq!(count(&store.db).await, 40);
        // Another file that holds one of the lines is another file.
        assert_eq!(import_text(&store, &text(5..6)).await.records, 1);
    })
    .await;
}

#[tokio::test]
async fn equal_lines_of_one_file_all_count() {
    every_store(async |store: Store| {
        assert_eq!(import_text(&store, &line(1).repeat(3)).await.records, 3);
        assert_eq!(count(&store.db).await, 3);
    })
    .await;
}

#[tokio::test]
async fn unreadable_lines_are_counted_and_the_first_are_told() {
    every_store(async |store: Store| {
        let log = format!("{}{}{}", line(1), "nonsense\n".repeat(25), line(2));
        let imported = import_text(&store, &log).await;
        assert_eq!((imported.records, imported.unreadable), (2, 25));
        let told: Vec<u64> = imported.told.iter().map(|error| error.line).collect();
        assert_eq!(told, (2..12).collect::<Vec<u64>>());
        let again = import_text(&store, &log).await;
        assert_eq!((again.records, again.known_lines, again.unreadable), (0, 27, 0));
        // A file without a single record is known as well.
        assert_eq!(import_text(&store, "nonsense\n").await.unreadable, 1);
        assert_eq!(import_text(&store, "nonsense\n").await.known_lines, 1);
        assert_eq!(import_text(&store, "").await, Imported::default());
    })
    .await;
}

#[tokio::test]
async fn whatever_bytes_a_client_sent_go_in() {
    every_store(async |store: Store| {
        let mut log =
            b"192.0.2.7 - \\x00\xff\\xe4 [17/May/2015:10:00:00 +0000] \"\\x00\xff\\x16 ".to_vec();
        log.extend_from_slice(b"'; drop table request_logs;--\" 400 0 \"-\" \"\\x00\xff\"\n");
        let input = Input::copy("-".to_owned(), log.as_slice()).unwrap();
        assert_eq!(import(&store.db, input).await.unwrap().records, 1);
        assert_eq!(paths(&store.db).await, ["%00%FF%16%20';%20drop%20table%20request_logs;--"]);
    })
    .await;
}

#[tokio::test]
async fn a_gzip_file_that_was_cut_off_goes_in_as_far_as_it_goes_and_then_on() {
    every_store(async |store: Store| {
        let whole = std::fs::read(sample()).unwrap();
        let input = Input::copy("cut".to_owned(), &whole[..whole.len() / 2]).unwrap();
        let part = import(&store.db, input).await.unwrap();
        assert!(part.cut_short.is_some());
        assert!(part.records > 1_000, "{part:?}");
        let rest = import(&store.db, Input::open(&sample()).unwrap()).await.unwrap();
        assert_eq!((rest.known_lines, rest.cut_short), (part.records, None));
        assert_eq!(count(&store.db).await, 10_000);
    })
    .await;
}

#[tokio::test]
async fn an_import_that_was_killed_goes_on_where_it_was() {
    every_store(async |store: Store| {
        // Three batches; the import is dropped when the first is in.
        let log: String = (0..25_000).map(|n| line(n % 3_600)).collect();
        let reached = std::cell::Cell::new(0);
        {
            let geo = Geo::open(Vec::new(), None, None);
            let sensitive = Arc::new(SensitivePaths::default());
            let with = Importer { db: &store.db, geo: &geo, sensitive, by: "cli:anna" };
            let input = Input::copy("-".to_owned(), log.as_bytes()).unwrap();
            let (tell, told) = tokio::sync::oneshot::channel();
            let mut tell = Some(tell);
            let running = import::import(&with, input, now, |progress| {
                reached.set(progress.records);
                if let Some(tell) = tell.take() {
                    tell.send(()).unwrap();
                }
            });
            tokio::select! {
                biased;
                _ = told => {}
                done = running => panic!("it was to be killed: {done:?}"),
            }
        }
        let written = count(&store.db).await;
        assert!((10_000..25_000).contains(&written), "{written}");

        let input = || Input::copy("-".to_owned(), log.as_bytes()).unwrap();
        let busy = import(&store.db, input()).await;
        assert!(matches!(busy, Err(ImportError::Busy { .. })), "its lease has not ended");
        end_leases(&store).await;
        let rest = import(&store.db, input()).await.unwrap();
        assert!(rest.known_lines >= 10_000, "{rest:?}");
        assert_eq!(count(&store.db).await, 25_000);
    })
    .await;
}

/// As if their time had passed.
async fn end_leases(store: &Store) {
    use ipwarden_core::db::leases::{self, Lease};
    store
        .db
        .run(|conn| {
            async move {
                let ttl = TimeDelta::seconds(1);
                let lease = Lease { name: "import", holder: String::new(), fencing: 1, ttl };
                leases::release(conn, &lease, now() - TimeDelta::days(1)).await
            }
            .boxed()
        })
        .await
        .unwrap();
}

/// Waits until the log holds exactly these paths.
async fn until_paths(db: &Db, expected: &[String]) {
    for _ in 0..400 {
        if paths(db).await == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(paths(db).await, expected, "after twenty seconds");
}

#[tokio::test]
async fn a_log_that_grows_is_followed_through_both_kinds_of_rotation() {
    every_store(async |store: Store| {
        let path = store.dir.path().join("access.log");
        let append = |path: &Path, text: &str| {
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let named =
            |all: std::ops::Range<usize>| all.map(|n| format!("/{n:04}")).collect::<Vec<_>>();
        append(&path, &line(0));
        let stop = tokio_util::sync::CancellationToken::new();
        let (db, followed, until) = (store.db.clone(), path.clone(), stop.clone());
        let following = tokio::spawn(async move {
            let geo = Geo::open(Vec::new(), None, None);
            let sensitive = Arc::new(SensitivePaths::default());
            let with = Importer { db: &db, geo: &geo, sensitive, by: "cli:anna" };
            import::follow(&with, &followed, None, now, |_| {}, until).await
        });
        until_paths(&store.db, &named(0..1)).await;
        // A line that is written in two pieces is one.
        append(&path, &line(1)[..30]);
        append(&path, &line(1)[30..]);
        until_paths(&store.db, &named(0..2)).await;
        // By renaming; the server goes on with the old file for a moment.
        std::fs::rename(&path, path.with_extension("log.1")).unwrap();
        append(&path.with_extension("log.1"), &line(2));
        append(&path, &line(3));
        until_paths(&store.db, &named(0..4)).await;
        append(&path, &line(4));
        until_paths(&store.db, &named(0..5)).await;
        // By copying and truncating.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        append(&path, &line(5));
        until_paths(&store.db, &named(0..6)).await;
        stop.cancel();
        let done = following.await.unwrap().unwrap();
        assert_eq!((done.records, done.unreadable), (6, 0));
        // Whoever comes again finds nothing new, and nobody holds the lease.
        let again = import(&store.db, Input::open(&path).unwrap()).await.unwrap();
        assert_eq!((again.records, again.known_lines), (0, 1));
    })
    .await;
}
