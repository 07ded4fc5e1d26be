//! Forward-auth, as Traefik and Caddy, nginx, and Envoy ask.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

use ipwarden_core::db::request_logs::Logged;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use super::common::{Bed, Launch, PATIENCE, Replica, eventually, field, left};

/// Who asks how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Traefik,
    Nginx,
    Envoy,
}

use Asks::{Envoy, Nginx, Traefik};

impl Asks {
    /// A question about a request.
    fn about(self, replica: &Replica, method: Method, uri: &str) -> RequestBuilder {
        match self {
            Traefik => replica
                .question(Method::GET, "/v1/forward-auth")
                .header("x-forwarded-method", method.as_str())
                .header("x-forwarded-uri", uri),
            Nginx => replica
                .question(Method::GET, "/v1/forward-auth/nginx")
                .header("x-original-method", method.as_str())
                .header("x-original-uri", uri),
            Envoy => replica.question(method, &format!("/v1/ext-authz{uri}")),
        }
    }

    async fn get(self, replica: &Replica, client: &str, uri: &str) -> Response {
        let question = self.about(replica, Method::GET, uri).header("x-forwarded-for", client);
        question.send().await.unwrap()
    }

    /// The true status of an answer.
    fn status(self, answer: &Response) -> u16 {
        let status = answer.status().as_u16();
        if self != Nginx {
            assert!(!answer.headers().contains_key("x-ipwarden-status"));
            return status;
        }
        let told = field(answer, "x-ipwarden-status").parse().unwrap();
        assert_eq!(status, if told == 200 { 200 } else { 403 });
        told
    }
}

async fn bed() -> Bed {
    Bed::embedded(Launch::default().behind_proxies()).await
}

async fn only_record(bed: &Bed) -> Logged {
    bed.logs(1).await;
    bed.records().await.pop().unwrap()
}

#[rstest]
#[tokio::test]
async fn five_are_let_through_and_the_sixth_is_429_and_all_are_in_the_log(
    #[values(Traefik, Nginx, Envoy)] asks: Asks,
) {
    let bed = bed().await;
    for remaining in (0..5).rev() {
        let answer = asks.get(bed.first(), "192.0.2.7", "/shop?token=secret").await;
        assert_eq!((asks.status(&answer), left(&answer)), (200, Some(remaining)));
        assert_eq!(field(&answer, "x-ipwarden-verdict"), "allowed");
        assert_eq!(field(&answer, "x-ipwarden-client-ip"), "192.0.2.7");
        assert_eq!(field(&answer, "x-ipwarden-reference").len(), 12);
        assert_eq!(field(&answer, "ratelimit-policy"), r#""anonymous";q=5;w=60"#);
        assert_eq!(field(&answer, "cache-control"), "no-store");
        assert!(!answer.headers().contains_key("location"));
        assert_eq!(answer.text().await.unwrap(), "");
    }
    let answer = asks.get(bed.first(), "192.0.2.7", "/shop?token=secret").await;
    assert_eq!((asks.status(&answer), left(&answer)), (429, Some(0)));
    assert_eq!(field(&answer, "x-ipwarden-verdict"), "throttled");
    assert_eq!(field(&answer, "content-type"), "application/problem+json");
    let retry_after = field(&answer, "retry-after").to_owned();
    assert!((1..=60).contains(&retry_after.parse::<u32>().unwrap()), "{retry_after}");
    let (reference, told) = (
        field(&answer, "x-ipwarden-reference").to_owned(),
        field(&answer, "x-ipwarden-problem").to_owned(),
    );
    let body = answer.text().await.unwrap();
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["violated-policies"], json!(["anonymous"]));
    assert_eq!(problem["reference"], reference);
    assert_eq!(told, if asks == Nginx { body } else { String::new() });

    bed.logs(6).await;
    let mut records = bed.records().await;
    records.sort_by_key(|record| record.status);
    let last = records.pop().unwrap();
    assert_eq!((last.status, last.reference.as_deref()), (429, Some(reference.as_str())));
    for record in records.iter().chain([&last]) {
        assert_eq!((record.method.as_str(), record.path.as_str()), ("GET", "/shop"));
        assert_eq!(record.address.to_string(), "192.0.2.7");
    }
    assert!(records.iter().all(|record| record.status == 200));
}

#[rstest]
#[tokio::test]
async fn a_blocked_address_is_403_and_an_allowed_one_has_no_quota(
    #[values(Traefik, Nginx, Envoy)] asks: Asks,
) {
    let bed = bed().await;
    for (list, target) in [("allows", "192.0.2.77"), ("blocks", "192.0.2.66")] {
        let entry = json!({ "target": target });
        let (status, said) = bed.api(Method::POST, &format!("/api/v1/{list}"), Some(entry)).await;
        assert_eq!(status, StatusCode::CREATED, "{said}");
    }
    let (answer, _) = eventually(PATIENCE, "the block counts", async || {
        let answer = asks.get(bed.first(), "192.0.2.66", "/").await;
        (asks.status(&answer) == 403).then_some(answer)
    })
    .await;
    assert_eq!(field(&answer, "x-ipwarden-verdict"), "blocked");
    assert!(!answer.headers().contains_key("ratelimit"));
    assert!(!answer.headers().contains_key("retry-after"));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["title"]), (&json!(403), &json!("Forbidden")));
    for _ in 0..20 {
        let answer = asks.get(bed.first(), "192.0.2.77", "/").await;
        assert_eq!((asks.status(&answer), left(&answer)), (200, None));
    }
}

#[rstest]
#[tokio::test]
async fn the_record_is_of_the_original_request(#[values(Traefik, Nginx, Envoy)] asks: Asks) {
    let bed = bed().await;
    let question = asks
        .about(bed.first(), Method::DELETE, "/%61dmin/x?rd=https://other.example.test/")
        .header("x-forwarded-for", "192.0.2.7")
        .header("user-agent", "curious/1");
    assert_eq!(asks.status(&question.send().await.unwrap()), 200);
    let record = only_record(&bed).await;
    assert_eq!((record.method.as_str(), record.path.as_str()), ("DELETE", "/%61dmin/x"));
    assert_eq!((record.sensitive, record.status), (true, 200));
    assert_eq!(record.user_agent.as_deref(), Some("curious/1"));
}

#[rstest]
#[case::traefik(Traefik, "/v1/forward-auth")]
#[case::nginx(Nginx, "/v1/forward-auth/nginx")]
#[case::envoy(Envoy, "/v1/ext-authz/")]
#[tokio::test]
async fn from_anybody_but_a_trusted_proxy_nothing_is_judged_or_recorded(
    #[case] asks: Asks,
    #[case] path: &str,
) {
    let launch = Launch::default()
        .with("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "192.0.2.0/24")
        .with("IPWARDEN_IDENTITY__HEADER", "X-User");
    let bed = Bed::embedded(launch).await;
    for _ in 0..7 {
        let question = asks.about(bed.first(), Method::GET, "/").header("x-user", "ada");
        let answer = question.header("x-forwarded-for", "192.0.2.7").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        for name in ["verdict", "client-ip", "status", "reference", "pass"] {
            assert!(!answer.headers().contains_key(format!("x-ipwarden-{name}")), "{name}");
        }
        assert!(answer.text().await.unwrap().contains("client_ip.trusted_proxies"));
    }
    // Nor is he told what his question lacks.
    let answer = bed.first().question(Method::GET, path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    bed.logs(0).await;
    // The quota of whoever asked is whole.
    let answer = bed.first().request(Method::GET, "/").send().await.unwrap();
    assert_eq!(left(&answer), Some(4));
}

#[rstest]
#[case::uri(Traefik, "x-forwarded-uri")]
#[case::method(Traefik, "x-forwarded-method")]
#[case::nginx_uri(Nginx, "x-original-uri")]
#[case::nginx_method(Nginx, "x-original-method")]
#[tokio::test]
async fn a_second_original_uri_or_method_is_refused(#[case] asks: Asks, #[case] name: &str) {
    let bed = bed().await;
    let twice = asks.about(bed.first(), Method::GET, "/").header(name, "GET");
    let answer = twice.send().await.unwrap();
    assert_eq!(asks.status(&answer), 400);
    assert_eq!(field(&answer, "content-type"), "application/problem+json");
    let told = field(&answer, "x-ipwarden-problem").to_owned();
    let body = answer.text().await.unwrap();
    assert_eq!(told, if asks == Nginx { body.clone() } else { String::new() });
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert!(problem["errors"][0]["field"].as_str().unwrap().eq_ignore_ascii_case(name));
    bed.logs(0).await;
}

#[rstest]
#[tokio::test]
async fn any_method_may_ask_and_no_query_is_an_option(
    #[values("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND")] method: &str,
) {
    let bed = bed().await;
    let path = "/v1/forward-auth?uri=/never&method=PUT&rd=https://other.example.test/&redirect=/x";
    let question = bed.first().question(method.parse().unwrap(), path);
    let question = question.header("x-forwarded-method", "GET").header("x-forwarded-uri", "/a");
    let answer = question.header("x-forwarded-for", "192.0.2.7").send().await.unwrap();
    assert_eq!((answer.status(), field(&answer, "location")), (StatusCode::OK, ""));
    let record = only_record(&bed).await;
    assert_eq!((record.method.as_str(), record.path.as_str()), ("GET", "/a"));
}

#[rstest]
#[tokio::test]
async fn a_user_whom_the_proxy_names_has_the_authenticated_quota_wherever_he_is(
    #[values(Traefik, Nginx, Envoy)] asks: Asks,
) {
    let launch = Launch::default().behind_proxies().with("IPWARDEN_IDENTITY__HEADER", "X-User");
    let bed = Bed::embedded(launch).await;
    for remaining in (0..10).rev() {
        let question = asks.about(bed.first(), Method::GET, "/").header("x-user", "ada");
        let question = question.header("x-forwarded-for", format!("192.0.2.{remaining}"));
        let answer = question.send().await.unwrap();
        assert_eq!((asks.status(&answer), left(&answer)), (200, Some(remaining)));
        assert_eq!(field(&answer, "ratelimit-policy"), r#""authenticated";q=10;w=60"#);
    }
    let question = asks.about(bed.first(), Method::GET, "/").header("x-user", "ada");
    let question = question.header("x-forwarded-for", "192.0.2.7");
    assert_eq!(asks.status(&question.send().await.unwrap()), 429);
    // Whoever is named twice, or by nothing, is anonymous.
    for names in [&["ada", "eve"][..], &["  "], &[]] {
        let mut question = asks.about(bed.first(), Method::GET, "/");
        for name in names {
            question = question.header("x-user", *name);
        }
        let answer = question.header("x-forwarded-for", "192.0.2.99").send().await.unwrap();
        assert_eq!(field(&answer, "ratelimit-policy"), r#""anonymous";q=5;w=60"#, "{names:?}");
    }
    // On the public listener the header is nobody's word.
    let request = bed.first().request(Method::GET, "/").header("x-user", "ada");
    let answer = request.header("x-forwarded-for", "192.0.2.98").send().await.unwrap();
    assert_eq!(field(&answer, "ratelimit-policy"), r#""anonymous";q=5;w=60"#);
    bed.logs(15).await;
    let named = bed.records().await.into_iter().filter_map(|record| record.identity);
    assert!(named.collect::<Vec<_>>().iter().all(|identity| identity == "proxy:ada"));
}

#[tokio::test]
async fn a_browser_that_is_refused_gets_a_page_from_whom_the_body_passes() {
    let bed = bed().await;
    for _ in 0..5 {
        Traefik.get(bed.first(), "192.0.2.7", "/").await;
    }
    for (asks, kind) in [(Traefik, "text/html; charset=utf-8"), (Nginx, "application/problem+json")]
    {
        let question = asks.about(bed.first(), Method::GET, "/").header("accept", "text/html");
        let answer = question.header("x-forwarded-for", "192.0.2.7").send().await.unwrap();
        assert_eq!((asks.status(&answer), field(&answer, "content-type")), (429, kind));
    }
}

#[tokio::test]
async fn one_client_has_one_quota_however_it_comes() {
    let bed = bed().await;
    for (asks, remaining) in [(Traefik, 4), (Nginx, 3), (Envoy, 2)] {
        let answer = asks.get(bed.first(), "192.0.2.7", "/").await;
        assert_eq!(left(&answer), Some(remaining), "{asks:?}");
    }
    assert_eq!(left(&bed.first().get("192.0.2.7", "/").await), Some(1));
}
