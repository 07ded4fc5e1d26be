//! Envoy's check over gRPC: the same decisions as over HTTP.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use envoy_types::ext_authz::v3::pb::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tonic::Code;

use super::common::{Bed, Launch, PATIENCE, eventually, left};
use super::envoy::{Envoy, about, joined, on_grpc, question};

async fn bed() -> Bed {
    Bed::embedded(on_grpc(Launch::default().behind_proxies())).await
}

#[tokio::test]
async fn five_pass_the_sixth_is_429_and_all_are_in_the_log() {
    for bed in Bed::each(|launch| on_grpc(launch.behind_proxies())).await {
        let envoy = Envoy::of(bed.first()).await;
        let ours = ["pass", "reference", "verdict", "client-ip", "status", "problem"];
        for remaining in (0..5).rev() {
            let told = envoy.get("192.0.2.7", "/shop?token=secret").await;
            assert_eq!((told.code, told.left()), (Code::Ok, Some(remaining)));
            assert_eq!(told.field("ratelimit-policy"), r#""anonymous";q=5;w=60"#);
            assert_eq!(told.field("x-ipwarden-reference").len(), 12);
            assert_eq!(told.to_client.len(), 3, "{told:?}");
            assert_eq!(told.to_backend, BTreeMap::new());
            assert_eq!(told.removed, ours.map(|name| format!("x-ipwarden-{name}")));
        }
        let told = envoy.get("192.0.2.7", "/shop?token=secret").await;
        assert_eq!((told.code, told.status, told.left()), (Code::ResourceExhausted, 429, Some(0)));
        assert_eq!(told.field("content-type"), "application/problem+json");
        assert!((1..=60).contains(&told.field("retry-after").parse::<u32>().unwrap()));
        let problem: Value = serde_json::from_str(&told.body).unwrap();
        assert_eq!(
            (&problem["status"], &problem["violated-policies"]),
            (&json!(429), &json!(["anonymous"]))
        );
        assert_eq!(problem["reference"], told.field("x-ipwarden-reference"));

        bed.logs(6).await;
        let records = bed.records().await;
        for record in &records {
            assert_eq!((record.method.as_str(), record.path.as_str()), ("GET", "/shop"));
            assert_eq!(record.address.to_string(), "192.0.2.7");
        }
        assert_eq!(records.iter().filter(|record| record.status == 429).count(), 1);
        // One client has one quota however it comes.
        let answer = bed.first().get("192.0.2.7", "/").await;
        assert_eq!((answer.status(), left(&answer)), (StatusCode::TOO_MANY_REQUESTS, Some(0)));
    }
}

#[tokio::test]
async fn a_blocked_address_is_403_and_an_allowed_one_has_no_quota() {
    let bed = bed().await;
    let envoy = Envoy::of(bed.first()).await;
    for (list, target) in [("allows", "192.0.2.77"), ("blocks", "192.0.2.66")] {
        let entry = json!({ "target": target });
        let (status, said) = bed.api(Method::POST, &format!("/api/v1/{list}"), Some(entry)).await;
        assert_eq!(status, StatusCode::CREATED, "{said}");
    }
    let (told, _) = eventually(PATIENCE, "the block counts", async || {
        let told = envoy.get("192.0.2.66", "/").await;
        (told.code == Code::PermissionDenied).then_some(told)
    })
    .await;
    assert_eq!((told.status, told.left(), told.field("retry-after")), (403, None, ""));
    assert_eq!(told.field("x-ipwarden-verdict"), "blocked");
    let problem: Value = serde_json::from_str(&told.body).unwrap();
    assert_eq!(problem["detail"], "Requests from this address are not served.");
    for _ in 0..20 {
        let told = envoy.get("192.0.2.77", "/").await;
        assert_eq!((told.code, told.left()), (Code::Ok, None));
    }
    // A browser gets a page.
    let lines: [(&str, &[u8]); 2] = [("x-forwarded-for", b"192.0.2.66"), ("accept", b"text/html")];
    let told = envoy.about(about("GET", "/", &lines)).await;
    assert_eq!(told.field("content-type"), "text/html; charset=utf-8");
    assert!(told.field("content-security-policy").starts_with("default-src 'none'"));
    assert!(told.body.starts_with("<!doctype html>"), "{}", told.body);
}

#[tokio::test]
async fn from_anybody_but_a_trusted_proxy_nothing_is_judged_or_recorded() {
    let launch = on_grpc(Launch::default())
        .with("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "192.0.2.0/24")
        .with("IPWARDEN_IDENTITY__HEADER", "X-User");
    let bed = Bed::embedded(launch).await;
    let envoy = Envoy::of(bed.first()).await;
    let lines: [(&str, &[u8]); 2] = [("x-forwarded-for", b"192.0.2.7"), ("x-user", b"ada")];
    let asked = question(Some(about("GET", "/", &lines)), Some("192.0.2.7"));
    // Nor is he told what his question lacks.
    for asked in (0..7).map(|_| asked.clone()).chain([CheckRequest::default()]) {
        let told = envoy.asks(asked).await.unwrap();
        assert_eq!((told.code, told.status), (Code::PermissionDenied, 403));
        assert!(told.to_client.keys().all(|name| !name.starts_with("x-ipwarden")), "{told:?}");
        assert!(told.body.contains("client_ip.trusted_proxies"));
    }
    bed.logs(0).await;
    // The quota of whoever asked is whole.
    let answer = bed.first().request(Method::GET, "/").send().await.unwrap();
    assert_eq!(left(&answer), Some(4));
}

#[tokio::test]
async fn who_asks_is_in_the_header_or_else_whom_envoy_sees() {
    let bed = bed().await;
    let envoy = Envoy::of(bed.first()).await;
    let forwarded = |value: &'static [u8]| ("x-forwarded-for", value);
    for (request, source, client) in [
        (about("GET", "/1", &[forwarded(b"192.0.2.1, 127.0.0.9")]), None, "192.0.2.1"),
        (
            about("GET", "/2", &[forwarded(b"203.0.113.9"), forwarded(b"192.0.2.2")]),
            Some("198.51.100.1"),
            "192.0.2.2",
        ),
        (about("GET", "/3", &[]), Some("192.0.2.3"), "192.0.2.3"),
        (about("GET", "/4", &[]), Some("2001:db8::4"), "2001:db8::4"),
        (joined("GET", "/5", &[("x-forwarded-for", "203.0.113.9,192.0.2.5")]), None, "192.0.2.5"),
        (
            joined("GET", "/6", &[("x_forwarded_for", "203.0.113.9")]),
            Some("192.0.2.6"),
            "192.0.2.6",
        ),
        // Nobody says who asks: the proxy itself.
        (joined("GET", "/7", &[]), None, "127.0.0.1"),
        (about("GET", "/8", &[]), Some("no address\n"), "127.0.0.1"),
        (about("GET", "/9", &[forwarded(b"\xff\xfe")]), Some("192.0.2.9"), "127.0.0.1"),
    ] {
        let path = request.path.clone();
        let told = envoy.asks(question(Some(request), source)).await.unwrap();
        assert_eq!(told.code, Code::Ok, "{path}");
        let (record, _) = eventually(PATIENCE, "it is recorded", async || {
            bed.records().await.into_iter().find(|record| record.path == path)
        })
        .await;
        assert_eq!(record.address.to_string(), client, "{path}");
    }
    bed.logs(9).await;
}

#[tokio::test]
async fn a_user_whom_envoy_names_has_the_authenticated_quota_and_two_are_nobody() {
    let launch = on_grpc(Launch::default().behind_proxies());
    let bed = Bed::embedded(launch.with("IPWARDEN_IDENTITY__HEADER", "X-User")).await;
    let envoy = Envoy::of(bed.first()).await;
    let ada = ("x-user", b"ada".as_slice());
    let named = joined("GET", "/", &[("x-user", "ada")]);
    for (request, remaining) in [(about("GET", "/", &[ada]), 9), (named, 8)] {
        let told = envoy.about(request).await;
        assert_eq!(told.field("ratelimit-policy"), r#""authenticated";q=10;w=60"#);
        assert_eq!(told.left(), Some(remaining));
    }
    for request in [
        about("GET", "/", &[ada, ("x-user", b"eve")]),
        joined("GET", "/", &[("x-user", "ada,eve")]),
        joined("GET", "/", &[("x-user", " ")]),
        joined("GET", "/", &[("x-users", "ada")]),
    ] {
        let told = envoy.about(request).await;
        assert_eq!(told.field("ratelimit-policy"), r#""anonymous";q=5;w=60"#);
    }
}

#[tokio::test]
async fn the_record_is_of_the_original_request_and_what_is_none_is_refused() {
    let bed = bed().await;
    let envoy = Envoy::of(bed.first()).await;
    let agent: [(&str, &[u8]); 3] =
        [(":path", b"/never"), ("user-agent", b"curious/\xff"), ("x-forwarded-uri", b"/never")];
    let asked = about("DELETE", "/%61dmin/x?rd=https://other.example.test/", &agent);
    assert_eq!(envoy.about(asked).await.code, Code::Ok);
    bed.logs(1).await;
    let record = bed.records().await.pop().unwrap();
    assert_eq!((record.method.as_str(), record.path.as_str()), ("DELETE", "/%61dmin/x"));
    assert_eq!((record.sensitive, record.status), (true, 200));
    assert!(record.user_agent.unwrap().starts_with("curious/"));

    let none = [
        CheckRequest::default(),
        CheckRequest { attributes: Some(AttributeContext::default()) },
        question(None, Some("192.0.2.7")),
    ];
    let odd = [("", "/"), ("GET /", "/"), ("G\u{e9}T", "/"), ("GET", ""), ("GET", "admin")];
    let odd = odd.map(|(method, path)| question(Some(about(method, path, &[])), Some("192.0.2.7")));
    for asked in none.into_iter().chain(odd) {
        let told = envoy.asks(asked).await.unwrap();
        assert_eq!((told.code, told.status), (Code::InvalidArgument, 400), "{told:?}");
        assert!(told.body.contains("attributes.request.http"), "{told:?}");
    }
    bed.logs(1).await;
}

#[tokio::test]
async fn the_pass_goes_to_the_backend_which_counts_nothing_again() {
    let secret = "a secret that the gate and the application share";
    let launch = on_grpc(Launch::default().behind_proxies());
    let bed = Bed::embedded(launch.with("IPWARDEN_GATE__PASS_SECRET", secret)).await;
    let envoy = Envoy::of(bed.first()).await;
    let told = envoy.get("192.0.2.7", "/?a=b").await;
    assert_eq!(told.to_backend.keys().collect::<Vec<_>>(), ["x-ipwarden-pass"]);
    assert!(!told.removed.contains(&"x-ipwarden-pass".to_owned()), "or nobody would see it");
    assert!(!told.to_client.contains_key("x-ipwarden-pass"));
    let request = bed.first().request(Method::GET, "/?a=b").header("x-forwarded-for", "192.0.2.7");
    let request = request.header("x-ipwarden-pass", &told.to_backend["x-ipwarden-pass"]);
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status(), left(&answer)), (StatusCode::OK, Some(4)));
    bed.logs(1).await;
}

#[tokio::test]
async fn many_at_once_on_one_connection_are_each_counted_and_recorded_once() {
    let bed = bed().await;
    let envoy = Envoy::of(bed.first()).await;
    let asked = (0..500).map(|number| {
        let envoy = envoy.clone();
        async move { envoy.get(&format!("192.0.2.{}", number % 50), "/").await.status }
    });
    let statuses = futures_util::future::join_all(asked).await;
    let count = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!((count(200), count(429)), (250, 250));
    bed.logs(500).await;
}

#[tokio::test]
async fn it_ends_in_good_order_while_envoy_asks() {
    let mut bed = bed().await;
    let envoy = Envoy::of(bed.first()).await;
    let asking = tokio::spawn(async move {
        let mut answered = 0;
        let asked = question(Some(about("GET", "/", &[])), Some("192.0.2.7"));
        while envoy.asks(asked.clone()).await.is_ok() {
            answered += 1;
        }
        answered
    });
    eventually(PATIENCE, "it is at work", async || (bed.logged().await > 0).then_some(())).await;
    bed.replicas[0].terminate();
    assert!(bed.replicas[0].ended().await.success());
    assert_eq!(
        asking.await.unwrap(),
        bed.logged().await,
        "the log was shipped, and holds each once"
    );
}

#[tokio::test]
async fn who_says_nothing_or_no_http_2_does_not_hold_a_connection() {
    let bed = bed().await;
    let address = bed.first().announced("grpc").strip_prefix("http://").unwrap().to_owned();
    let sent: [&'static [u8]; 3] =
        [b"", b"PRI * HTTP/2.0\r\n\r\n", b"GET /v1/forward-auth HTTP/1.1\r\nhost: a\r\n\r\n"];
    let ended = sent.map(|bytes| {
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            stream.write_all(bytes).unwrap();
            stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind())
        })
    });
    for (ended, sent) in ended.into_iter().zip(sent) {
        let ended = ended.await.unwrap();
        let reset = Err(std::io::ErrorKind::ConnectionReset);
        assert!(ended.is_ok() || ended == reset, "{}: {ended:?}", sent.escape_ascii());
    }
    assert_eq!(Envoy::of(bed.first()).await.get("192.0.2.7", "/").await.code, Code::Ok);
}

#[tokio::test]
async fn a_question_that_is_too_large_is_not_read_to_its_end() {
    let bed = bed().await;
    let envoy = Envoy::of(bed.first()).await;
    let large = about("GET", "/", &[("cookie", &[b'x'; 600 << 10])]);
    let error = envoy.asks(question(Some(large), None)).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error}");
    bed.logs(0).await;
}
