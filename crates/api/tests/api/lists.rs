//! Blocks and allows through the API: what is put, what the guard rails refuse, what is taken off.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use ipwarden_core::lists::own_addresses;
use ipwarden_engine::network::Network;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch, TEN_TIMES_A_SECOND, eventually};

async fn block(bed: &Bed, target: &str) -> (StatusCode, Value) {
    bed.api(Method::POST, "/api/v1/blocks", Some(json!({ "target": target }))).await
}

async fn forced(bed: &Bed, target: &str) -> (StatusCode, Value) {
    let body = json!({ "target": target, "force": true });
    bed.api(Method::POST, "/api/v1/blocks", Some(body)).await
}

async fn blocked(bed: &Bed) -> Vec<String> {
    let (status, page) = bed.api(Method::GET, "/api/v1/blocks?limit=1000", None).await;
    assert_eq!(status, StatusCode::OK);
    let rows = page["items"].as_array().unwrap();
    let mut all: Vec<_> =
        rows.iter().map(|row| row["network"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

/// Rows of the vectors, and of those that `IPWARDEN_VECTORS` names.
fn targets() -> Vec<Value> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/vectors");
    let other = std::env::var_os("IPWARDEN_VECTORS").map(PathBuf::from);
    let mut rows = Vec::new();
    for file in [Some(own), other].into_iter().flatten().map(|dir| dir.join("targets.jsonl")) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        rows.extend(text.lines().map(|row| serde_json::from_str::<Value>(row).unwrap()));
    }
    assert!(rows.len() >= 47, "{} rows", rows.len());
    rows
}

#[tokio::test]
async fn the_vectors_of_targets_hold_for_blocks() {
    for bed in Bed::each(|launch| launch).await {
        let (mut failures, own) = (Vec::new(), own_addresses());
        for case in targets() {
            let (id, target) = (case["id"].as_str().unwrap(), case["target"].as_str().unwrap());
            let (status, answer) = block(&bed, target).await;
            let canonical = case["canonical"].as_str();
            let network = canonical.and_then(|text| text.parse::<Network>().ok());
            // Nobody knows beforehand which addresses this machine has.
            let is_own = network.is_some_and(|net| own.iter().any(|ip| net.contains(*ip)));
            let right = match case["valid"].as_bool().unwrap() && !is_own {
                true => status.is_success() && answer["network"].as_str() == canonical,
                false => {
                    (status == StatusCode::UNPROCESSABLE_ENTITY || status == StatusCode::CONFLICT)
                        && answer["errors"][0]["field"] == "target"
                        && blocked(&bed).await.is_empty()
                }
            };
            if !right {
                failures.push(format!("{id} {target}: {status} {answer}"));
            }
            if status.is_success() {
                let path = format!("/api/v1/blocks/{}", answer["network"].as_str().unwrap());
                let (status, removal) = bed.api(Method::DELETE, &path, None).await;
                assert_eq!(status, StatusCode::OK);
                assert_eq!(removal["removed"].as_array().unwrap().len(), 1, "{removal}");
            }
        }
        assert!(failures.is_empty(), "{}:\n{}", bed.size, failures.join("\n"));
    }
}

#[tokio::test]
async fn an_entry_is_created_updated_listed_and_removed() {
    for bed in Bed::each(|launch| launch).await {
        for list in ["blocks", "allows"] {
            let path = format!("/api/v1/{list}");
            let mut body = json!({ "target": "203.0.113.77/24", "for": "4h", "reason": "noise" });
            let (status, made) = bed.api(Method::POST, &path, Some(body.clone())).await;
            assert_eq!(status, StatusCode::CREATED, "{made}");
            insta::assert_json_snapshot!(format!("{list}_created"), made, {
                ".id" => "[id]", ".created_at" => "[time]", ".created_by" => "[admin]",
                ".expires_at" => "[time]",
            });
            body["for"] = "permanent".into();
            let (status, updated) = bed.api(Method::POST, &path, Some(body.clone())).await;
            assert_eq!((status, &updated["put"]), (StatusCode::OK, &json!("updated")));
            assert_eq!((&updated["id"], &updated["expires_at"]), (&made["id"], &Value::Null));
            let (status, same) = bed.api(Method::POST, &path, Some(body)).await;
            assert_eq!((status, &same["put"]), (StatusCode::OK, &json!("unchanged")));

            let (status, page) = bed.api(Method::GET, &path, None).await;
            assert_eq!(status, StatusCode::OK);
            insta::assert_json_snapshot!(format!("{list}_page"), page, {
                ".items[].id" => "[id]", ".items[].created_at" => "[time]",
                ".items[].created_by" => "[admin]",
            });
            let (status, gone) =
                bed.api(Method::DELETE, &format!("{path}/203.0.113.0/24"), None).await;
            assert_eq!((status, gone["removed"].as_array().unwrap().len()), (StatusCode::OK, 1));
            let (status, again) =
                bed.api(Method::DELETE, &format!("{path}/203.0.113.0%2F24"), None).await;
            assert_eq!((status, &again["removed"]), (StatusCode::OK, &json!([])));
            let (_, page) = bed.api(Method::GET, &path, None).await;
            assert_eq!(page, json!({ "items": [], "next": null }));
        }
    }
}

#[tokio::test]
async fn unblocking_a_network_leaves_the_wider_and_the_narrower() {
    for bed in Bed::each(Launch::behind_proxies).await {
        for target in ["10.2.0.0/16", "10.2.3.0/24", "10.2.3.4"] {
            let (status, answer) = block(&bed, target).await;
            assert_eq!(status, StatusCode::CREATED, "{answer}");
        }
        let (_, removal) = bed.api(Method::DELETE, "/api/v1/blocks/10.2.3.0/24", None).await;
        assert_eq!(removal["removed"].as_array().unwrap().len(), 1, "{removal}");
        assert_eq!(removal["notices"].as_array().unwrap().len(), 2, "{removal}");
        assert_eq!(blocked(&bed).await, ["10.2.0.0/16", "10.2.3.4"]);
        let (status, checked) = bed.api(Method::GET, "/api/v1/check/10.2.3.9", None).await;
        assert_eq!(status, StatusCode::OK);
        insta::assert_json_snapshot!("check", checked, {
            ".blocked[].id" => "[id]", ".blocked[].created_at" => "[time]",
            ".blocked[].created_by" => "[admin]",
        });
        for replica in &bed.replicas {
            for client in ["10.2.3.4", "10.2.3.9"] {
                refused(&bed, replica, client).await;
            }
        }
    }
}

async fn refused(bed: &Bed, replica: &crate::common::Replica, client: &str) {
    eventually(TEN_TIMES_A_SECOND, bed.size, async || {
        let answer = replica.get(client, "/").await;
        (answer.status() == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_allowed_is_blocked_only_by_force_and_served_nevertheless() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let allow = json!({ "target": "192.168.0.0/16" });
        let (status, _) = bed.api(Method::POST, "/api/v1/allows", Some(allow)).await;
        assert_eq!(status, StatusCode::CREATED);
        for target in ["192.168.1.1", "192.168.10.20/24"] {
            let (status, refused) = block(&bed, target).await;
            assert_eq!(status, StatusCode::CONFLICT, "{refused}");
            let error = &refused["errors"][0];
            assert_eq!((&error["field"], &error["rule"]), (&json!("target"), &json!("allowed")));
            assert!(error["detail"].as_str().unwrap().contains("192.168.0.0/16"), "{error}");
        }
        assert_eq!(blocked(&bed).await, Vec::<String>::new());
        let (status, made) = forced(&bed, "192.168.1.1").await;
        assert_eq!(status, StatusCode::CREATED);
        let notices = made["notices"].to_string();
        assert!(notices.contains("192.168.0.0/16"), "{notices}");
        let (_, checked) = bed.api(Method::GET, "/api/v1/check/192.168.1.1", None).await;
        assert_eq!(checked["verdict"], "allowed", "{checked}");
        for replica in &bed.replicas {
            eventually(TEN_TIMES_A_SECOND, "the lists arrive", async || {
                (replica.metric("ipwarden_allowed_networks").await == 1).then_some(())
            })
            .await;
            // Allowed beats blocked, and has no quota.
            for _ in 0..20 {
                assert_eq!(replica.get("192.168.1.1", "/").await.status(), StatusCode::OK);
            }
        }
    }
}

#[tokio::test]
async fn the_guard_rails_keep_operators_from_locking_themselves_out() {
    let proxies = "127.0.0.0/8,10.0.0.0/8";
    let settings = |launch: Launch| launch.with("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", proxies);
    for bed in Bed::each(settings).await {
        let cases = [
            ("10.0.0.1", "trusted_proxy"),
            ("10.0.0.0/7", "too_wide"),
            ("127.0.0.1", "loopback"),
            ("127.0.0.0/8", "loopback"),
            ("::1", "loopback"),
            ("0.0.0.0/8", "unspecified"),
            ("0.0.0.0/0", "too_wide"),
            ("::/0", "too_wide"),
        ];
        for (target, rule) in cases {
            let (status, refused) = block(&bed, target).await;
            assert_eq!(status, StatusCode::CONFLICT, "{target}: {refused}");
            assert_eq!(refused["errors"][0]["rule"], rule, "{target}: {refused}");
        }
        assert_eq!(blocked(&bed).await, Vec::<String>::new());
        let (_, refused) = block(&bed, "10.0.0.1").await;
        insta::assert_json_snapshot!("refused_by_the_rails", refused);
        let (status, made) = forced(&bed, "10.0.0.1").await;
        assert_eq!(status, StatusCode::CREATED);
        assert_eq!(made["notices"].as_array().unwrap().len(), 1, "{made}");
    }
}

#[tokio::test]
async fn a_block_that_ends_is_listed_no_more() {
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let body = json!({ "target": "203.0.113.1", "for": "1s" });
    let (status, _) = bed.api(Method::POST, "/api/v1/blocks", Some(body)).await;
    assert_eq!(status, StatusCode::CREATED);
    eventually(TEN_TIMES_A_SECOND, "it ends", async || {
        let listed = blocked(&bed).await;
        let status = bed.first().get("203.0.113.1", "/").await.status();
        (listed.is_empty() && status != StatusCode::FORBIDDEN).then_some(())
    })
    .await;
}
