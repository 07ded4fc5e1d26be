//! What the scan found, as the API shows it, and its review.

use ipwarden_core::keys::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch, now};

async fn listed(bed: &Bed, query: &str) -> Vec<Value> {
    let path = format!("/api/v1/suspicious{query}");
    let (status, page) = bed.api(Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    page["items"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_finding_is_shown_reviewed_once_and_stays_as_it_was_judged() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let began = now();
        for (host, path) in [(1, "/login"), (2, "/%61dmin/x"), (3, "/harmless")] {
            bed.first().get(&format!("203.0.113.{host}"), path).await;
        }
        bed.logs(3).await;
        assert_eq!(listed(&bed, "").await.len(), 0);
        bed.scan(began).await;
        let found = listed(&bed, "").await;
        let mut addresses: Vec<_> = found.iter().map(|row| row["address"].as_str()).collect();
        addresses.sort();
        assert_eq!(addresses, [Some("203.0.113.1"), Some("203.0.113.2")]);
        let of = |address: &str| found.iter().find(|row| row["address"] == address);
        let (login, admin) = (of("203.0.113.1").unwrap(), of("203.0.113.2").unwrap());
        insta::assert_json_snapshot!("finding", login, {
            ".id" => "[id]", ".first_seen" => "[time]", ".last_seen" => "[time]",
            ".evidence.requests[].at" => "[time]",
        });
        let path = format!("/api/v1/suspicious/{}", login["id"]);
        assert_eq!(bed.api(Method::GET, &path, None).await, (StatusCode::OK, login.clone()));

        let operator = bed.key(Role::Operator).await;
        let review = async |id: &Value, body: Value| {
            let path = format!("/api/v1/suspicious/{id}/review");
            bed.first().control(Method::POST, &path, Some(&operator), Some(body)).await
        };
        let (status, dismissed) = review(&login["id"], json!({ "action": "dismiss" })).await;
        assert_eq!((status, &dismissed["status"]), (StatusCode::OK, &json!("dismissed")));
        let by = format!("key:{}", operator.split('_').nth(1).unwrap());
        assert_eq!((&dismissed["reviewed_by"], &dismissed["block"]), (&json!(by), &Value::Null));
        let (status, again) = review(&login["id"], json!({ "action": "dismiss" })).await;
        assert_eq!((status, &again["already"]), (StatusCode::OK, &json!(true)));
        let (status, conflict) = review(&login["id"], json!({ "action": "block" })).await;
        assert_eq!(status, StatusCode::CONFLICT, "{conflict}");
        let body = json!({ "action": "block", "for": "30d", "reason": "curious" });
        let (status, blocked) = review(&admin["id"], body).await;
        assert_eq!((status, &blocked["status"]), (StatusCode::OK, &json!("blocked")));
        assert_eq!(blocked["block"]["network"], "203.0.113.2");
        assert_eq!(blocked["block"]["origin"], "scan");
        assert_eq!(blocked["block"]["reason"], "curious");
        let (status, _) = review(&json!(99_999), json!({ "action": "block" })).await;
        assert_eq!(status, StatusCode::NOT_FOUND);

        for (query, count) in [
            ("", 0),
            ("?status=open", 0),
            ("?status=blocked", 1),
            ("?status=dismissed", 1),
            ("?status=all", 2),
        ] {
            assert_eq!(listed(&bed, query).await.len(), count, "{query}");
        }
        // What was dismissed is not found again.
        bed.scan(began).await;
        assert_eq!(listed(&bed, "").await.len(), 0);
        let (status, problem) = bed.api(Method::GET, "/api/v1/suspicious?status=odd", None).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(problem["errors"][0]["field"], "status");
    }
}
