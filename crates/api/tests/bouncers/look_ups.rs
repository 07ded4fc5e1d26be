//! `/v1/decisions`, and what holds for every route.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Bouncer, allow, block, found, values};
use super::common::{Bed, Launch, PATIENCE, eventually, field};

#[tokio::test]
async fn who_is_blocked_has_decisions_the_strongest_first_and_who_is_not_has_null() {
    for bed in Bed::each(|launch| launch).await {
        let bouncer = Bouncer::of(&bed).await;
        let replica = bed.first();
        assert_eq!(bouncer.text(replica, "/v1/decisions?ip=203.0.113.9").await, "null");
        block(&bed, "203.0.113.9", "4h").await;
        block(&bed, "203.0.113.0/24", "permanent").await;
        block(&bed, "2001:db8:9::/48", "30d").await;
        found(&bouncer, replica, "2001:db8:9::1", true).await;
        let all = bouncer.decisions(replica, "ip=203.0.113.9").await;
        let shown: Vec<_> = all.iter().map(|one| (&one["scope"], &one["value"])).collect();
        assert_eq!(
            shown,
            [(&json!("Range"), &json!("203.0.113.0/24")), (&json!("Ip"), &json!("203.0.113.9"))]
        );
        assert_eq!(
            (&all[1]["origin"], &all[1]["scenario"]),
            (&json!("manual"), &json!("scraping"))
        );
        assert_eq!((&all[0]["type"], &all[0]["duration"]), (&json!("ban"), &json!("87600h0m0s")));
        let duration = all[1]["duration"].as_str().unwrap();
        assert!(duration == "4h0m0s" || duration.starts_with("3h59m"), "{duration}");
        let again = bouncer.decisions(replica, "ip=203.0.113.9").await;
        for name in ["id", "uuid"] {
            assert_eq!(all[0][name], again[0][name], "{name} stays");
            assert_ne!(all[0][name], all[1][name], "{name} is of one only");
        }
        for (query, expected) in [
            ("ip=2001:db8:9::1", vec!["2001:db8:9::/48"]),
            ("range=203.0.113.0/25", vec!["203.0.113.0/24"]),
            ("range=203.0.112.0/23", vec![]),
            ("range=203.0.112.0/23&contains=false", vec!["203.0.113.0/24", "203.0.113.9"]),
            ("ip=203.0.113.9&scopes=ip", vec!["203.0.113.9"]),
            ("ip=203.0.113.9&scope=Range&what=ever", vec!["203.0.113.0/24"]),
            ("ip=203.0.113.9&limit=1", vec!["203.0.113.0/24"]),
            ("ip=203.0.113.9&offset=1", vec!["203.0.113.9"]),
            ("ip=203.0.113.9&type=captcha", vec![]),
            ("ip=203.0.113.9&origins=scan,import", vec![]),
            (
                "ip=203.0.113.9&origins=manual&scenarios_containing=crap&scopes=ip",
                vec!["203.0.113.9"],
            ),
            ("ip=203.0.113.9&scenarios_not_containing=scra", vec![]),
            ("value=203.0.113.9", vec!["203.0.113.9"]),
            ("", vec!["2001:db8:9::/48", "203.0.113.0/24", "203.0.113.9"]),
            ("limit=1&offset=1", vec!["203.0.113.9"]),
        ] {
            let decisions = bouncer.decisions(replica, query).await;
            assert_eq!(values(&decisions), expected, "{query}");
        }
        for query in ["ip=nobody", "range=1.2.3.4/40", "limit=-1", "ip=203.0.113.9&contains=maybe"]
        {
            let path = format!("/v1/decisions?{query}");
            let answer = bouncer.asks(replica, Method::GET, &path).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
            let body: Value = answer.json().await.unwrap();
            assert!(body["message"].is_string(), "{query}: {body}");
        }
    }
}

#[tokio::test]
async fn no_decision_holds_an_allowed_address() {
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    block(&bed, "203.0.113.0/29", "permanent").await;
    block(&bed, "203.0.113.3", "permanent").await;
    allow(&bed, "203.0.113.3").await;
    let told = bouncer.pulls(replica, "startup=true").await;
    assert_eq!(values(&told.new), ["203.0.113.0/31", "203.0.113.2", "203.0.113.4/30"]);
    assert_eq!(bouncer.decisions(replica, "ip=203.0.113.3").await, [] as [Value; 0]);
    // Some keep what they are told of a client for the whole value.
    let of_client = bouncer.decisions(replica, "ip=203.0.113.1").await;
    assert_eq!(values(&of_client), ["203.0.113.0/31"]);
}

#[tokio::test]
async fn without_a_key_that_counts_everything_is_forbidden_and_guessing_is_throttled() {
    let bed = Bed::embedded(Launch::default()).await;
    let replica = bed.first();
    let bouncer = Bouncer::of(&bed).await;
    let wrong = format!("{}x", &bouncer.key[..bouncer.key.len() - 1]);
    let client = reqwest::Client::builder().local_address(Some("127.9.0.1".parse().unwrap()));
    let client = client.build().unwrap();
    let ask = async |path: &str, key: Option<&str>| {
        let mut request = client.get(format!("{}{path}", replica.gate));
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        request.send().await.unwrap()
    };
    // A key for people opens nothing here, and is no wrong key.
    for key in [None, Some(&*bed.admin), Some("")] {
        for path in ["/v1/decisions?ip=1.2.3.4", "/v1/decisions/stream", "/v1/decisions?ip=x"] {
            if key == Some("") && path.contains("stream") {
                continue;
            }
            let answer = ask(path, key).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path} {key:?}");
            assert_eq!(answer.text().await.unwrap(), r#"{"message":"access forbidden"}"#);
        }
    }
    for _ in 0..3 {
        assert_eq!(ask("/v1/decisions", Some(&wrong)).await.status(), StatusCode::FORBIDDEN);
    }
    let silenced = ask("/v1/decisions", Some(&bouncer.key)).await;
    assert_eq!(silenced.status(), StatusCode::TOO_MANY_REQUESTS, "the right one as well");
    let seconds: u32 = field(&silenced, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds));
    // Others are not silenced.
    assert_eq!(bouncer.text(replica, "/v1/decisions?ip=203.0.113.1").await, "null");
}

#[tokio::test]
async fn answers_are_plain_json_and_head_is_as_get_without_a_body() {
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    block(&bed, "203.0.113.9", "4h").await;
    found(&bouncer, replica, "203.0.113.9", true).await;
    let url = format!("{}/v1/decisions?ip=203.0.113.9", replica.gate);
    let request = reqwest::Client::new().get(url).header("x-api-key", &bouncer.key);
    let answer = request.header("accept-encoding", "gzip, br, zstd").send().await.unwrap();
    assert_eq!(field(&answer, "content-encoding"), "");
    assert_eq!(field(&answer, "content-type"), "application/json");
    assert!(answer.text().await.unwrap().starts_with("[{\"duration\""));
    for path in ["/v1/decisions", "/v1/decisions/stream", "/v1/decisions?ip=203.0.113.9"] {
        let answer = bouncer.asks(replica, Method::HEAD, path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.text().await.unwrap(), "", "{path}");
    }
    let health = reqwest::get(format!("{}/health", replica.gate)).await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
}

#[tokio::test]
async fn look_ups_go_on_while_the_store_is_away_and_streams_have_nothing_new() {
    let server = ipwarden_testbed::postgres_private().unwrap();
    let bed = Bed::on_own_postgres(&server, 1, None, |launch| launch).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    block(&bed, "203.0.113.9", "4h").await;
    bouncer.pulls(replica, "startup=true").await;
    found(&bouncer, replica, "203.0.113.9", true).await;
    server.stop().unwrap();
    assert_eq!(values(&bouncer.decisions(replica, "ip=203.0.113.9").await), ["203.0.113.9"]);
    let text = bouncer.text(replica, "/v1/decisions/stream?startup=false").await;
    assert_eq!(text, r#"{"new":null,"deleted":null}"#);
    let told = bouncer.pulls(replica, "startup=true").await;
    assert_eq!(values(&told.new), ["203.0.113.9"]);
    server.start().unwrap();
    eventually(PATIENCE, "an unblock is told when the store is back", async || {
        let path = "/api/v1/blocks/203.0.113.9";
        let status = replica.control_status(Method::DELETE, path, &bed.admin, json!({})).await;
        status.is_success().then_some(())
    })
    .await;
    let told = bouncer.pulls(replica, "startup=false").await;
    assert_eq!(values(&told.deleted), ["203.0.113.9"]);
}
