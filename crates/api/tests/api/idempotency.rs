//! A change that is sent again with its `Idempotency-Key` is made once.
#![expect(clippy::unwrap_used, reason = "tests")]

use chrono::TimeDelta;
use futures_util::FutureExt as _;
use ipwarden_core::db::idempotency_keys;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch, field, now};

struct Answer {
    status: StatusCode,
    again: bool,
    body: Value,
}

async fn send(bed: &Bed, replica: usize, to: (Method, &str), key: &str, body: Value) -> Answer {
    let url = format!("{}{}", bed.replicas[replica].control, to.1);
    let request = reqwest::Client::new().request(to.0, url).bearer_auth(&bed.admin);
    let request = request.header("idempotency-key", key);
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.send().await.unwrap();
    let (status, again) = (answer.status(), field(&answer, "idempotent-replayed") == "true");
    let text = answer.text().await.unwrap();
    assert!(!status.is_server_error(), "{status} {text}");
    Answer { status, again, body: serde_json::from_str(&text).unwrap_or(Value::Null) }
}

async fn audited(bed: &Bed) -> usize {
    let (_, page) = bed.api(Method::GET, "/api/v1/audit?limit=1000", None).await;
    page["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_same_change_with_the_same_key_is_made_once_and_answered_alike() {
    for bed in Bed::each(|launch| launch).await {
        let last = bed.replicas.len() - 1;
        let block = (Method::POST, "/api/v1/blocks");
        let body = json!({ "target": "203.0.113.1", "for": "4h" });
        let first = send(&bed, 0, block.clone(), "k-1", body.clone()).await;
        assert_eq!((first.status, first.again), (StatusCode::CREATED, false));
        let before = audited(&bed).await;
        // On another replica, quoted as the draft has it, its fields in another order.
        let body = json!({ "for": "4h", "target": "203.0.113.1" });
        let again = send(&bed, last, block.clone(), "\"k-1\"", body).await;
        assert_eq!((again.status, again.again), (StatusCode::CREATED, true));
        assert_eq!(again.body, first.body);
        assert_eq!(audited(&bed).await, before, "nothing was done");

        for (to, body) in [
            (block.clone(), json!({ "target": "203.0.113.2", "for": "4h" })),
            ((Method::POST, "/api/v1/allows"), json!({ "target": "203.0.113.1", "for": "4h" })),
            ((Method::DELETE, "/api/v1/blocks/203.0.113.1"), Value::Null),
        ] {
            let other = send(&bed, last, to, "k-1", body).await;
            assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.body);
            assert_eq!(other.body["errors"][0]["field"], "Idempotency-Key");
        }
        assert_eq!(audited(&bed).await, before, "nothing was done");

        // What was refused was not done, and is judged again.
        let bad = send(&bed, 0, block.clone(), "k-2", json!({ "target": "127.0.0.1" })).await;
        assert_eq!(bad.status, StatusCode::CONFLICT);
        let good = send(&bed, 0, block.clone(), "k-2", json!({ "target": "203.0.113.3" })).await;
        assert_eq!((good.status, good.again), (StatusCode::CREATED, false));

        // Who was unblocked stays so, though the block is sent again.
        let gone =
            send(&bed, 0, (Method::DELETE, "/api/v1/blocks/203.0.113.1"), "k-3", Value::Null);
        assert_eq!(gone.await.status, StatusCode::OK);
        let body = json!({ "target": "203.0.113.1", "for": "4h" });
        assert!(send(&bed, 0, block, "k-1", body).await.again);
        let (_, checked) = bed.api(Method::GET, "/api/v1/check/203.0.113.1", None).await;
        assert_eq!(checked["verdict"], "allowed", "{checked}");
    }
}

#[tokio::test]
async fn many_who_send_one_change_at_once_make_it_once() {
    for bed in Bed::each(|launch| launch).await {
        let before = audited(&bed).await;
        let body = json!({ "name": "shop", "role": "user" });
        let sent = (0..8).map(|n| {
            let replica = n % bed.replicas.len();
            send(&bed, replica, (Method::POST, "/api/v1/keys"), "once", body.clone())
        });
        let answers = futures_util::future::join_all(sent).await;
        let made: Vec<_> = answers.iter().filter(|answer| !answer.again).collect();
        assert_eq!(made.len(), 1);
        assert!(made[0].body["key"].is_string());
        for answer in &answers {
            assert_eq!(answer.status, StatusCode::CREATED);
            assert_eq!(answer.body["id"], made[0].body["id"]);
            // A secret is shown once and kept nowhere.
            assert_eq!(answer.body["key"].is_null(), answer.again);
        }
        assert_eq!(audited(&bed).await, before + 1);
    }
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day_and_then_forgotten() {
    for bed in Bed::each(|launch| launch).await {
        let block = (Method::POST, "/api/v1/blocks");
        send(&bed, 0, block.clone(), "k", json!({ "target": "203.0.113.1" })).await;
        let almost = now() + TimeDelta::hours(23);
        let pruned = bed.db.run(move |conn| idempotency_keys::prune(conn, almost).boxed()).await;
        assert_eq!(pruned.unwrap(), 0);
        let after = now() + TimeDelta::hours(25);
        let pruned = bed.db.run(move |conn| idempotency_keys::prune(conn, after).boxed()).await;
        assert_eq!(pruned.unwrap(), 1);
        let anew = send(&bed, 0, block, "k", json!({ "target": "203.0.113.2" })).await;
        assert_eq!((anew.status, anew.again), (StatusCode::CREATED, false));
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused() {
    let bed = Bed::embedded(Launch::default()).await;
    let long = "x".repeat(256);
    for key in ["", "\"\"", "\u{e4}", &long] {
        let answer = send(
            &bed,
            0,
            (Method::POST, "/api/v1/blocks"),
            key,
            json!({ "target": "203.0.113.1" }),
        );
        let answer = answer.await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{key}: {}", answer.body);
        assert_eq!(answer.body["errors"][0]["field"], "Idempotency-Key");
    }
}
