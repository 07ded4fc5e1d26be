//! `ipctl forget` and `ipctl export data`, as an operator meets them.

mod common;

use common::{Store, every_store, finish};
use serde_json::{Value, json};

const LOG: &str = "\
203.0.113.9 - - [22/Nov/2026:10:00:00 +0000] \"GET /a HTTP/1.1\" 200 1 \"-\" \"curl\"
203.0.113.9 - - [22/Nov/2026:10:00:01 +0000] \"GET /admin HTTP/1.1\" 404 1 \"-\" \"curl\"
203.0.113.8 - - [22/Nov/2026:10:00:02 +0000] \"GET /b HTTP/1.1\" 200 1 \"-\" \"curl\"
";

fn filled(store: &Store) {
    let ran = finish(store.command(&["import", "access-log", "-"]), LOG.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    store.done(&["block", "203.0.113.9", "--reason", "scraping"]);
}

#[tokio::test]
async fn data_are_exported_whole_as_one_document_or_line_by_line() {
    every_store(async |store| {
        filled(&store);
        let document: Value =
            serde_json::from_str(&store.done(&["export", "data", "--ip", "203.0.113.9"])).unwrap();
        assert_eq!(document["network"], "203.0.113.9");
        let rows = |table: &str| document[table].as_array().unwrap().len();
        assert_eq!((rows("request_logs"), rows("suspicious_ips"), rows("blocked_ips")), (2, 1, 1));
        assert_eq!((rows("allowed_ips"), rows("list_changes"), rows("bouncers")), (0, 1, 0));
        assert_eq!((rows("request_tops"), rows("audit_log")), (1, 1));

        let lines = store.done(&["export", "data", "--ip", "203.0.113.9", "-o", "jsonl"]);
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 7);
        assert_eq!(lines[0]["table"], "request_logs");
        assert_eq!(lines[0]["row"], document["request_logs"][0]);

        let nothing = store.json(&["export", "data", "--ip", "198.51.100.1"]);
        assert_eq!(nothing["request_logs"], json!([]));
        let csv = store.run(&["export", "data", "--ip", "203.0.113.9", "-o", "csv"]);
        assert_eq!(csv.code, 2, "{csv:?}");
        assert!(csv.stderr.contains("jsonl"), "{csv:?}");
    })
    .await;
}

#[tokio::test]
async fn an_address_is_forgotten_only_when_it_is_meant() {
    every_store(async |store| {
        filled(&store);
        let export = || store.json(&["export", "data", "--ip", "203.0.113.9"]);
        let before = export();

        let listed = store.run(&["forget", "203.0.113.9", "--yes"]);
        assert_eq!(listed.code, 2, "{listed:?}");
        for word in ["--lists keep", "--lists remove", "203.0.113.9 is on the blocklist"] {
            assert!(listed.stderr.contains(word), "{word}: {listed:?}");
        }
        for (arguments, word) in [
            (&["forget"][..], "required"),
            (&["forget", "203.0.112.0/23"], "no wider than /24 (IPv4) or /64 (IPv6)"),
            (&["forget", "nobody"], "invalid value"),
            (&["forget", "203.0.113.9", "--status"], "cannot be used with"),
            (&["forget", "--status", "--yes"], "cannot be used with"),
        ] {
            let ran = store.run(arguments);
            assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
            assert!(ran.stderr.contains(word), "{arguments:?}: {ran:?}");
        }
        let rehearsed = store.json(&["forget", "203.0.113.9", "--lists", "remove", "--dry-run"]);
        assert_eq!(
            rehearsed,
            json!({
                "network": "203.0.113.9", "request_logs": 2, "suspicious_ips": 1, "evidence": 0,
                "blocked_ips": 1, "allowed_ips": 0, "bouncers": 0, "audit_log": 1,
            })
        );
        let exported = |document: &Value| document["request_logs"].clone();
        assert_eq!(exported(&export()), exported(&before), "nothing was forgotten");
        assert_eq!(store.json(&["forget", "--status"]), json!([]));

        let told = store.done(&["forget", "203.0.113.9", "--lists", "keep"]);
        assert!(told.starts_with("forgot 203.0.113.9: receipt 1\nno node is running"), "{told}");
        let after = export();
        assert_eq!(after["request_logs"], json!([]));
        assert_eq!(after["blocked_ips"], before["blocked_ips"], "it stays blocked");
        let other = store.json(&["export", "data", "--ip", "203.0.113.8"]);
        assert_eq!(other["request_logs"].as_array().unwrap().len(), 1);

        let receipts = store.json(&["forget", "--status"]);
        assert_eq!((&receipts[0]["id"], &receipts[0]["network"]), (&json!(1), &Value::Null));
        let table = store.done(&["forget", "--status", "1"]);
        assert!(table.contains("forgotten") && table.contains("done"), "{table}");
        let missing = store.run(&["forget", "--status", "7"]);
        assert_eq!(missing.code, 1);
        assert!(missing.stderr.contains("`ipctl forget --status` shows all"), "{missing:?}");
    })
    .await;
}
