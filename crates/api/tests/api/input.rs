//! What is sent: bodies and query strings that are wrong in every way that was thought of.
#![expect(clippy::unwrap_used, reason = "tests")]

use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::Value;

use crate::common::{Bed, Launch};

#[tokio::test]
async fn a_bad_body_is_refused_with_the_name_of_the_field() {
    let bed = Bed::embedded(Launch::default()).await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let deep_target = format!(r#"{{"target":{deep}}}"#);
    let large = format!(r#"{{"target":"192.0.2.1","reason":"{}"}}"#, "x".repeat(10 << 20));
    let long_reason = format!(r#"{{"target":"192.0.2.1","reason":"{}"}}"#, "x".repeat(2_000));
    let cases: &[(&[u8], u16, &str)] = &[
        (b"", 400, "body"),
        (b"{}", 400, "target"),
        (b"[]", 400, "body"),
        (b"null", 400, "body"),
        (b"1e400", 400, "body"),
        (deep.as_bytes(), 400, "body"),
        (deep_target.as_bytes(), 400, "target"),
        (br#"{"target":"192.0.2.1","target":"192.0.2.2"}"#, 400, "target"),
        (large.as_bytes(), 413, "body"),
        (br#"{"target":5}"#, 400, "target"),
        (br#"{"target":null}"#, 400, "target"),
        (br#"{"target":["192.0.2.1"]}"#, 400, "target"),
        (br#"{"target":"192.0.2.1","force":1}"#, 400, "force"),
        (br#"{"target":"192.0.2.1","colour":"red"}"#, 400, "colour"),
        (b"\xef\xbb\xbf{\"target\":\"192.0.2.1\"}", 400, "body"),
        (br#"{"target":NaN}"#, 400, "target"),
        (br#"{"target":"\ud800"}"#, 400, "target"),
        (b"{\"target\":\"\xff\"}", 400, "target"),
        (b"{\"target\":\"192.0.2.1\"", 400, "body"),
        (br#"{"target":"192.0.2.1"}{}"#, 400, "body"),
        (br#"{"target":""}"#, 422, "target"),
        (br#"{"target":"example.org"}"#, 422, "target"),
        (br#"{"target":"192.0.2.1","for":"soon"}"#, 422, "for"),
        (br#"{"target":"192.0.2.1","for":"-1h"}"#, 422, "for"),
        (br#"{"target":"192.0.2.1","for":"99999999999999d"}"#, 422, "for"),
        (br#"{"target":"192.0.2.1","reason":"a\u0000b"}"#, 422, "reason"),
        (long_reason.as_bytes(), 422, "reason"),
    ];
    let before = bed.lists_version().await;
    for (body, status, named) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (answered, problem) = post(&bed, "application/json", body.to_vec()).await;
        assert_eq!(answered.as_u16(), *status, "{shown}: {problem}");
        let field = problem["errors"][0]["field"].as_str().unwrap_or_default();
        assert!(field.starts_with(named), "{shown}: {problem}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let (answered, problem) = post(&bed, kind, br#"{"target":"192.0.2.1"}"#.to_vec()).await;
        assert_eq!(answered, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}: {problem}");
    }
    let after = bed.lists_version().await;
    assert_eq!(before, after, "something was changed");
    let (status, _) =
        post(&bed, "application/json; charset=utf-8", br#"{"target":"192.0.2.1"}"#.to_vec()).await;
    assert_eq!(status, StatusCode::CREATED);
}

async fn post(bed: &Bed, kind: &str, body: Vec<u8>) -> (StatusCode, Value) {
    let url = format!("{}/api/v1/blocks", bed.first().control);
    let request = reqwest::Client::new().post(url).bearer_auth(&bed.admin).body(body);
    let answer = request.header("content-type", kind).send().await.unwrap();
    assert_eq!(answer.headers().get("cache-control").is_some(), !answer.status().is_success());
    (answer.status(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

#[rstest]
#[case::a_body_of_a_review("/api/v1/suspicious/1/review", r#"{"action":"burn"}"#, "action")]
#[case::a_role("/api/v1/keys", r#"{"name":"x","role":"root"}"#, "role")]
#[case::a_key_without_a_name("/api/v1/keys", r#"{"role":"user"}"#, "name")]
#[tokio::test]
async fn words_of_a_closed_set_are_refused_by_field(
    #[case] path: &str,
    #[case] body: &str,
    #[case] field: &str,
) {
    let bed = Bed::embedded(Launch::default()).await;
    let body: Value = serde_json::from_str(body).unwrap();
    let (status, problem) = bed.api(Method::POST, path, Some(body)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
    assert_eq!(problem["errors"][0]["field"], field, "{problem}");
}

#[tokio::test]
async fn a_bad_query_is_refused_with_the_name_of_the_parameter() {
    let cases = [
        ("limit=-1", 422, "limit"),
        ("limit=0", 422, "limit"),
        ("limit=1000000000", 422, "limit"),
        ("limit=99999999999999999999", 422, "limit"),
        ("limit=x", 422, "limit"),
        ("limit=", 422, "limit"),
        ("limit=1&limit=2", 400, "limit"),
        ("cursor=x", 422, "cursor"),
        ("cursor=1", 422, "cursor"),
        ("cursor=1.2.3", 422, "cursor"),
        ("cursor=", 422, "cursor"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 422, "cursor"),
        ("since=2026-01-01T00:00:00%2B24:00", 422, "since"),
        ("since=2026-02-30T00:00:00Z", 422, "since"),
        ("status=99", 422, "status"),
        ("status=+40", 422, "status"),
        ("status=0xx", 422, "status"),
        ("status=4xxx", 422, "status"),
        ("country=Germany", 422, "country"),
        ("country=%C3%9F", 422, "country"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", 422, "since"),
        ("since=0000-01-01T00:00:00Z", 422, "since"),
        ("since=10000-01-01T00:00:00Z", 422, "since"),
        ("since=2026-01-01T24:00:00Z", 422, "since"),
        ("since=2026-01-01T00:00:00%2B99:99", 422, "since"),
        ("until=yesterday", 422, "until"),
        ("ip=example.org", 422, "ip"),
        ("verdict=maybe", 422, "verdict"),
        ("colour=red", 400, "colour"),
        ("path=%FF", 422, "path"),
        ("path=%00", 422, "path"),
        ("path=/a%20b", 422, "path"),
    ];
    for bed in Bed::each(|launch| launch).await {
        for (query, status, named) in cases {
            let path = format!("/api/v1/request-logs?{query}");
            let (answered, problem) = bed.api(Method::GET, &path, None).await;
            assert_eq!(answered.as_u16(), status, "{} {query}: {problem}", bed.size);
            assert_eq!(problem["errors"][0]["field"], named, "{query}: {problem}");
        }
        for list in ["blocks", "allows", "suspicious"] {
            for (query, named) in [
                ("limit=0", "limit"),
                ("cursor=x", "cursor"),
                ("cursor=99999999999999999999", "cursor"),
            ] {
                let path = format!("/api/v1/{list}?{query}");
                let (answered, problem) = bed.api(Method::GET, &path, None).await;
                assert_eq!(answered, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {problem}");
                assert_eq!(problem["errors"][0]["field"], named, "{path}: {problem}");
            }
            for query in ["limit=1", "limit=1000"] {
                let path = format!("/api/v1/{list}?{query}");
                let (answered, page) = bed.api(Method::GET, &path, None).await;
                assert_eq!(answered, StatusCode::OK, "{path}: {page}");
                assert_eq!(page["items"], serde_json::json!([]), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn whatever_stands_in_a_path_is_no_fault_of_ours() {
    let odd = ["%00", "%FF", "%2F..%2F", "1;drop table keys", "-1", "99999999999999999999", "%25"];
    for bed in Bed::each(|launch| launch).await {
        for text in odd.iter().copied().chain([&*"a".repeat(5_000)]) {
            for (method, route) in [
                (Method::DELETE, "blocks/"),
                (Method::DELETE, "allows/"),
                (Method::GET, "check/"),
                (Method::GET, "suspicious/"),
                (Method::DELETE, "keys/"),
            ] {
                let path = format!("/api/v1/{route}{text}");
                let (status, problem) = bed.api(method, &path, None).await;
                assert!(status.is_client_error(), "{path}: {status} {problem}");
            }
        }
    }
}
