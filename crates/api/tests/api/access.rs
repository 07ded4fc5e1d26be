//! Who may: every route, with every kind of key and without one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use ipwarden_core::keys::{self, Role};
use ipwarden_core::lists::Actor;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch, PATIENCE, Replica, eventually, field, now};

/// A route as `routes.rs` writes it, a request for it, and the role that it takes.
struct Route {
    pattern: &'static str,
    method: Method,
    path: &'static str,
    body: Option<Value>,
    needs: Role,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

fn every_route() -> Vec<Route> {
    let target = || Some(json!({ "target": "192.0.2.77" }));
    let name = || Some(json!({ "name": "made by a test", "role": "user" }));
    let bulk = || Some(json!({ "unblock": ["192.0.2.77"] }));
    let password = || Some(json!({ "password": "correct horse battery" }));
    // Each is another person.
    let person = || {
        let name = format!("made.{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Some(json!({ "name": name, "role": "user", "password": "correct horse battery" }))
    };
    let dismiss = || Some(json!({ "action": "dismiss" }));
    let route = |pattern, method, path, body, needs| Route { pattern, method, path, body, needs };
    let stream = |path| route(path, Method::GET, path, None, Role::Reader);
    vec![
        stream("/request-logs/stream"),
        stream("/changes/stream"),
        route("/blocks", Method::GET, "/blocks", None, Role::Reader),
        route("/blocks", Method::POST, "/blocks", target(), Role::Operator),
        route("/blocks/bulk", Method::POST, "/blocks/bulk", bulk(), Role::Operator),
        route("/blocks/{target:.*}", Method::DELETE, "/blocks/192.0.2.77", None, Role::Operator),
        route("/allows", Method::GET, "/allows", None, Role::Reader),
        route("/allows", Method::POST, "/allows", target(), Role::Operator),
        route("/allows/{target:.*}", Method::DELETE, "/allows/192.0.2.77", None, Role::Operator),
        route("/suspicious", Method::GET, "/suspicious", None, Role::Reader),
        route("/suspicious/{id}", Method::GET, "/suspicious/1", None, Role::Reader),
        route(
            "/suspicious/{id}/review",
            Method::POST,
            "/suspicious/1/review",
            dismiss(),
            Role::Operator,
        ),
        route("/request-logs", Method::GET, "/request-logs", None, Role::Reader),
        route("/scans", Method::GET, "/scans", None, Role::Reader),
        route("/audit", Method::GET, "/audit", None, Role::Reader),
        route("/stats", Method::GET, "/stats", None, Role::Reader),
        route("/check/{target:.*}", Method::GET, "/check/192.0.2.77", None, Role::Reader),
        route("/keys", Method::GET, "/keys", None, Role::Admin),
        route("/keys", Method::POST, "/keys", name(), Role::Admin),
        route("/keys/{id}", Method::DELETE, "/keys/000000000000", None, Role::Admin),
        route("/users", Method::GET, "/users", None, Role::Admin),
        route("/users", Method::POST, "/users", person(), Role::Admin),
        route("/users/{name}", Method::DELETE, "/users/nobody", None, Role::Admin),
        route(
            "/users/{name}/password",
            Method::PUT,
            "/users/nobody/password",
            password(),
            Role::Admin,
        ),
        route("/session", Method::GET, "/session", None, Role::User),
        route("/openapi.json", Method::GET, "/openapi.json", None, Role::Reader),
    ]
}

impl Route {
    async fn ask(&self, replica: &Replica, key: Option<&str>) -> (StatusCode, Value) {
        if self.path.ends_with("/stream") {
            // Its answer has no end.
            let request = reqwest::Client::builder().local_address(Replica::a_stranger()).build();
            let mut request =
                request.unwrap().get(format!("{}/api/v1{}", replica.control, self.path));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            let answer = request.send().await.unwrap();
            return match answer.status() {
                StatusCode::OK => (StatusCode::OK, Value::Null),
                status => (status, answer.json().await.unwrap()),
            };
        }
        let path = format!("/api/v1{}", self.path);
        replica.stranger(self.method.clone(), &path, key, self.body.clone()).await
    }
}

#[test]
fn the_list_of_these_tests_holds_every_route_of_the_api() {
    let source = include_str!("../../src/routes.rs");
    let (_, scope) = source.split_once("scope(\"/api/v1\")").unwrap();
    let (scope, _) =
        scope.split_once(".default_service(web::to(nothing_here_with_a_key))").unwrap();
    let written: BTreeSet<&str> =
        scope.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/')).collect();
    let tested: BTreeSet<&str> = every_route().iter().map(|route| route.pattern).collect();
    assert_eq!(written, tested);
}

#[tokio::test]
async fn without_a_key_that_counts_nothing_is_answered_and_nothing_happens() {
    for bed in Bed::each(|launch| launch).await {
        let revoked = bed.key(Role::Admin).await;
        let id = revoked.split('_').nth(1).unwrap().to_owned();
        let actor = Actor { name: "cli:test".to_owned(), address: None };
        keys::revoke(&bed.db, id.clone(), actor, now()).await.unwrap();
        eventually(PATIENCE, "it is revoked", async || {
            let (status, _) =
                bed.first().stranger(Method::GET, "/api/v1/keys", Some(&revoked), None).await;
            (status == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
        let admin_id = bed.admin.split('_').nth(1).unwrap();
        let secret = "0".repeat(52);
        let wrong = format!("ipw_{admin_id}_{secret}");
        let unknown = format!("ipw_zzzzzzzzzzzz_{secret}");

        let replica = bed.first();
        let before = bed.lists_version().await;
        for route in every_route() {
            let mut answers = BTreeSet::new();
            for key in [None, Some("x"), Some(&wrong), Some(&unknown), Some(&revoked)] {
                let (status, body) = route.ask(replica, key.map(|key: &str| key)).await;
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{} {key:?}", route.path);
                answers.insert(body.to_string());
            }
            assert_eq!(answers.len(), 1, "{}: {answers:#?}", route.path);
        }
        let after = bed.lists_version().await;
        assert_eq!(before, after, "{}: something was changed", bed.size);
        let (_, keys) = bed.api(Method::GET, "/api/v1/keys", None).await;
        assert_eq!(keys["items"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn each_role_may_what_it_includes_and_no_more() {
    for bed in Bed::each(|launch| launch).await {
        for role in Role::ALL {
            let key = bed.key(role).await;
            for route in every_route() {
                let (status, body) = route.ask(bed.first(), Some(&key)).await;
                let may = match (role, route.needs) {
                    (Role::Admin, _) => true,
                    (Role::Operator, needs) => needs != Role::Admin,
                    (Role::Reader, needs) => needs == Role::Reader || needs == Role::User,
                    (Role::User | Role::Bouncer, needs) => needs == Role::User,
                };
                let shown = format!("{role} {} {}: {status} {body}", route.method, route.path);
                assert_eq!(status != StatusCode::FORBIDDEN, may, "{shown}");
                let missing = ["/suspicious/", "/keys/", "/users/"]
                    .iter()
                    .any(|prefix| route.path.starts_with(prefix));
                match (may, missing) {
                    (false, _) => assert!(
                        body["detail"].as_str().unwrap().contains(route.needs.as_str()),
                        "{shown}"
                    ),
                    (true, true) => assert_eq!(status, StatusCode::NOT_FOUND, "{shown}"),
                    (true, false) => assert!(status.is_success(), "{shown}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn whoever_guesses_is_silenced_after_five_wrong_keys() {
    let bed = Bed::embedded(Launch::default()).await;
    let guesser = reqwest::Client::new();
    let url = format!("{}/api/v1/blocks", bed.first().control);
    let mut statuses = Vec::new();
    for guess in 0..200 {
        let key = format!("ipw_zzzzzzzzzzzz_{guess:052}");
        let answer = guesser.get(&url).bearer_auth(key).send().await.unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            let seconds: u32 = field(&answer, "retry-after").parse().unwrap();
            assert!((1..=60).contains(&seconds));
        }
        statuses.push(answer.status());
    }
    let (first, rest) = statuses.split_at(5);
    assert!(first.iter().all(|status| *status == StatusCode::UNAUTHORIZED), "{first:?}");
    assert!(rest.iter().all(|status| *status == StatusCode::TOO_MANY_REQUESTS), "{rest:?}");
    // He would learn which key is right if that one were answered.
    let answer = guesser.get(&url).bearer_auth(&bed.admin).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let (status, _) =
        bed.first().stranger(Method::GET, "/api/v1/blocks", Some(&bed.admin), None).await;
    assert_eq!(status, StatusCode::OK, "others are not silenced");
    assert_eq!(bed.first().open("/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn health_and_figures_are_open_and_say_nothing_about_anybody() {
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    bed.first().get("203.0.113.9", "/secret-path").await;
    let block = json!({ "target": "203.0.113.10" });
    assert_eq!(bed.api(Method::POST, "/api/v1/blocks", Some(block)).await.0, StatusCode::CREATED);
    for path in ["/livez", "/readyz", "/readyz?verbose", "/metrics"] {
        let (status, text) = bed.first().open(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        for hidden in ["203.0.113", "127.0.0", "secret", "ipw_", "/tmp"] {
            assert!(!text.contains(hidden), "{path} shows {hidden}:\n{text}");
        }
    }
}

#[tokio::test]
async fn every_figure_has_a_name_a_type_and_a_number() {
    let bed = Bed::embedded(Launch::default()).await;
    let (_, text) = bed.first().open("/metrics").await;
    let mut figures = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(name.starts_with("ipwarden_") && name.bytes().all(is_name), "{line}");
        assert!(labels.ends_with('}') && value.parse::<f64>().is_ok(), "{line}");
        let family = name.strip_suffix("_total").unwrap_or(name);
        let kind = if family == name { "gauge" } else { "counter" };
        assert!(text.contains(&format!("# TYPE {family} {kind}\n")), "{line}");
        figures += 1;
    }
    assert!(figures >= 20, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn what_is_not_there_is_404_and_another_method_405() {
    let bed = Bed::embedded(Launch::default()).await;
    let (status, problem) = bed.api(Method::GET, "/api/v1/nothing", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    insta::assert_json_snapshot!("no_such_route", problem);
    let (status, problem) = bed.api(Method::PUT, "/api/v1/blocks", None).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    insta::assert_json_snapshot!("other_method", problem);
}

#[tokio::test]
async fn another_method_than_those_of_a_route_is_answered_with_the_right_ones() {
    let bed = Bed::embedded(Launch::default()).await;
    let client = reqwest::Client::new();
    let ask = async |method: Method, path: &str| {
        let request = client.request(method, format!("{}{path}", bed.first().control));
        request.bearer_auth(&bed.admin).send().await.unwrap()
    };
    for route in every_route() {
        let answer = ask(Method::PATCH, &format!("/api/v1{}", route.path)).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{}", route.path);
        let allowed = field(&answer, "allow").to_owned();
        assert!(allowed.split(", ").any(|one| one == route.method.as_str()), "{allowed}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(ask(Method::HEAD, path).await.status(), StatusCode::OK, "{path}");
        let answer = ask(Method::POST, path).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(field(&answer, "allow"), "GET, HEAD");
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_which_routes_there_are() {
    let bed = Bed::embedded(Launch::default()).await;
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/api/v1"),
        (Method::GET, "/api/v1/nothing"),
        (Method::PATCH, "/api/v1/blocks"),
        (Method::GET, "/livez/x"),
        (Method::GET, "/nowhere"),
    ] {
        for key in [None, Some("ipw_zzzzzzzzzzzz_0")] {
            let (status, body) = bed.first().stranger(method.clone(), path, key, None).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}: {body}");
        }
    }
    // A key for something else is a key.
    let user = bed.key(Role::User).await;
    let (status, _) = bed.first().stranger(Method::GET, "/nowhere", Some(&user), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
