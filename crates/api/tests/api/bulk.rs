//! Many blocks and unblocks at once: all or none.
#![expect(clippy::unwrap_used, reason = "tests")]

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch, TEN_TIMES_A_SECOND, eventually};

async fn bulk(bed: &Bed, body: Value) -> (StatusCode, Value) {
    bed.api(Method::POST, "/api/v1/blocks/bulk", Some(body)).await
}

async fn blocked(bed: &Bed) -> usize {
    let (_, page) = bed.api(Method::GET, "/api/v1/blocks?limit=1000", None).await;
    page["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn many_networks_are_blocked_and_unblocked_as_one_change() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let (status, _) = bed
            .api(Method::POST, "/api/v1/blocks", Some(json!({ "target": "198.51.100.1" })))
            .await;
        assert_eq!(status, StatusCode::CREATED);
        let many: Vec<_> = (0..198u32)
            .map(|n| json!({ "target": format!("100.64.{}.{}", n / 250, n % 250), "for": "4h" }))
            .collect();
        let (status, done) =
            bulk(&bed, json!({ "block": many, "unblock": ["198.51.100.1", "192.0.2.9"] })).await;
        assert_eq!(status, StatusCode::OK, "{done}");
        assert_eq!(done["blocked"].as_array().unwrap().len(), 198);
        assert!(done["blocked"].as_array().unwrap().iter().all(|one| one["put"] == "created"));
        let removed = |index: usize| done["unblocked"][index]["removed"].as_array().unwrap().len();
        assert_eq!(
            (removed(0), removed(1)),
            (1, 0),
            "the second was not blocked, which is no error"
        );
        assert_eq!(blocked(&bed).await, 198);
        for replica in &bed.replicas {
            eventually(TEN_TIMES_A_SECOND, "every replica knows", async || {
                (replica.metric("ipwarden_blocked_networks").await == 198).then_some(())
            })
            .await;
        }
        // Each of them is in the audit.
        let (_, audit) = bed.api(Method::GET, "/api/v1/audit?limit=1000", None).await;
        let verbs = |verb: &str| {
            let rows = audit["items"].as_array().unwrap();
            rows.iter().filter(|row| row["action"] == verb).count()
        };
        assert_eq!(verbs("unblock"), 2);
        assert!(verbs("block") == 199, "{}", verbs("block"));
    }
}

#[tokio::test]
async fn one_bad_element_keeps_all_others_from_being_done() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let good = json!({ "target": "203.0.113.1" });
        let cases = [
            (json!({ "block": [good, { "target": "127.0.0.1" }] }), 409, "block[1].target"),
            (json!({ "block": [good, { "target": "example.org" }] }), 422, "block[1].target"),
            (
                json!({ "block": [good, { "target": "203.0.113.2", "for": "soon" }] }),
                422,
                "block[1].for",
            ),
            (json!({ "block": [good, good] }), 422, "block[1].target"),
            (json!({ "block": [good], "unblock": ["203.0.113.1"] }), 422, "unblock[0]"),
            (json!({ "block": [good], "unblock": ["x"] }), 422, "unblock[0]"),
            (json!({ "block": [good, { "target": 5 }] }), 400, "block[1].target"),
            (json!({ "block": [good, { "colour": "red" }] }), 400, "block[1]"),
            (json!({ "block": [good, ["203.0.113.2", null, null, false]] }), 400, "block[1]"),
            (json!({ "block": [good, null] }), 400, "block[1]"),
            (json!({ "block": good }), 400, "block"),
            (json!({ "unblock": [5] }), 400, "unblock[0]"),
            (json!({}), 422, "body"),
            (json!({ "unblock": vec!["203.0.113.1"; 201] }), 422, "body"),
            (json!({ "blocks": [good] }), 400, "blocks"),
        ];
        for (body, status, named) in cases {
            let shown: String = body.to_string().chars().take(120).collect();
            let (answered, problem) = bulk(&bed, body).await;
            assert_eq!(answered.as_u16(), status, "{shown}: {problem}");
            let field = problem["errors"][0]["field"].as_str().unwrap();
            assert!(field.starts_with(named), "{shown}: {problem}");
            assert_eq!(blocked(&bed).await, 0, "{shown}");
        }
        let twice = json!({ "block": [{ "target": "127.0.0.1" }, good, { "target": "::1" }] });
        let (_, refused) = bulk(&bed, twice).await;
        insta::assert_json_snapshot!("bulk_refused", refused);
        let forced = json!({ "block": [{ "target": "127.0.0.1", "force": true }, good] });
        let (status, done) = bulk(&bed, forced).await;
        assert_eq!(status, StatusCode::OK, "{done}");
        assert_eq!(done["blocked"][0]["notices"].as_array().unwrap().len(), 1, "{done}");
    }
}
