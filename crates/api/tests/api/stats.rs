//! Numbers over the API: the same as the log's, at once.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch};

async fn ask(bed: &Bed, query: &str) -> Value {
    let (status, stats) = bed.api(Method::GET, &format!("/api/v1/stats?{query}"), None).await;
    assert_eq!(status, StatusCode::OK, "{query}: {stats}");
    stats
}

#[tokio::test]
async fn numbers_are_those_of_the_log_before_and_after_they_are_counted() {
    for bed in Bed::each(Launch::behind_proxies).await {
        for host in 0..4 {
            bed.first().get(&format!("203.0.113.{host}"), "/once").await;
        }
        for _ in 0..7 {
            bed.first().get("198.51.100.1", "/often").await;
        }
        bed.logs(11).await;
        let stats = ask(&bed, "top=1").await;
        let expected = json!({
            "requests": 11, "allowed": 9, "blocked": 0, "throttled": 2, "pending_hours": 0,
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&stats[name], value, "{name}: {stats:#}");
        }
        let often = |key: &str| {
            json!([{
                "key": key, "requests": 7, "allowed": 5, "blocked": 0, "throttled": 2,
                "at_most": 7,
            }])
        };
        assert_eq!(stats["addresses"], often("198.51.100.1"));
        assert_eq!(stats["networks"], often("198.51.100.0/24"));
        assert_eq!(stats["paths"], often("/often"));
        assert_eq!(stats["countries"], json!([]));
        let statuses: Vec<_> =
            stats["statuses"].as_array().unwrap().iter().map(|top| &top["key"]).collect();
        assert_eq!(statuses, ["404", "429"]);

        bed.scan(crate::common::now()).await;
        assert_eq!(ask(&bed, "top=1").await["addresses"], stats["addresses"]);
        assert_eq!(ask(&bed, "top=0&by=day").await["addresses"], json!([]));
    }
}

#[tokio::test]
async fn what_cannot_be_answered_names_the_parameter() {
    let bed = Bed::embedded(Launch::default()).await;
    for (query, field, status) in [
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "since", 422),
        ("since=9999-01-01T00:00:00Z", "since", 422),
        ("since=0001-01-01T00:00:00Z", "since", 422),
        ("until=0001-01-01T00:00:00Z", "since", 422),
        ("since=2000-01-01T00:00:00Z&by=hour", "by", 422),
        ("since=yesterday", "since", 422),
        ("until=24h", "until", 422),
        ("by=week", "by", 422),
        ("top=1001", "top", 422),
        ("top=-1", "top", 422),
        ("bottom=1", "bottom", 400),
    ] {
        let (answer, problem) = bed.api(Method::GET, &format!("/api/v1/stats?{query}"), None).await;
        assert_eq!(answer.as_u16(), status, "{query}: {problem}");
        assert_eq!(problem["errors"][0]["field"], field, "{query}: {problem}");
    }
    let (answer, _) = bed.api(Method::GET, "/api/v1/stats?until=0001-01-02T00:00:00Z", None).await;
    assert_eq!(answer, StatusCode::OK, "long before anything");
}
