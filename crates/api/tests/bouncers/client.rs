//! A bouncer by hand.

use std::process::Command;

use ipwarden_core::keys::Role;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::common::{Bed, Replica, TEN_TIMES_A_SECOND, eventually};

/// One that has a key.
#[derive(Debug)]
pub(crate) struct Bouncer {
    pub(crate) key: String,
    client: reqwest::Client,
}

/// What a pull told: values, each with the rest of its decision.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) new: Vec<Value>,
    pub(crate) deleted: Vec<Value>,
}

impl Bouncer {
    pub(crate) async fn of(bed: &Bed) -> Bouncer {
        Bouncer::with(bed.key(Role::Bouncer).await)
    }

    pub(crate) fn with(key: String) -> Bouncer {
        let client = reqwest::Client::builder().user_agent("test-bouncer/v1.2").build().unwrap();
        Bouncer { key, client }
    }

    pub(crate) async fn asks(&self, replica: &Replica, method: Method, path: &str) -> Response {
        let request = self.client.request(method, format!("{}{path}", replica.gate));
        request.header("x-api-key", &self.key).send().await.unwrap()
    }

    /// The text of an answer of 200.
    pub(crate) async fn text(&self, replica: &Replica, path: &str) -> String {
        let answer = self.asks(replica, Method::GET, path).await;
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    /// The decisions about a query of `/v1/decisions`.
    pub(crate) async fn decisions(&self, replica: &Replica, query: &str) -> Vec<Value> {
        let text = self.text(replica, &format!("/v1/decisions?{query}")).await;
        let decisions: Option<Vec<Value>> = serde_json::from_str(&text).unwrap();
        decisions.unwrap_or_default()
    }

    /// A pull.
    pub(crate) async fn pulls(&self, replica: &Replica, query: &str) -> Told {
        let text = self.text(replica, &format!("/v1/decisions/stream?{query}")).await;
        let told: Value = serde_json::from_str(&text).unwrap();
        let part = |name: &str| match &told[name] {
            Value::Null => Vec::new(),
            Value::Array(decisions) => {
                assert!(!decisions.is_empty(), "some fail on an empty array: {text}");
                decisions.clone()
            }
            other => panic!("{name}: {other}"),
        };
        Told { new: part("new"), deleted: part("deleted") }
    }
}

/// The values of decisions, sorted.
pub(crate) fn values(decisions: &[Value]) -> Vec<&str> {
    let mut values: Vec<_> = decisions.iter().map(|one| one["value"].as_str().unwrap()).collect();
    values.sort_unstable();
    values
}

/// Blocks through the API.
pub(crate) async fn block(bed: &Bed, target: &str, term: &str) {
    let body = json!({ "target": target, "for": term, "reason": "scraping" });
    let (status, answer) = bed.api(Method::POST, "/api/v1/blocks", Some(body)).await;
    assert!(status.is_success(), "{answer}");
}

/// Allows through the API.
pub(crate) async fn allow(bed: &Bed, target: &str) {
    let (status, answer) =
        bed.api(Method::POST, "/api/v1/allows", Some(json!({ "target": target }))).await;
    assert!(status.is_success(), "{answer}");
}

/// Waits until look-ups of this address find a decision, or none.
pub(crate) async fn found(bouncer: &Bouncer, replica: &Replica, ip: &str, any: bool) {
    eventually(TEN_TIMES_A_SECOND, "a change is live", async || {
        let decisions = bouncer.decisions(replica, &format!("ip={ip}")).await;
        (decisions.is_empty() != any).then_some(())
    })
    .await;
}

/// Runs `ipctl` on the store of an embedded `api`, and expects success.
pub(crate) fn ipctl(replica: &Replica, arguments: &[&str]) -> String {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_api")).with_file_name("ipctl");
    assert!(program.exists(), "no {}: cargo build -p ipwarden-ipctl", program.display());
    let store = format!("sqlite://{}", replica.data().join("ipwarden.db").display());
    let ran = Command::new(program)
        .args(arguments)
        .current_dir(replica.dir())
        .env_clear()
        .env("DATABASE_URL", store)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{arguments:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}
