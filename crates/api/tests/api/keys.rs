//! Keys are made and revoked, and every replica knows at once.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::common::{Bed, TEN_TIMES_A_SECOND, eventually};

#[tokio::test]
async fn a_key_counts_on_every_replica_and_when_revoked_on_none() {
    for bed in Bed::each(|launch| launch).await {
        let wanted = json!({ "name": "dashboard", "role": "reader" });
        let (status, made) = bed.api(Method::POST, "/api/v1/keys", Some(wanted)).await;
        assert_eq!(status, StatusCode::CREATED);
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        assert!(key.starts_with(&format!("ipw_{id}_")));
        insta::assert_json_snapshot!("key_made", made, {
            ".id" => "[id]", ".key" => "[key]", ".created_at" => "[time]",
            ".created_by" => "[admin]",
        });
        let last = bed.replicas.last().unwrap();
        let answers = async |wanted: StatusCode| {
            let (_, took) = eventually(TEN_TIMES_A_SECOND, "the change arrives", async || {
                let (status, _) =
                    last.stranger(Method::GET, "/api/v1/blocks", Some(key), None).await;
                (status == wanted).then_some(())
            })
            .await;
            eprintln!("{}: {wanted} on another replica after {took:?} (goal 1 s)", bed.size);
        };
        answers(StatusCode::OK).await;

        let (_, all) = bed.api(Method::GET, "/api/v1/keys", None).await;
        assert!(!all.to_string().contains("hash"), "{all}");
        assert!(!all.to_string().contains(key), "{all}");
        assert_eq!(all["items"].as_array().unwrap().len(), 2);

        let path = format!("/api/v1/keys/{id}");
        assert_eq!(bed.api(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
        answers(StatusCode::UNAUTHORIZED).await;
        // It is so already.
        assert_eq!(bed.api(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
        let (_, all) = bed.api(Method::GET, "/api/v1/keys", None).await;
        assert!(all["items"][0]["revoked_at"].is_string(), "{all}");
    }
}
