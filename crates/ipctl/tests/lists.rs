//! Whole lists in and out, from a terminal, on both databases.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;

use common::{Store, every_store, finish};
use serde_json::json;

fn write(store: &Store, name: &str, text: &str) {
    std::fs::write(store.dir.path().join(name), text).unwrap();
}

/// Answers one request after the other with these bytes, on a free port of the loopback.
fn serve(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/list.txt?key=geheim", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            // Who has read enough hangs up.
            let _ = stream.write_all(&answer);
        }
    });
    url
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into()
}

#[tokio::test]
async fn what_is_exported_and_imported_again_is_the_same() {
    every_store(async |store: Store| {
        write(
            &store,
            "drop.txt",
            "# published\n198.51.100.0/24 ; SBL1\n2001:db8:7::/48\n203.0.113.9\n",
        );
        let first = store.done(&["import", "blocklist", "drop.txt", "--list", "drop"]);
        assert_eq!(first, "list:drop: 3 networks are blocked: 3 new, 0 as before\n");
        store.done(&["block", "192.0.2.7", "--for", "4h", "--reason", "a \"quoted\", reason"]);
        assert_eq!(
            store.done(&["export", "blocklist"]),
            "192.0.2.7\n198.51.100.0/24\n203.0.113.9\n2001:db8:7::/48\n"
        );
        assert_eq!(
            store.done(&["export", "blocklist", "--list", "drop"]),
            "198.51.100.0/24\n203.0.113.9\n2001:db8:7::/48\n"
        );
        let rows = |store: &Store| {
            let mut rows = store.json(&["export", "blocklist"]);
            for row in rows.as_array_mut().unwrap() {
                let row = row.as_object_mut().unwrap();
                row.retain(|name, _| ["network", "reason", "expires_at"].contains(&&**name));
            }
            let mut rows = rows.as_array().unwrap().clone();
            rows.sort_by_key(ToString::to_string);
            rows
        };
        let before = rows(&store);
        assert_eq!(before.len(), 4);
        for format in ["csv", "json"] {
            let text = store.done(&["export", "blocklist", "--format", format]);
            write(&store, "all", &text);
            store.done(&[
                "unblock",
                "192.0.2.7",
                "198.51.100.0/24",
                "2001:db8:7::/48",
                "203.0.113.9",
            ]);
            store.done(&["import", "blocklist", "all"]);
            assert_eq!(rows(&store), before, "{format}");
        }
        let jsonl = store.done(&["export", "blocklist", "-o", "jsonl"]);
        assert_eq!(jsonl.lines().count(), 4);
        let plain = finish(
            store.command(&["import", "blocklist", "-", "--list", "again", "-o", "json"]),
            store.done(&["export", "blocklist"]).as_bytes(),
        );
        let plain: serde_json::Value = serde_json::from_str(&plain.stdout).unwrap();
        assert_eq!((&plain["added"], &plain["origin"]), (&json!(4), &json!("list:again")));
        assert_eq!(plain["state"], "blocked");

        let allowed = "192.0.2.128/25\n";
        let done = finish(
            store.command(&["import", "allowlist", "-", "--list", "office"]),
            allowed.as_bytes(),
        );
        assert_eq!(done.stdout, "list:office: 1 network is allowed: 1 new, 0 as before\n");
        assert_eq!(store.done(&["export", "allowlist"]), allowed);
    })
    .await;
}

#[tokio::test]
async fn a_list_is_taken_whole_or_not_at_all_and_says_which_line_is_wrong() {
    every_store(async |store: Store| {
        write(&store, "bad.txt", "203.0.113.1\nexample.com\n203.0.113.2\n");
        let ran = store.run(&["import", "blocklist", "bad.txt"]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{ran:?}");
        assert!(ran.stderr.contains("line 2: `example.com` is no address"), "{ran:?}");
        assert!(ran.stderr.contains("nothing was changed"), "{ran:?}");
        assert_eq!(store.done(&["export", "blocklist"]), "");

        write(&store, "bogons.txt", "203.0.113.1\n127.0.0.0/8\n");
        let ran = store.run(&["import", "blocklist", "bogons.txt"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.stderr.contains("127.0.0.0/8") && ran.stderr.contains("--skip-refused"),
            "{ran:?}"
        );
        let ran = store.run(&["import", "blocklist", "bogons.txt", "--skip-refused", "--dry-run"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains("dry run: nothing is changed"), "{ran:?}");
        assert!(ran.stderr.contains("left out: 127.0.0.0/8"), "{ran:?}");
        assert_eq!(store.done(&["export", "blocklist"]), "");
        store.done(&["import", "blocklist", "bogons.txt", "--skip-refused"]);
        assert_eq!(store.done(&["export", "blocklist"]), "203.0.113.1\n");

        // An error page, or a list that was cut off, must not end everything.
        let ran = finish(store.command(&["import", "blocklist", "-", "--list", "x"]), b"# none\n");
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("--allow-empty"), "{ran:?}");
        let ran = store.run(&["import", "blocklist", "none.txt"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("cannot read none.txt"), "{ran:?}");
    })
    .await;
}

#[tokio::test]
async fn a_list_is_read_from_the_web_without_its_secrets_and_within_bounds() {
    every_store(async |store: Store| {
        let moved = "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let too_long = "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n203.0.113.1\n";
        let url = serve(vec![
            moved.into(),
            ok("203.0.113.1\n"),
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            ok("<html>"),
            too_long.into(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n203.0.113.".to_vec(),
        ]);
        let line = ["import", "blocklist", &url, "--list", "web"];
        assert!(store.done(&line).contains("1 network is blocked"));
        for says in ["404 Not Found", "line 1: ", "longer than", "cannot download http://127.0.0.1"] {
            let ran = store.run(&line);
            assert_ne!(ran.code, 0, "{says}: {ran:?}");
            assert!(ran.stderr.contains(says), "{says}: {ran:?}");
            assert!(!ran.stderr.contains("geheim"), "{ran:?}");
        }
        assert_eq!(store.done(&["export", "blocklist"]), "203.0.113.1\n", "the last good one");
        let audit = store.audit().await;
        assert!(!audit[0].details.to_string().contains("geheim"), "{audit:?}");
        let away = store.run(&["import", "blocklist", "https://127.0.0.1:1/x"]);
        assert_eq!(away.code, 1, "{away:?}");
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_of_any_change_changes_nothing() {
    every_store(async |store: Store| {
        store.done(&["block", "203.0.113.1"]);
        store.done(&["allow", "203.0.113.2"]);
        let before = (store.json(&["list-blocked"]), store.json(&["list-allowed"]));
        let audited = store.audit().await.len();
        for line in [
            &["block", "203.0.113.3"][..],
            &["unblock", "203.0.113.1"],
            &["allow", "203.0.113.4"],
            &["disallow", "203.0.113.2"],
            &["key", "create", "shop"],
        ] {
            let real = [line, &["--dry-run"]].concat();
            let ran = store.run(&real);
            assert_eq!(ran.code, 0, "{line:?}: {ran:?}");
            assert!(ran.stderr.starts_with("dry run: nothing is changed"), "{line:?}: {ran:?}");
        }
        assert!(store.done(&["migrate", "--dry-run"]).contains("is up to date"));
        let told = store.done(&["unblock", "203.0.113.1", "--dry-run"]);
        assert_eq!(told, "203.0.113.1 is no longer blocked\n");
        assert_eq!((store.json(&["list-blocked"]), store.json(&["list-allowed"])), before);
        assert_eq!(store.json(&["key", "list"]), json!([]));
        assert_eq!(store.audit().await.len(), audited);
    })
    .await;
}
