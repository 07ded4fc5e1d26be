//! What scripts hold on to: exit codes, streams, formats.

mod common;

use std::path::Path;
use std::process::Stdio;

use common::{Ran, Store, every_store, finish, ipctl, now, stores};
use futures_util::FutureExt;
use ipwarden_core::db::{Db, audit_log, blocked_ips};
use ipwarden_testbed::PostgresServer;
use rstest::rstest;
use serde_json::Value;

fn run_in(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = ipctl(dir);
    command.args(arguments).envs(environment.iter().copied());
    finish(command, b"")
}

#[rstest]
#[case::unknown_command(&["blok", "192.0.2.1"], "similar subcommand")]
#[case::missing_argument(&["block"], "Usage: ipctl block")]
#[case::unknown_flag(&["list-blocked", "--colour"], "Usage: ipctl list-blocked")]
#[case::unknown_format(&["list-blocked", "-o", "xml"], "json")]
#[case::bad_duration(&["block", "192.0.2.1", "--for", "4"], "not a duration")]
#[case::bad_time(&["logs", "--since", "yesterday"], "2h for two hours ago")]
#[case::bad_role(&["key", "create", "x", "--role", "root"], "operator")]
#[case::bad_finding(&["review", "abc", "--block"], "list-suspicious")]
#[case::no_judgement(&["review", "1"], "--dismiss")]
#[case::control_characters(&["block", "192.0.2.1", "--reason", "a\u{1b}[31mb"], "one line")]
fn what_cannot_be_meant_exits_2_and_says_what_can(#[case] line: &[&str], #[case] says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), line, &[]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""), "{ran:?}");
    assert!(ran.stderr.contains(says), "{ran:?}");
    assert!(!ran.stderr.contains('\u{1b}'), "no colours into a pipe: {ran:?}");
}

#[test]
fn help_and_version_are_data() {
    let dir = tempfile::tempdir().unwrap();
    for line in [&["--help"][..], &["block", "--help"], &["help", "review"], &["--version"]] {
        let ran = run_in(dir.path(), line, &[]);
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{line:?}");
        assert!(!ran.stdout.contains('\u{1b}'), "{ran:?}");
    }
    let version = run_in(dir.path(), &["--version"], &[]).stdout;
    assert_eq!(version, concat!("ipctl ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(run_in(dir.path(), &["completions", "bash"], &[]).stdout.contains("_ipctl"));
    assert!(run_in(dir.path(), &["man", "review"], &[]).stdout.contains(".TH ipctl-review 1"));
    let pages = run_in(dir.path(), &["man", "--dir", "pages"], &[]);
    assert_eq!(pages.code, 0, "{pages:?}");
    assert!(dir.path().join("pages/ipctl-block.1").is_file());
}

#[test]
fn a_store_that_is_not_there_exits_3_with_its_absolute_path_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    // The system may know the directory by another name.
    let absolute = dir.path().canonicalize().unwrap().join("data/ipwarden.db");
    for line in [
        &["list-blocked"][..],
        &["block", "203.0.113.9"],
        &["migrate"],
        &["import", "access-log", "/dev/null"],
        &["list-allowed", "--database-url", "sqlite://data/ipwarden.db"],
    ] {
        let ran = run_in(dir.path(), line, &[]);
        assert_eq!((ran.code, &*ran.stdout), (3, ""), "{line:?}: {ran:?}");
        assert!(ran.stderr.contains(absolute.to_str().unwrap()), "{ran:?}");
        assert!(ran.stderr.contains("--database-url"), "it says what to do: {ran:?}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    let away = "postgres://me:sesame@127.0.0.1:1/none";
    let ran = run_in(dir.path(), &["list-blocked"], &[("DATABASE_URL", away)]);
    assert_eq!((ran.code, &*ran.stdout), (3, ""), "{ran:?}");
    assert!(!ran.stderr.contains("sesame"), "{ran:?}");
    assert!(ran.stderr.contains("user and password"), "it says what to look at: {ran:?}");
}

#[tokio::test]
async fn a_block_without_its_postgres_exits_3_names_it_and_changes_nothing() {
    let server = ipwarden_testbed::postgres_private().unwrap();
    let database = server.database().unwrap();
    let db = Db::postgres(database.url(), 2).unwrap();
    db.migrate().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    type Act = fn(&PostgresServer) -> anyhow::Result<()>;
    let faults: [(&str, Act, Act); 2] = [
        ("frozen", PostgresServer::freeze, PostgresServer::thaw),
        ("down", PostgresServer::stop, PostgresServer::start),
    ];
    for (how, break_it, heal_it) in faults {
        break_it(&server).unwrap();
        for line in [&["block", "203.0.113.9"][..], &["migrate"]] {
            let ran = run_in(dir.path(), line, &[("DATABASE_URL", database.url())]);
            assert_eq!((ran.code, &*ran.stdout), (3, ""), "{how}: {ran:?}");
            assert!(ran.stderr.contains(database.url()), "{how}: it names the store: {ran:?}");
            assert!(ran.stderr.contains("hint: is the database running"), "{how}: {ran:?}");
        }
        heal_it(&server).unwrap();
    }
    let rows = db.run(|conn| blocked_ips::page(conn, None, 10, now()).boxed()).await.unwrap();
    assert_eq!(rows.len(), 0);
    let audited = db.run(|conn| audit_log::page(conn, None, 10).boxed()).await.unwrap();
    assert_eq!(audited.len(), 0);
}

#[test]
fn bad_configuration_exits_64_and_names_what_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.toml"), "[scan]\nmax_request = 5\n").unwrap();
    for (line, says) in [
        (&["list-blocked", "--config", "bad.toml"][..], "scan.max_request"),
        (&["config", "check", "--config", "bad.toml"], "scan.max_request"),
        (&["list-blocked", "--config", "none.toml"], "none.toml"),
        (&["list-blocked", "--database-url", "mysql://x/y"], "unknown scheme `mysql`"),
        (&["config", "show", "--database-url", "ipwarden.db"], "is not a URL"),
    ] {
        let ran = run_in(dir.path(), line, &[]);
        assert_eq!((ran.code, &*ran.stdout), (64, ""), "{line:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{line:?}: {ran:?}");
    }
    let ran = run_in(dir.path(), &["list-blocked"], &[("IPWARDEN_SCAN__MAX_REQUESTS", "many")]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.stderr.contains("IPWARDEN_SCAN__MAX_REQUESTS"), "{ran:?}");
}

#[test]
fn the_configuration_in_force_is_shown_without_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ipwarden.toml"), "[scan]\nmax_requests = 7\n").unwrap();
    let environment =
        [("DATABASE_URL", "postgres://me:sesame@db/x"), ("IPWARDEN_SCAN__WINDOW", "2h")];
    let shown = run_in(dir.path(), &["config", "show"], &environment);
    assert_eq!(shown.code, 0, "{shown:?}");
    let line = |key: &str| {
        let found = shown.stdout.lines().find(|line| line.starts_with(key)).unwrap();
        found.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("scan.max_requests"), "scan.max_requests 7 ipwarden.toml");
    assert_eq!(line("scan.window"), "scan.window 2h IPWARDEN_SCAN__WINDOW");
    assert_eq!(line("data_dir"), "data_dir data default");
    assert!(!shown.stdout.contains("sesame"), "{shown:?}");
    let json = run_in(dir.path(), &["config", "show", "-o", "json"], &environment).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["scan"]["max_requests"], 7);
    let check = run_in(dir.path(), &["config", "check"], &environment);
    assert_eq!((check.code, &*check.stdout), (0, "ipwarden.toml is good\n"));
}

#[tokio::test]
async fn migrate_makes_a_schema_once_and_others_ask_for_it() {
    for store in stores().await {
        let before = store.run(&["list-blocked"]);
        assert_eq!(before.code, 1, "{before:?}");
        assert!(before.stderr.contains("run `ipctl migrate`"), "{before:?}");
        assert!(store.done(&["migrate"]).contains("applied"));
        assert!(store.done(&["migrate"]).contains("up to date"));
        assert_eq!(store.json(&["list-blocked"]), serde_json::json!([]));
    }
}

#[tokio::test]
async fn every_listing_is_json_csv_and_lines_with_the_names_of_the_columns() {
    every_store(async |store: Store| {
        store.done(&["block", "203.0.113.9", "--for", "4h", "--reason", "a, \"b\""]);
        store.done(&["allow", "198.51.100.0/24"]);
        store.done(&["key", "create", "shop"]);
        let entry = ["id", "network", "reason", "origin", "created_by", "created_at", "expires_at"];
        let key = ["id", "name", "role", "created_by", "created_at", "revoked_at"];
        for (line, fields, rows) in [
            (&["list-blocked"][..], &entry[..], 1),
            (&["list-allowed"], &entry, 1),
            (&["key", "list"], &key, 1),
            (&["list-suspicious"], &["id", "address", "rule", "status"], 0),
            (&["logs"], &["at", "address", "method", "path", "status", "verdict"], 0),
            (&["scan"], &["window_start", "window_end"], 1),
            (&["scan", "--from", "2h"], &["window_start", "window_end"], 3),
            (&["geo", "info"], &["path"], 0),
            (&["geo", "lookup", "192.0.2.1"], &["address", "country", "city", "asn"], 1),
        ] {
            let json = store.json(line);
            let json = json.as_array().unwrap();
            assert!(json.len() == rows || line[0] == "scan", "{line:?}: {json:?}");
            for row in json {
                let row = row.as_object().unwrap();
                assert!(fields.iter().all(|field| row.contains_key(*field)), "{line:?}: {row:?}");
            }
            let lines = store.done(&[line, &["-o", "jsonl"]].concat());
            assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
            let csv = store.done(&[line, &["-o", "csv"]].concat());
            let header = csv.lines().next().unwrap();
            assert!(
                header.starts_with(&fields[..2.min(fields.len())].join(",")),
                "{line:?}: {csv}"
            );
            let bare = store.done(&[line, &["-o", "csv", "--no-headers"]].concat());
            assert!(!bare.contains(header), "{line:?}: {bare}");
        }
        let csv = store.done(&["list-blocked", "-o", "csv", "--no-headers"]);
        assert!(csv.contains(",\"a, \"\"b\"\"\",manual,cli:"), "{csv}");
        let table = store.done(&["list-blocked", "--no-headers"]);
        assert!(table.starts_with("203.0.113.9  in 3h59m  manual  cli:"), "{table}");
        assert!(!table.contains('\u{1b}'), "{table}");
    })
    .await;
}

#[tokio::test]
async fn who_has_read_enough_ends_the_program_quietly() {
    every_store(async |store: Store| {
        let many: String = (0..3_000).map(|i| format!("10.{}.{}.7\n", i / 250, i % 250)).collect();
        let blocked = finish(store.command(&["block", "-", "-o", "jsonl"]), many.as_bytes());
        assert_eq!(
            (blocked.code, blocked.stdout.lines().count()),
            (0, 3_000),
            "{}",
            blocked.stderr
        );
        for format in ["table", "json", "jsonl", "csv"] {
            let mut command = store.command(&["list-blocked", "-o", format]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            drop(child.stdout.take());
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{format}: {output:?}");
            assert_eq!(output.stderr, b"", "{format}");
        }
        assert_eq!(store.json(&["list-blocked"]).as_array().unwrap().len(), 3_000);
        assert_eq!(store.json(&["banned", "-n", "1200"]).as_array().unwrap().len(), 1_200);
    })
    .await;
}

#[tokio::test]
async fn people_read_times_with_their_zone_and_programs_in_utc() {
    every_store(async |store| {
        let line =
            b"203.0.113.9 - - [22/Nov/2026:23:30:00 +0000] \"GET /a HTTP/1.1\" 200 1 \"-\" \"x\"\n";
        let ran = finish(store.command(&["import", "access-log", "-"]), line);
        assert_eq!(ran.code, 0, "{ran:?}");
        let zoned = |zone: &str, arguments: &[&str]| {
            let mut command = store.command(arguments);
            command.env("TZ", zone);
            finish(command, b"").stdout
        };
        // POSIX counts to the west.
        for (zone, shown) in [
            ("UTC0", "2026-11-22 23:30:00Z "),
            ("IST-5:30", "2026-11-23 05:00:00+05:30 "),
            ("EST5", "2026-11-22 18:30:00-05:00 "),
        ] {
            let table = zoned(zone, &["logs"]);
            assert!(table.contains(shown), "{zone}: {table}");
            let since = zoned(zone, &["logs", "--since", shown.trim(), "-o", "json"]);
            assert!(since.contains("\"at\":\"2026-11-22T23:30:00Z\""), "{zone}: {since}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_scan_can_be_rehearsed() {
    every_store(async |store| {
        let line = b"203.0.113.9 - - [22/Nov/2020:10:00:00 +0000] \"GET /admin HTTP/1.1\" 404 1 \"-\" \"x\"\n";
        let ran = finish(store.command(&["import", "access-log", "-"]), line);
        assert_eq!(ran.code, 0, "{ran:?}");
        store.done(&["review", "1", "--dismiss"]);
        let hour = ["scan", "--from", "2020-11-22T10:00:00Z", "--to", "2020-11-22T11:00:00Z"];
        let before = store.json(&["list-suspicious", "--status", "all"]);
        let rehearsed = store.json(&[&hour[..], &["--dry-run"]].concat());
        assert_eq!((&rehearsed[0]["findings"], &rehearsed[0]["opened"]), (&1.into(), &0.into()));
        assert_eq!(store.json(&["list-suspicious", "--status", "all"]), before);
        let ran = store.json(&hour);
        assert_eq!(ran, rehearsed, "and then it is so");
    })
    .await;
}
