//! One row for each request, with what the log promises to keep, and without what it promises not to.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use ipwarden_core::keys::Role;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{Bed, Launch, PATIENCE, eventually, now};

#[tokio::test]
async fn every_answer_is_one_row_whatever_it_was() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let (replica, began) = (bed.first(), now());
        let block = json!({ "target": "203.0.113.66" });
        assert_eq!(
            bed.api(Method::POST, "/api/v1/blocks", Some(block)).await.0,
            StatusCode::CREATED
        );
        let mut sent = 0;
        eventually(PATIENCE, "the block counts", async || {
            sent += 1;
            let answer = replica.get("203.0.113.66", "/refused").await;
            (answer.status() == StatusCode::FORBIDDEN).then_some(())
        })
        .await;
        let polls = sent;
        for (host, path, wanted) in [
            (1, "/", 200),
            (1, "/nowhere", 404),
            (1, "/a", 404),
            (1, "/b", 404),
            (1, "/c", 404),
            (1, "/d", 429),
            (66, "/e", 403),
        ] {
            let answer = replica.get(&format!("203.0.113.{host}"), path).await;
            assert_eq!(answer.status().as_u16(), wanted, "{path}");
            sent += 1;
        }
        let post = replica.request(Method::POST, "/").header("x-forwarded-for", "203.0.113.2");
        assert_eq!(post.body("x").send().await.unwrap().status().as_u16(), 405);
        sent += 1;

        bed.logs(sent).await;
        let records = bed.records().await;
        for record in &records {
            assert!(began <= record.at && record.at <= record.recorded_at, "{record:?}");
            assert_eq!(record.reference.as_ref().unwrap().len(), 12, "{record:?}");
        }
        let mut rows: Vec<_> = records
            .iter()
            .take(sent - polls)
            .map(|row| {
                format!(
                    "{} {} {} {} {}",
                    row.address, row.method, row.path, row.status, row.verdict
                )
            })
            .collect();
        rows.reverse();
        assert_eq!(
            rows,
            [
                "203.0.113.1 GET / 200 allowed",
                "203.0.113.1 GET /nowhere 404 allowed",
                "203.0.113.1 GET /a 404 allowed",
                "203.0.113.1 GET /b 404 allowed",
                "203.0.113.1 GET /c 404 allowed",
                "203.0.113.1 GET /d 429 throttled",
                "203.0.113.66 GET /e 403 blocked",
                "203.0.113.2 POST / 405 allowed",
            ],
            "{}",
            bed.size
        );
    }
}

#[tokio::test]
async fn what_a_path_escapes_stays_escaped() {
    let path = "/%22%20%1B%5b31m%0d%0afake";
    for format in ["text", "json"] {
        let settings = |launch: Launch| {
            launch.with("IPWARDEN_LOG__LEVEL", "debug").with("IPWARDEN_LOG__FORMAT", format)
        };
        for bed in Bed::each(settings).await {
            let replica = bed.first();
            let request = replica.request(Method::GET, path).header("user-agent", "a\tb");
            request.send().await.unwrap();
            bed.logs(1).await;
            let record = bed.records().await.remove(0);
            assert_eq!(record.path, path);
            assert!(!record.user_agent.unwrap().contains('\t'));
            let (_, page) = bed.api(Method::GET, "/api/v1/request-logs", None).await;
            assert_eq!(page["items"][0]["path"], path);
            let said = replica.said();
            assert!(!said.contains('\u{1b}'), "{said}");
            let own = said.lines().skip_while(|line| !line.contains("  try ")).skip(1);
            assert!(own.clone().all(|line| !line.starts_with("fake")), "{said}");
            if format == "json" {
                let parses = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
                assert!(own.clone().all(parses), "{said}");
            }
        }
    }
}

/// What is asked for is never part of a statement, and matches as it stands.
#[tokio::test]
async fn quotes_and_wildcards_in_a_path_are_nothing_but_text() {
    let paths = ["/';DROP%20TABLE%20request_logs;--", "/100%25_\\x", "/100%25ax", "/a_b", "/aXb"];
    for bed in Bed::each(Launch::behind_proxies).await {
        for path in paths {
            let address = bed.first().public_address();
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        }
        bed.logs(paths.len()).await;
        let found = async |prefix: &str| {
            let query = format!("/api/v1/request-logs?path={}", percent(prefix));
            let (status, page) = bed.api(Method::GET, &query, None).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            let items = page["items"].as_array().unwrap().clone();
            let mut paths: Vec<_> =
                items.iter().map(|item| item["path"].as_str().unwrap().to_owned()).collect();
            paths.sort();
            paths
        };
        assert_eq!(found("/a_").await, ["/a_b"], "{}", bed.size);
        assert_eq!(found("/%").await, Vec::<String>::new());
        assert_eq!(found("/100%25_").await, ["/100%25_\\x"]);
        assert_eq!(found("/';DROP").await, ["/';DROP%20TABLE%20request_logs;--"]);
        assert_eq!(bed.logged().await, paths.len(), "the table is whole");
    }
}

/// As a value in a query.
fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn no_query_body_cookie_or_credential_is_kept_anywhere() {
    let secret = "s3cr3t5queamish";
    let bed = Bed::embedded(Launch::default().with("IPWARDEN_LOG__LEVEL", "trace")).await;
    let (replica, key) = (bed.first(), bed.key(Role::User).await);
    for request in [
        replica.request(Method::GET, &format!("/?token={secret}")),
        replica.request(Method::POST, "/").body(secret),
        replica.request(Method::GET, "/").header("cookie", format!("session={secret}")),
        replica.request(Method::GET, "/").basic_auth("anna", Some(secret)),
        replica.request(Method::GET, "/").bearer_auth(&key),
    ] {
        request.send().await.unwrap();
    }
    bed.logs(5).await;
    let records = bed.records().await;
    let id = key.split('_').nth(1).unwrap();
    assert_eq!(records[0].identity.as_deref(), Some(format!("key:{id}").as_str()));
    assert!(records.iter().all(|record| record.path == "/"), "{records:?}");

    // Not in the rows, nor in the spool, nor in any other file, nor on the screen.
    let secret_of_key = key.split('_').nth(2).unwrap();
    let mut files = 0;
    each_file(&replica.dir().join("data"), &mut |path, bytes| {
        files += 1;
        for hidden in [secret, secret_of_key, "c2VjcjN0"] {
            let found = bytes.windows(hidden.len()).any(|window| window == hidden.as_bytes());
            assert!(!found, "{} holds {hidden}", path.display());
        }
    });
    assert!(files >= 3, "{files} files");
    assert!(!replica.said().contains(secret) && !replica.said().contains(secret_of_key));
}

fn each_file(directory: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => each_file(&path, look),
            false => look(&path, &std::fs::read(&path).unwrap()),
        }
    }
}
