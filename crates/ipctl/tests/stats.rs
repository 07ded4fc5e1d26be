//! Numbers as an operator asks for them.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store, now};
use ipwarden_core::db::request_logs::{self, NewLogged};
use serde_json::json;

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-03-01T{text}Z").parse().unwrap()
}

async fn log(
    store: &Store,
    from: DateTime<Utc>,
    count: i32,
    (address, path): (&str, &str),
    (verdict, status): (&'static str, i16),
) {
    let row = |n| NewLogged {
        at: from + TimeDelta::seconds(n),
        address: address.parse().unwrap(),
        method: "GET".to_owned(),
        path: path.to_owned(),
        status,
        verdict,
        sensitive: false,
        identity: None,
        country: address.contains('.').then(|| "NL".to_owned()),
        city: None,
        asn: address.contains('.').then_some(64_500),
        user_agent: None,
        reference: None,
        node: "a".into(),
        recorded_at: from + TimeDelta::seconds(n),
    };
    let rows = (0..i64::from(count)).map(row).collect();
    request_logs::write(&store.db, rows, ()).await.unwrap();
}

const SPAN: [&str; 5] = ["stats", "--since", "2026-03-01T08:10", "--until", "2026-03-01T11:00"];

#[tokio::test]
async fn numbers_are_shown_over_time_and_for_the_busiest() {
    every_store(async |store: Store| {
        log(&store, at("08:05:00"), 12, ("192.0.2.1", "/"), ("allowed", 200)).await;
        log(&store, at("08:30:00"), 5, ("192.0.2.7", "/login"), ("blocked", 403)).await;
        log(&store, at("10:59:40"), 20, ("2001:db8::7", "/a%1B"), ("throttled", 429)).await;
        log(&store, at("11:00:00"), 9, ("192.0.2.9", "/later"), ("allowed", 200)).await;

        let early = store.run(&SPAN);
        assert!(early.stderr.contains("warning: 2 hours are not counted"), "{early:?}");
        store.done(&["scan"]);
        let people = store.run(&SPAN);
        let span = "from 2026-03-01 08:00Z to 2026-03-01 11:00Z\n";
        assert_eq!((people.code, people.stderr.as_str()), (0, span));
        let mut there = store.command(&SPAN[..3]);
        there.args(["--until", "2026-03-01T17:00"]).env("TZ", "NPT-5:45");
        let there = common::finish(there, b"");
        assert!(there.stdout.contains("  2026-03-01 13:45+05:45\n"), "{there:?}");
        let days = store.done(&[&SPAN[..], &["--by", "day", "--top", "1", "-o", "csv"]].concat());
        insta::allow_duplicates! {
            insta::assert_snapshot!("stats", people.stdout);
            insta::assert_snapshot!("stats-csv", days);
            insta::assert_json_snapshot!("stats-json", store.json(&SPAN));
        }
        let lines = store.done(&[&SPAN[..], &["--top", "0", "-o", "jsonl"]].concat());
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1 + 3 + 3, "all, hours, statuses: {lines:?}");
        assert_eq!((&lines[0]["of"], &lines[0]["requests"]), (&json!("all"), &json!(37)));

        // What goes on is in the numbers at once.
        let before = store.json(&["stats"])["requests"].as_i64().unwrap();
        log(&store, now(), 3, ("192.0.2.1", "/"), ("allowed", 200)).await;
        assert_eq!(store.json(&["stats"])["requests"], before + 3);
    })
    .await;
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_names_the_argument() {
    every_store(async |store: Store| {
        for (arguments, argument) in [
            (vec!["--since", "1h", "--until", "2h"], "--since: "),
            (vec!["--since", "9000d", "--by", "hour"], "--by: "),
            (vec!["--since", "yesterday"], "--since <TIME>"),
            (vec!["--until", "2026-13-01"], "--until <TIME>"),
            (vec!["--by", "week"], "--by <BY>"),
            (vec!["--top", "1001"], "--top <NUMBER>"),
        ] {
            let ran = store.run(&[&["stats"], &arguments[..]].concat());
            assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
            assert!(ran.stderr.contains(argument), "{ran:?}");
        }
    })
    .await;
}
