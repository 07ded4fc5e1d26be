//! The loop as an operator walks it: import, scan, look, review, check.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Store, every_store, finish, now};
use futures_util::StreamExt;
use ipwarden_core::db::request_logs::{self, NewLogged};
use ipwarden_core::keys::{Keys, Role};
use ipwarden_testbed::geo::write_city;
use serde_json::json;

/// One client that asks too often, one that tries doors, and lines that are none.
fn access_log() -> String {
    let mut log = String::new();
    for i in 0..120 {
        log += &format!(
            "203.0.113.9 - - [17/May/2015:10:{:02}:{:02} +0000] \"GET /page/{i} HTTP/1.1\" 200 5 \"-\" \"bot\"\n",
            i / 60,
            i % 60
        );
    }
    log += "what is this\n";
    log += "2001:db8::7 - - [17/May/2015:11:00:00 +0000] \"GET /admin/x HTTP/1.1\" 404 5 \"-\" \"curl\"\n";
    log += "198.51.100.4 - - [17/May/2015:11:30:00 +0000] \"GET /fine HTTP/1.1\" 200 5\n";
    log
}

fn place_of_the_bot(store: &Store) {
    let dir = store.dir.path().join("geoip");
    std::fs::create_dir(&dir).unwrap();
    write_city(&dir.join("city.mmdb"), &[("203.0.113.0/24", "SE", "Uppsala")]).unwrap();
}

#[tokio::test]
async fn an_access_log_goes_in_once_and_what_it_holds_is_found_reviewed_and_blocked() {
    every_store(async |store: Store| {
        place_of_the_bot(&store);
        std::fs::write(store.dir.path().join("access.log"), access_log()).unwrap();
        let import = ["import", "access-log", "access.log"];
        let ran = store.run(&import);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(
            ran.stdout,
            "access.log: added 122 records, from 2015-05-17 10:00:00Z to 2015-05-17 11:30:00Z; \
             1 line could not be read\n"
        );
        assert!(ran.stderr.contains("warning: line 121 "), "{ran:?}");
        assert!(ran.stderr.contains("2 of them new"), "{ran:?}");
        let again = store.done(&import);
        assert_eq!(
            again,
            "access.log: nothing was added, its 123 lines had been imported before\n"
        );
        let grown = access_log()
            + "198.51.100.4 - - [17/May/2015:11:31:00 +0000] \"GET / HTTP/1.1\" 200 5\n";
        let grown =
            finish(store.command(&["import", "access-log", "-", "-o", "json"]), grown.as_bytes());
        let grown: serde_json::Value = serde_json::from_str(&grown.stdout).unwrap();
        assert_eq!((&grown["records"], &grown["known_lines"]), (&json!(1), &json!(123)));

        insta::allow_duplicates! {
            insta::assert_snapshot!("list-suspicious", store.done(&["list-suspicious"]));
            insta::assert_snapshot!("logs", store.done(&["logs", "-n", "4"]));
        }
        let found = store.json(&["list-suspicious"]);
        let (door, bot) = (&found[0], &found[1]);
        assert_eq!((&bot["rule"], &bot["hits"]), (&json!("volume"), &json!(120)));
        assert_eq!((&bot["city"], &bot["country"]), (&json!("Uppsala"), &json!("SE")));
        assert_eq!(
            (&door["rule"], &door["address"]),
            (&json!("sensitive_path"), &json!("2001:db8::7"))
        );

        let (bot, door) = (bot["id"].to_string(), door["id"].to_string());
        let blocked = store.done(&["review", &bot, "--block", "--for", "4h"]);
        assert!(blocked.contains("203.0.113.9 is blocked until 20"), "{blocked}");
        assert!(store.done(&["review", &bot, "--block"]).contains("was already blocked"));
        assert!(store.done(&["review", &door, "--dismiss"]).contains("dismissed for 30 days"));
        let otherwise = store.run(&["review", &door, "--block"]);
        assert_eq!(otherwise.code, 1, "{otherwise:?}");
        assert!(otherwise.stderr.contains("ipctl block 2001:db8::7"), "{otherwise:?}");
        assert_eq!(store.run(&["review", "999", "--dismiss"]).code, 1);
        assert_eq!(store.json(&["list-suspicious"]), json!([]));
        let all = store.json(&["list-suspicious", "--status", "all"]);
        assert_eq!(
            (&all[0]["status"], &all[1]["status"]),
            (&json!("dismissed"), &json!("blocked"))
        );

        let check = store.done(&["check", "203.0.113.9"]);
        assert!(check.starts_with("203.0.113.9: blocked, "), "{check}");
        assert!(
            check.contains("scan by cli:")
                && check.contains("120 requests within one window of the scan"),
            "{check}"
        );
        assert!(check.contains("finding ") && check.contains("is blocked"), "{check}");

        // Judged once, found once, whoever asks again.
        let scanned =
            store.run(&["scan", "--from", "2015-05-17T10:00", "--to", "2015-05-17T12:00"]);
        assert!(
            scanned.stderr.contains("scanned 2 hours: 2 findings, 0 of them new"),
            "{scanned:?}"
        );
        let backwards = store.run(&["scan", "--from", "2015-05-17T10:00", "--to", "2015-05-17"]);
        assert_eq!(backwards.code, 2, "{backwards:?}");
    })
    .await;
}

#[tokio::test]
async fn the_log_is_filtered_and_characters_mean_themselves() {
    every_store(async |store: Store| {
        std::fs::write(store.dir.path().join("access.log"), access_log()).unwrap();
        store.done(&["import", "access-log", "access.log"]);
        let count = |arguments: &[&str]| {
            let all = [&["logs", "-n", "1000"], arguments].concat();
            store.json(&all).as_array().unwrap().len()
        };
        assert_eq!(count(&[]), 122);
        assert_eq!(count(&["--ip", "203.0.113.9"]), 120);
        assert_eq!(count(&["--ip", "2001:db8::/32"]), 1);
        assert_eq!(count(&["--path", "/page/1"]), 31);
        assert_eq!(count(&["--path", "/%"]), 0);
        assert_eq!(count(&["--path", "'; DROP TABLE request_logs;--"]), 0);
        assert_eq!(count(&["--verdict", "blocked"]), 0);
        assert_eq!(count(&["--since", "2015-05-17T11:00"]), 2);
        assert_eq!(count(&["--until", "2015-05-17T11:00"]), 120);
        assert_eq!(count(&["--since", "1h"]), 0);
        let last = store.json(&["logs", "-n", "1"]);
        assert_eq!(last[0]["path"], "/fine", "the newest");
    })
    .await;
}

#[tokio::test]
async fn following_shows_what_is_recorded_until_it_is_interrupted() {
    every_store(async |store: Store| {
        let mut command = store.command(&["logs", "--follow", "-o", "jsonl"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        for path in ["/one", "/two"] {
            let row = NewLogged {
                at: now(),
                address: "192.0.2.1".parse().unwrap(),
                method: "GET".to_owned(),
                path: path.to_owned(),
                status: 200,
                verdict: "allowed",
                sensitive: false,
                identity: None,
                country: None,
                city: None,
                asn: None,
                user_agent: None,
                reference: None,
                node: "n1".into(),
                recorded_at: now(),
            };
            request_logs::write(&store.db, vec![row], ()).await.unwrap();
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let shown: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(shown["path"], path, "each once, in order");
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    })
    .await;
}

#[tokio::test]
async fn a_key_is_shown_once_and_counts_until_it_is_revoked() {
    every_store(async |store: Store| {
        let created = store.run(&["key", "create", "the shop", "--role", "operator"]);
        assert_eq!(created.code, 0, "{created:?}");
        let key = created.stdout.trim();
        let keys = Keys::load(&store.db).await.unwrap();
        let identity = keys.verify(key).unwrap();
        assert_eq!((&*identity.name, identity.role), ("the shop", Role::Operator));
        for listing in ["table", "json", "csv"] {
            let listed = store.done(&["key", "list", "-o", listing]);
            assert!(listed.contains(&*identity.id) && listed.contains("the shop"), "{listed}");
            assert!(!listed.contains(&key[17..]), "{listed}");
        }
        // Nobody can be asked here, so nobody is.
        let revoked = store.done(&["key", "revoke", &identity.id]);
        assert_eq!(revoked, format!("revoked {} (the shop)\n", identity.id));
        assert!(store.done(&["key", "revoke", &identity.id]).contains("was already revoked"));
        let unknown = store.run(&["key", "revoke", "nobody"]);
        assert_eq!(unknown.code, 1, "{unknown:?}");
        keys.reload(&store.db).await.unwrap();
        assert_eq!(keys.verify(key), None);
    })
    .await;
}

#[test]
fn places_are_looked_up_without_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("city.mmdb");
    write_city(&file, &[("203.0.113.0/24", "SE", "Uppsala")]).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = common::ipctl(dir.path());
        command.env("IPWARDEN_GEO__FILES", &file).args(arguments);
        let ran = finish(command, b"");
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout
    };
    let lookup = run(&["geo", "lookup", "203.0.113.9", "::ffff:203.0.113.9", "192.0.2.1"]);
    insta::assert_snapshot!("geo-lookup", lookup);
    let files = run(&["geo", "info"]);
    assert!(files.contains("city.mmdb") && files.contains("GeoLite2-City"), "{files}");
}

#[tokio::test]
async fn a_change_is_announced_and_made_without_redis_all_the_same() {
    let redis = ipwarden_testbed::redis().unwrap();
    every_store(async |store: Store| {
        let url: ipwarden_engine::redis::RedisUrl = redis.url().parse().unwrap();
        let pubsub = url.subscriber(Duration::from_secs(5)).await.unwrap();
        let (mut sink, mut hints) = pubsub.split();
        sink.subscribe(ipwarden_core::changes::CHANNEL).await.unwrap();
        let mut command = store.command(&["block", "203.0.113.9"]);
        command.env("REDIS_URL", redis.url());
        let ran = tokio::task::spawn_blocking(move || finish(command, b"")).await.unwrap();
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{ran:?}");
        let hint =
            tokio::time::timeout(Duration::from_secs(20), hints.next()).await.unwrap().unwrap();
        assert!(hint.get_payload::<i64>().unwrap() >= 1);

        let mut command = store.command(&["unblock", "203.0.113.9"]);
        command.env("REDIS_URL", "redis://127.0.0.1:1");
        let ran = finish(command, b"");
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains("not announced"), "{ran:?}");
        assert_eq!(store.json(&["list-blocked"]), json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_bouncer_gets_a_key_that_is_shown_once_and_counts_until_it_is_deleted() {
    every_store(async |store: Store| {
        let added = store.run(&["bouncer", "add", "edge proxy"]);
        assert_eq!(added.code, 0, "{added:?}");
        assert!(added.stderr.contains("http://127.0.0.1:8081/"), "{added:?}");
        let key = added.stdout.trim();
        let keys = Keys::load(&store.db).await.unwrap();
        assert_eq!(keys.verify(key).unwrap().role, Role::Bouncer);
        let again = store.run(&["bouncer", "add", "edge proxy"]);
        assert_eq!((again.code, &*again.stdout), (1, ""), "{again:?}");
        assert!(again.stderr.contains("edge proxy already"), "{again:?}");

        let listed = store.json(&["bouncer", "list"]);
        let [one] = listed.as_array().unwrap().as_slice() else { panic!("{listed}") };
        assert_eq!((&one["name"], &one["last_pull"]), (&json!("edge proxy"), &json!(null)));
        assert!(!listed.to_string().contains(&key[17..]), "{listed}");
        assert!(store.done(&["bouncer", "list"]).contains("never"));

        assert!(store.done(&["bouncer", "delete", "edge proxy"]).contains("deleted edge proxy"));
        let unknown = store.run(&["bouncer", "delete", "edge proxy"]);
        assert_eq!(unknown.code, 1, "{unknown:?}");
        assert!(unknown.stderr.contains("`ipctl bouncer list`"), "{unknown:?}");
        keys.reload(&store.db).await.unwrap();
        assert_eq!(keys.verify(key), None);
        assert_eq!(store.json(&["bouncer", "list"]), json!([]));
    })
    .await;
}
