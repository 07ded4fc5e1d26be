//! The middleware around an application, without a network.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, Error, HttpResponse, web};
use futures_util::FutureExt as _;
use ipwarden_engine::blocklist::{ListEntry, Lists};
use ipwarden_engine::client_ip::ClientIpResolver;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Guard, Identity, Parts};
use ipwarden_engine::quota::Policies;
use ipwarden_engine::rate_limit::{Limiter, LocalOptions, RedisOptions};
use ipwarden_engine::record::{Record, RecordVerdict};
use ipwarden_engine::sensitive_path::SensitivePaths;
use ipwarden_engine::spool::{Spool, SpoolOptions};
use ipwarden_guard::{Admitted, ClientIp, GuardMiddleware};

struct Bed {
    guard: Arc<Guard>,
    _dir: tempfile::TempDir,
}

fn bed(trusted: &[&str]) -> Bed {
    bed_with(trusted, Limiter::local(LocalOptions::default()))
}

fn bed_with(trusted: &[&str], limiter: Limiter) -> Bed {
    let trusted: Vec<_> = trusted.iter().map(|network| network.parse().unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts {
        resolver: ClientIpResolver::new("X-Forwarded-For", &trusted, false).unwrap(),
        policies: Policies::default(),
        limiter,
        sensitive_paths: SensitivePaths::new(&["/admin", "/login"]),
        spool: Spool::open(dir.path(), SpoolOptions::default()).unwrap(),
        ipv6_prefix: 64,
    };
    Bed { guard: Guard::new(parts, Moment::now()), _dir: dir }
}

impl Bed {
    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for segment in self.guard.spool().segments() {
            self.guard.spool().read(segment.id, 0, 10_000, &mut records).unwrap();
        }
        records
    }

    fn block(&self, network: &str, by_scan: bool) {
        let entry = ListEntry { network: network.parse().unwrap(), ends: None, by_scan };
        self.guard.set_lists(Lists::build(1, [entry], []));
    }

    async fn application(
        &self,
    ) -> impl Service<actix_http::Request, Response = ServiceResponse<impl MessageBody>, Error = Error>
    {
        let identify = |request: &actix_web::HttpRequest| {
            let key = request.headers().get("x-key")?.to_str().ok()?;
            assert_ne!(key, "panic", "on purpose");
            Some(Identity::new(key))
        };
        init_service(
            App::new()
                .wrap(GuardMiddleware::new(self.guard.clone()).identify(identify))
                .route("/", web::get().to(|client: ClientIp| async move { client.ip.to_string() }))
                .route(
                    "/quota",
                    web::get().to(|admitted: Admitted| async move {
                        format!("{}", admitted.quota.as_ref().unwrap().taken.remaining)
                    }),
                )
                .route("/panic", web::get().to(panics))
                .route("/broken", web::get().to(breaks))
                .route("/never", web::get().to(std::future::pending::<HttpResponse>))
                .route(
                    "/upgrade",
                    web::get().to(|| async {
                        HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS)
                            .upgrade("echo")
                            .finish()
                    }),
                ),
        )
        .await
    }
}

async fn panics() -> HttpResponse {
    panic!("on purpose")
}

async fn breaks() -> Result<HttpResponse, Error> {
    Err(actix_web::error::ErrorInternalServerError("on purpose"))
}

/// An error that says what it answers, and not what its status is.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("gone")
    }
}

impl actix_web::ResponseError for Gone {
    fn error_response(&self) -> HttpResponse {
        HttpResponse::Gone().body("no more")
    }
}

fn from(peer: &str) -> TestRequest {
    TestRequest::get().peer_addr(SocketAddr::new(peer.parse().unwrap(), 4711))
}

fn header<'a, B>(response: &'a ServiceResponse<B>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn text<B: MessageBody>(response: ServiceResponse<B>) -> String {
    let body = actix_web::test::read_body(response).await;
    String::from_utf8(body.to_vec()).unwrap()
}

#[actix_web::test]
async fn the_fields_count_four_three_two_one_zero_and_the_sixth_is_refused() {
    let bed = bed(&[]);
    let app = bed.application().await;
    for left in (0..5).rev() {
        let response = app.call(from("192.0.2.1").to_request()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "ratelimit-policy"), Some(r#""anonymous";q=5;w=60"#));
        let limit = header(&response, "ratelimit").unwrap();
        assert_eq!(limit, format!(r#""anonymous";r={left};t=60"#));
        assert_eq!(header(&response, "retry-after"), None);
        assert_eq!(header(&response, "x-ipwarden-reference").unwrap().len(), 12);
    }
    let response = app.call(from("192.0.2.1").to_request()).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "retry-after"), Some("60"));
    assert_eq!(header(&response, "ratelimit-policy"), Some(r#""anonymous";q=5;w=60"#));
    assert_eq!(header(&response, "ratelimit"), Some(r#""anonymous";r=0;t=60"#));
    assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
    let reference = header(&response, "x-ipwarden-reference").unwrap().to_owned();
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(body["reference"], reference.as_str());
    insta::assert_json_snapshot!(body, { ".reference" => "[reference]" }, @r#"
    {
      "detail": "The quota of 5 requests per minute is used up. Try again in 60 seconds.",
      "reference": "[reference]",
      "status": 429,
      "title": "Too many requests",
      "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
      "violated-policies": [
        "anonymous"
      ]
    }
    "#);
    let records = bed.records();
    let verdicts: Vec<_> = records.iter().map(|record| record.verdict).collect();
    assert_eq!(verdicts[..5], [RecordVerdict::Allowed; 5]);
    assert_eq!((records[5].verdict, records[5].status), (RecordVerdict::Throttled, 429));
    assert_eq!(records[5].reference.to_string(), reference);
}

#[actix_web::test]
async fn a_blocked_client_gets_403_and_no_quota() {
    let bed = bed(&[]);
    bed.block("192.0.2.0/24", false);
    let app = bed.application().await;
    let response = app.call(from("192.0.2.1").to_request()).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(header(&response, "ratelimit"), None);
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    insta::assert_json_snapshot!(body, { ".reference" => "[reference]" }, @r#"
    {
      "detail": "Requests from this address are not served.",
      "reference": "[reference]",
      "status": 403,
      "title": "Forbidden",
      "type": "about:blank"
    }
    "#);
    bed.block("192.0.2.0/24", true);
    let response = app.call(from("192.0.2.1").to_request()).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(
        body["type"],
        "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
    );
    assert!(bed.records().iter().all(|record| record.verdict == RecordVerdict::Blocked));
}

#[actix_web::test]
async fn a_browser_sees_a_page_that_can_run_nothing() {
    let bed = bed(&[]);
    bed.block("192.0.2.1", false);
    let app = bed.application().await;
    let accept = ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
    let response = app.call(from("192.0.2.1").insert_header(accept).to_request()).await.unwrap();
    assert_eq!(header(&response, "content-type"), Some("text/html; charset=utf-8"));
    let policy = header(&response, "content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let reference = header(&response, "x-ipwarden-reference").unwrap().to_owned();
    assert!(text(response).await.contains(&reference));
}

#[actix_web::test]
async fn a_refusal_is_a_page_only_for_who_prefers_one() {
    let bed = bed(&[]);
    bed.block("192.0.2.1", false);
    let app = bed.application().await;
    for (accept, kind) in [
        ("", "json"),
        ("*/*", "json"),
        ("application/json, text/plain, */*", "json"),
        ("application/json, text/html;q=0.9", "json"),
        ("application/problem+json, text/html", "json"),
        ("text/html;q=0, */*", "json"),
        ("text/html", "html"),
        ("TEXT/HTML ; charset=utf-8 ; Q=0.2", "html"),
        ("text/html, application/json;q=0.9", "html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
    ] {
        let request = from("192.0.2.1").insert_header(("accept", accept)).to_request();
        let response = app.call(request).await.unwrap();
        assert!(header(&response, "content-type").unwrap().contains(kind), "{accept}");
        assert_eq!(header(&response, "vary"), Some("Accept"));
        assert_eq!(header(&response, "cache-control"), Some("no-store"));
    }
}

#[actix_web::test]
async fn every_request_is_recorded_once_however_it_ends() {
    let bed = bed(&["127.0.0.0/8"]);
    let app = bed.application().await;
    let get = |path: &str| from("127.0.0.1").uri(path).to_request();
    app.call(get("/")).await.unwrap();
    app.call(get("/missing?token=secret")).await.unwrap();
    app.call(get("/broken")).await.unwrap();
    app.call(get("/upgrade")).await.unwrap();
    let panicked = std::panic::AssertUnwindSafe(app.call(get("/panic"))).catch_unwind().await;
    assert!(panicked.is_err());
    let unidentified = from("127.0.0.1").uri("/who").insert_header(("x-key", "panic"));
    let panicked = async { app.call(unidentified.to_request()).await };
    assert!(std::panic::AssertUnwindSafe(panicked).catch_unwind().await.is_err());
    // The client goes away while the handler works.
    let mut call = Box::pin(app.call(get("/never")));
    assert!(futures_util::poll!(call.as_mut()).is_pending());
    assert_eq!(bed.records().len(), 6);
    drop(call);
    let seen: Vec<_> =
        bed.records().into_iter().map(|record| (record.path, record.status)).collect();
    let expected = [
        ("/", 200),
        ("/missing", 404),
        ("/broken", 500),
        ("/upgrade", 101),
        ("/panic", 500),
        ("/who", 500),
        ("/never", 499),
    ];
    assert_eq!(seen, expected.map(|(path, status)| (path.to_owned(), status)));
}

#[actix_web::test]
async fn a_target_that_is_no_path_is_recorded_by_what_it_names() {
    let bed = bed(&[]);
    let app = bed.application().await;
    for (method, target) in [
        (Method::CONNECT, "mail.example.test:25"),
        (Method::CONNECT, "user:secret@mail.example.test:25"),
        (Method::OPTIONS, "*"),
        (Method::GET, "http://other.example.test"),
        (Method::GET, "http://user:secret@other.example.test/login?a=b"),
    ] {
        app.call(from("192.0.2.1").method(method).uri(target).to_request()).await.unwrap();
    }
    let paths: Vec<String> = bed.records().into_iter().map(|record| record.path).collect();
    let expected = ["mail.example.test:25", "mail.example.test:25", "*", "/", "/login"];
    assert_eq!(paths, expected);
}

#[actix_web::test]
async fn an_error_of_another_middleware_is_recorded_as_it_is_answered() {
    let bed = bed(&[]);
    let app = init_service(
        App::new()
            .wrap_fn(|_, _| std::future::ready(Err::<ServiceResponse, _>(Gone.into())))
            .wrap(GuardMiddleware::new(bed.guard.clone())),
    )
    .await;
    let error = app.call(from("192.0.2.1").to_request()).await.unwrap_err();
    let answer = error.error_response();
    assert_eq!(answer.status(), 410);
    assert!(answer.headers().contains_key("x-ipwarden-reference"));
    assert_eq!(answer.headers().get("ratelimit").unwrap(), r#""anonymous";r=4;t=60"#);
    assert_eq!(actix_web::body::to_bytes(answer.into_body()).await.unwrap(), "no more");
    let statuses: Vec<u16> = bed.records().iter().map(|record| record.status).collect();
    assert_eq!(statuses, [410]);
}

#[actix_web::test]
async fn a_request_that_is_given_up_while_redis_is_asked_is_recorded() {
    // Whoever connects here is never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap()).parse().unwrap();
    let bed = bed_with(&["127.0.0.1"], Limiter::redis(url, RedisOptions::default()));
    let app = bed.application().await;
    let request = from("127.0.0.1")
        .uri("/admin?token=secret")
        .insert_header(("x-forwarded-for", "192.0.2.7"))
        .insert_header(("x-key", "ada"))
        .insert_header(("user-agent", "hasty"))
        .to_request();
    let mut call = Box::pin(app.call(request));
    assert!(futures_util::poll!(call.as_mut()).is_pending());
    drop(call);
    let records = bed.records();
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.path.as_str(), record.status), ("/admin", 499));
    assert_eq!((record.address.to_string().as_str(), record.sensitive), ("192.0.2.7", true));
    assert_eq!(record.verdict, RecordVerdict::Allowed);
    assert_eq!(record.identity.as_deref(), Some("ada"));
    assert_eq!(record.user_agent.as_deref(), Some("hasty"));
    assert_eq!(bed.guard.counts().allowed, 1);
}

#[actix_web::test]
async fn a_verified_identity_has_ten_and_is_in_the_log() {
    let bed = bed(&[]);
    let app = bed.application().await;
    let request = || from("192.0.2.1").uri("/quota").insert_header(("x-key", "ada")).to_request();
    for left in (0..10).rev() {
        let response = app.call(request()).await.unwrap();
        assert_eq!(header(&response, "ratelimit-policy"), Some(r#""authenticated";q=10;w=60"#));
        assert_eq!(text(response).await, left.to_string());
    }
    assert_eq!(app.call(request()).await.unwrap().status(), 429);
    assert!(bed.records().iter().all(|record| record.identity.as_deref() == Some("ada")));
}

#[actix_web::test]
async fn the_client_address_vectors_hold_through_http() {
    #[derive(serde::Deserialize)]
    struct Vector {
        id: String,
        trusted: Vec<String>,
        peer: String,
        headers: Vec<(String, String)>,
        expect: Option<String>,
    }
    let mut directories = vec!["../engine/tests/vectors".to_owned()];
    directories.extend(std::env::var("IPWARDEN_VECTORS"));
    let (mut failed, mut tried) = (Vec::new(), 0);
    for directory in directories {
        let Ok(lines) = std::fs::read_to_string(format!("{directory}/client_ip.jsonl")) else {
            continue;
        };
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let vector: Vector = serde_json::from_str(line).unwrap();
            // What is refused at start never serves, and HTTP carries no other header values.
            let Some(expect) = vector.expect else { continue };
            let Ok(peer) = vector.peer.split('%').next().unwrap_or_default().parse() else {
                continue;
            };
            let mut request = TestRequest::get().peer_addr(SocketAddr::new(peer, 4711));
            let mut carried = true;
            for (name, value) in &vector.headers {
                match actix_web::http::header::HeaderValue::from_bytes(value.as_bytes()) {
                    Ok(value) => request = request.append_header((name.as_str(), value)),
                    Err(_) => carried = false,
                }
            }
            if !carried {
                continue;
            }
            tried += 1;
            let trusted: Vec<&str> = vector.trusted.iter().map(String::as_str).collect();
            let bed = bed(&trusted);
            let app = bed.application().await;
            let answer = text(app.call(request.to_request()).await.unwrap()).await;
            let recorded = bed.records()[0].address.to_string();
            if answer != expect || recorded != expect {
                failed.push(format!("{}: {answer}, recorded {recorded}, not {expect}", vector.id));
            }
        }
    }
    assert!(tried >= 70, "only {tried} vectors were tried");
    assert!(failed.is_empty(), "{failed:#?}");
}
