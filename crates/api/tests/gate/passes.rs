//! Passes: one request, one unit, one record, also when it passes the gate and then a wrapped application. The
//! application is the public listener of the same service.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use super::common::{Bed, Launch, field, left};

const SECRET: &str = "a secret that the gate and the application share";
const PASS: &str = "x-ipwarden-pass";
const CLIENT: &str = "192.0.2.7";

async fn bed() -> Bed {
    let launch = Launch::default()
        .with("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "127.0.0.1")
        .with("IPWARDEN_IDENTITY__HEADER", "X-User")
        .with("IPWARDEN_GATE__PASS_SECRET", SECRET);
    Bed::embedded(launch).await
}

/// What the gate says about a request of a client.
async fn asked(bed: &Bed, client: &str, method: &Method, uri: &str) -> Response {
    let question = bed.first().question(Method::GET, "/v1/forward-auth");
    let question = question.header("x-forwarded-method", method.as_str());
    let question = question.header("x-forwarded-uri", uri).header("x-forwarded-for", client);
    question.send().await.unwrap()
}

async fn pass(bed: &Bed, client: &str, method: &Method, uri: &str) -> String {
    let answer = asked(bed, client, method, uri).await;
    assert_eq!(answer.status(), StatusCode::OK);
    field(&answer, PASS).to_owned()
}

/// What the application answers to the same request, as the proxy sends it on.
async fn sent(bed: &Bed, client: &str, method: Method, uri: &str, passes: &[&str]) -> Response {
    let mut request = bed.first().request(method, uri).header("x-forwarded-for", client);
    for pass in passes {
        request = request.header(PASS, *pass);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_request_that_passes_gate_and_application_is_one_unit_and_one_record() {
    let bed = bed().await;
    for remaining in (0..5).rev() {
        let uri = format!("/?item={remaining}&q=%20");
        let admitted = asked(&bed, CLIENT, &Method::GET, &uri).await;
        let pass = field(&admitted, PASS);
        assert!(pass.starts_with("v1."), "{pass}");
        let answer = sent(&bed, CLIENT, Method::GET, &uri, &[pass]).await;
        assert_eq!((answer.status(), left(&answer)), (StatusCode::OK, Some(remaining)));
        for name in ["x-ipwarden-reference", "ratelimit-policy", "ratelimit"] {
            assert_eq!(field(&answer, name), field(&admitted, name), "{name}");
        }
        let who: Value = answer.json().await.unwrap();
        assert_eq!(
            (&who["address"], &who["quota"]["remaining"]),
            (&CLIENT.into(), &remaining.into())
        );
    }
    let refused = asked(&bed, CLIENT, &Method::GET, "/").await;
    assert_eq!((refused.status(), field(&refused, PASS)), (StatusCode::TOO_MANY_REQUESTS, ""));
    bed.logs(6).await;
    // A request without a pass is counted as ever.
    assert_eq!(sent(&bed, CLIENT, Method::GET, "/", &[]).await.status(), 429);
    bed.logs(7).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_pass_makes_the_request_an_ordinary_one() {
    let bed = bed().await;
    let get = Method::GET;
    let (first, second) =
        (pass(&bed, CLIENT, &get, "/a?b").await, pass(&bed, CLIENT, &get, "/a?b").await);
    let other = pass(&bed, "192.0.2.8", &get, "/a?b").await;
    let mut tampered = first.clone();
    let last = tampered.pop().unwrap();
    tampered.push(if last == '0' { '1' } else { '0' });
    // Each is counted, so the client is down to its last request soon.
    let ordinary: [(Method, &str, Vec<&str>); 3] = [
        (Method::GET, "/a?b=c", vec![&first]),
        (Method::GET, "/a?b", vec![&tampered, ""]),
        (Method::POST, "/a?b", vec![&first]),
    ];
    for (count, (method, uri, passes)) in ordinary.into_iter().enumerate() {
        let answer = sent(&bed, CLIENT, method, uri, &passes).await;
        assert_eq!(left(&answer), Some(2 - u32::try_from(count).unwrap()), "{uri} {passes:?}");
    }
    for passes in [
        &[tampered.as_str()][..],
        &[&other],
        &["v1"],
        &[""],
        &[&first, &second],
        &["0a1b2c3d-request-id"],
    ] {
        let answer = sent(&bed, CLIENT, Method::GET, "/a?b", passes).await;
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "{passes:?}");
    }
    // None of that has used them up.
    for pass in [&first, &second] {
        let answer = sent(&bed, CLIENT, Method::GET, "/a?b", &[pass]).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let again = sent(&bed, CLIENT, Method::GET, "/a?b", &[pass]).await;
        assert_eq!(again.status(), StatusCode::TOO_MANY_REQUESTS);
    }
    bed.logs(3 + 3 + 6 + 2).await;
}

#[tokio::test]
async fn a_pass_counts_from_trusted_proxies_only() {
    let bed = bed().await;
    let client = "127.0.0.77";
    let pass = pass(&bed, client, &Method::GET, "/").await;
    let stranger = reqwest::Client::builder().local_address("127.0.0.77".parse().ok());
    let stranger = stranger.build().unwrap();
    let ask = || stranger.get(format!("{}/", bed.first().public)).header(PASS, &pass);
    assert_eq!(left(&ask().send().await.unwrap()), Some(3), "counted a second time");
    // The same pass from the proxy counts.
    let answer = sent(&bed, client, Method::GET, "/", &[&pass]).await;
    assert_eq!(left(&answer), Some(4), "as the gate has said");
    bed.logs(2).await;
}

#[tokio::test]
async fn a_pass_tells_that_its_user_was_authenticated() {
    let bed = bed().await;
    let question = bed.first().question(Method::GET, "/v1/ext-authz/").header("x-user", "ada");
    let admitted = question.header("x-forwarded-for", CLIENT).send().await.unwrap();
    let answer = sent(&bed, CLIENT, Method::GET, "/", &[field(&admitted, PASS)]).await;
    assert_eq!(field(&answer, "ratelimit-policy"), r#""authenticated";q=10;w=60"#);
    assert_eq!(answer.json::<Value>().await.unwrap()["authenticated"], true);
    bed.logs(1).await;
    assert_eq!(bed.records().await[0].identity.as_deref(), Some("proxy:ada"));
}

#[tokio::test]
async fn without_a_secret_there_are_no_passes_and_none_counts() {
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let with_secret = self::bed().await;
    let foreign = pass(&with_secret, CLIENT, &Method::GET, "/").await;
    let answer = asked(&bed, CLIENT, &Method::GET, "/").await;
    assert_eq!((answer.status(), field(&answer, PASS)), (StatusCode::OK, ""));
    assert_eq!(left(&sent(&bed, CLIENT, Method::GET, "/", &[&foreign]).await), Some(3));
    bed.logs(2).await;
}

#[tokio::test]
async fn a_restarted_application_takes_no_pass_from_before() {
    let mut bed = bed().await;
    let pass = pass(&bed, CLIENT, &Method::GET, "/").await;
    bed.logs(1).await;
    bed.replicas[0].crash();
    bed.replicas[0].start_again().await;
    let answer = sent(&bed, CLIENT, Method::GET, "/", &[&pass]).await;
    assert_eq!(left(&answer), Some(4), "its own count began anew");
    bed.logs(2).await;
}
