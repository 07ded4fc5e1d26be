//! The circle: hammer, scan, review, block, refused; unblocked, served again.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::{Bed, Launch, TEN_TIMES_A_SECOND, eventually, field, now};
use ipwarden_core::keys::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Who hammers (RFC 5737).
const CLIENT: &str = "203.0.113.7";
const HAMMERED: usize = 120;

#[tokio::test]
async fn the_circle_closes_embedded() {
    let places = tempfile::tempdir().unwrap();
    let bed = Bed::embedded(settings(Launch::default(), places.path())).await;
    the_circle_closes(&bed).await;
}

#[tokio::test]
async fn the_circle_closes_in_a_fleet() {
    let places = tempfile::tempdir().unwrap();
    let bed = Bed::fleet(3, |launch| settings(launch, places.path())).await;
    the_circle_closes(&bed).await;
}

fn settings(launch: Launch, places: &Path) -> Launch {
    let city = [("203.0.113.0/24", "NL", "Utrecht")];
    ipwarden_testbed::geo::write_city(&places.join("city.mmdb"), &city).unwrap();
    launch.behind_proxies().with("IPWARDEN_GEO__FILES", places.to_str().unwrap())
}

async fn the_circle_closes(bed: &Bed) {
    let (operator, user) = (bed.key(Role::Operator).await, bed.key(Role::User).await);
    let mut sent = 0;
    let began = now();

    // It hammers all replicas, and is throttled over all of them.
    let mut admitted = 0;
    for replica in bed.replicas.iter().cycle().take(HAMMERED) {
        sent += 1;
        match replica.get(CLIENT, "/").await.status() {
            StatusCode::OK => admitted += 1,
            status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
        }
    }
    assert_eq!(admitted, 5, "of {HAMMERED} within a minute");

    // It is recorded, with its place.
    let took = bed.logs(sent).await;
    eprintln!("{}: the log was complete after {took:?} (goal 1 s)", bed.size);
    let records = bed.records().await;
    let verdicts = |verdict| records.iter().filter(|row| row.verdict == verdict).count();
    assert_eq!((verdicts("allowed"), verdicts("throttled")), (5, HAMMERED - 5));
    for row in &records {
        assert_eq!((row.address.to_string().as_str(), row.path.as_str()), (CLIENT, "/"));
        let place = (row.country.as_deref(), row.city.as_deref());
        assert_eq!(place, (Some("NL"), Some("Utrecht")));
    }

    // The scan finds it, once the hour has ended.
    bed.scan(began).await;
    let (status, found) = as_operator(bed, &operator, Method::GET, "", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
    let finding = &found["items"][0];
    assert_eq!(finding["address"], CLIENT);
    assert_eq!((&finding["rule"], &finding["hits"]), (&json!("volume"), &json!(HAMMERED)));

    // An operator blocks it, on every replica.
    let path = format!("/{}/review", finding["id"]);
    let judgement = json!({ "action": "block", "for": "4h" });
    let (status, reviewed) =
        as_operator(bed, &operator, Method::POST, &path, Some(judgement)).await;
    assert_eq!(status, StatusCode::OK, "{reviewed}");
    assert_eq!((&reviewed["status"], &reviewed["already"]), (&json!("blocked"), &json!(false)));
    let (_, took) = eventually(TEN_TIMES_A_SECOND, "every replica refuses", async || {
        let mut refused = true;
        for replica in &bed.replicas {
            sent += 1;
            refused &= replica.get(CLIENT, "/").await.status() == StatusCode::FORBIDDEN;
        }
        refused.then_some(())
    })
    .await;
    eprintln!("{}: blocked on every replica after {took:?} (goal 1 s)", bed.size);
    for replica in &bed.replicas {
        let answer = replica.get(CLIENT, "/elsewhere").await;
        sent += 1;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(field(&answer, "content-type"), "application/problem+json");
        let reference = field(&answer, "x-ipwarden-reference").to_owned();
        let problem: Value = answer.json().await.unwrap();
        let kind = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected";
        assert_eq!((&problem["type"], &problem["reference"]), (&json!(kind), &json!(reference)));
        // Whoever he says he is, and nobody else.
        assert_eq!(replica.get_as(&user, CLIENT).await.status(), StatusCode::FORBIDDEN);
        sent += 1;
    }
    assert_eq!(bed.first().get("203.0.113.8", "/").await.status(), StatusCode::OK);
    sent += 1;

    // It is unblocked, and served again everywhere. Its own quota is used up; the key's is not.
    let path = format!("/api/v1/blocks/{CLIENT}");
    let (status, removal) = bed.first().control(Method::DELETE, &path, Some(&operator), None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(removal["removed"].as_array().unwrap().len(), 1, "{removal}");
    let (_, took) = eventually(TEN_TIMES_A_SECOND, "nobody refuses any more", async || {
        let mut passes = true;
        for replica in &bed.replicas {
            sent += 1;
            passes &= replica.get(CLIENT, "/").await.status() != StatusCode::FORBIDDEN;
        }
        passes.then_some(())
    })
    .await;
    eprintln!("{}: unblocked on every replica after {took:?} (goal 1 s)", bed.size);
    for replica in &bed.replicas {
        assert_eq!(replica.get_as(&user, CLIENT).await.status(), StatusCode::OK);
        sent += 1;
    }

    // Every request is in the log, once.
    bed.logs(sent).await;
}

async fn as_operator(
    bed: &Bed,
    key: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let path = format!("/api/v1/suspicious{path}");
    bed.first().control(method, &path, Some(key), body).await
}
