//! Real proxies, set up by their recipes in `deploy/`, in front of a small backend: what a client sees from
//! outside, and what the log holds. `docs/PROXIES.md` says what each of them does.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod backend;
#[path = "../common/mod.rs"]
mod common;

use std::net::SocketAddr;

use ipwarden_core::db::request_logs::Logged;
use ipwarden_testbed::front::Proxy::{self, Caddy, Envoy, EnvoyGrpc, Haproxy, Nginx, Traefik};
use ipwarden_testbed::front::{Choice, Front};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use self::backend::{BODY, Backend};
use self::common::{Bed, Launch, PATIENCE, eventually, field, left};

/// The proxy asks from 127.0.0.1, browsers come from elsewhere.
const TRUSTED: &str = "127.0.0.1";

/// Somebody who looks whether the proxy has read its configuration.
const PROBE: &str = "127.0.0.99";

struct Site {
    front: Front,
    bed: Bed,
}

impl Site {
    /// A proxy in front of a backend; it has ipwarden judge each request.
    async fn new(proxy: Proxy, backend: SocketAddr, settings: impl Fn(Launch) -> Launch) -> Site {
        Site::choosing(Choice::Recipes, proxy, backend, settings).await
    }

    async fn choosing(
        choice: Choice,
        proxy: Proxy,
        backend: SocketAddr,
        settings: impl Fn(Launch) -> Launch,
    ) -> Site {
        let launch = Launch::default()
            .with("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", TRUSTED)
            .with("IPWARDEN_GATE__GRPC_BIND", "127.0.0.1:0");
        let bed = Bed::embedded(settings(launch)).await;
        let gate = match proxy {
            EnvoyGrpc => bed.first().announced("grpc"),
            _ => bed.first().gate.clone(),
        };
        let gate = gate.strip_prefix("http://").unwrap().parse().unwrap();
        let start = move || proxy.start(backend, gate, choice);
        let front = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
        let (site, probe) = (Site { front, bed }, browser(PROBE));
        eventually(PATIENCE, "the proxy sends requests on", async || {
            let answer = site.request(&probe, Method::GET, "/").send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        site.bed.logs(1).await;
        site
    }

    /// What is in the log besides the probe, when it is complete.
    async fn records(&self, count: usize) -> Vec<Logged> {
        self.bed.logs(count + 1).await;
        let mut records = self.bed.records().await;
        records.retain(|record| record.address.to_string() != PROBE);
        assert_eq!(records.len(), count);
        records
    }

    fn request(&self, browser: &Client, method: Method, path: &str) -> RequestBuilder {
        browser.request(method, format!("http://{}{path}", self.front.address()))
    }

    async fn get(&self, browser: &Client, path: &str) -> Response {
        let answer = self.request(browser, Method::GET, path).send().await.unwrap();
        assert_ne!(answer.status(), 500, "{}", self.front.log().unwrap());
        answer
    }

    async fn list(&self, list: &str, target: &str) {
        let entry = json!({ "target": target, "force": true });
        let path = format!("/api/v1/{list}");
        let (status, said) = self.bed.api(Method::POST, &path, Some(entry)).await;
        assert_eq!(status, StatusCode::CREATED, "{said}");
    }
}

/// Somebody at this address.
fn browser(address: &str) -> Client {
    let client = Client::builder().local_address(address.parse().ok()).user_agent("browser/1");
    client.no_proxy().build().unwrap()
}

fn keep(launch: Launch) -> Launch {
    launch
}

#[rstest]
#[tokio::test]
async fn five_pass_the_sixth_is_429_and_the_log_shows_the_browser(
    #[values(Nginx, Traefik, Caddy, Envoy, EnvoyGrpc, Haproxy)] proxy: Proxy,
) {
    let backend = Backend::start();
    let site = Site::new(proxy, backend.address(), keep).await;
    let (ada, probes) = (browser("127.0.0.77"), backend.count());
    let posted = site.request(&ada, Method::POST, "/shop?item=1").body("x".repeat(20_000));
    let posted = posted.send().await.unwrap();
    assert_eq!(posted.status(), 200);
    assert_eq!(posted.text().await.unwrap(), BODY);
    assert_eq!(backend.last(), (Method::POST, "/shop?item=1".to_owned(), 20_000));
    for _ in 0..4 {
        let answer = site.get(&ada, "/shop?item=1").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), BODY);
    }
    let answer = site.get(&ada, "/shop?item=1").await;
    assert_eq!((answer.status(), left(&answer)), (StatusCode::TOO_MANY_REQUESTS, Some(0)));
    assert_eq!(field(&answer, "content-type"), "application/problem+json");
    assert_eq!(field(&answer, "ratelimit-policy"), r#""anonymous";q=5;w=60"#);
    assert!((1..=60).contains(&field(&answer, "retry-after").parse::<u32>().unwrap()));
    let reference = field(&answer, "x-ipwarden-reference").to_owned();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["reference"]), (&json!(429), &json!(reference)));
    assert_eq!(backend.count() - probes, 5);

    let records = site.records(6).await;
    for record in &records {
        assert_eq!(record.address.to_string(), "127.0.0.77");
        assert_eq!(
            (record.path.as_str(), record.user_agent.as_deref()),
            ("/shop", Some("browser/1"))
        );
    }
    assert_eq!(records.iter().filter(|record| record.method == "POST").count(), 1);
    assert_eq!(records.iter().filter(|record| record.status == 429).count(), 1);
}

#[rstest]
#[tokio::test]
async fn a_blocked_browser_is_403_and_a_403_of_the_backend_stays_its_own(
    #[values(Nginx, Traefik, Caddy, Envoy, EnvoyGrpc, Haproxy)] proxy: Proxy,
) {
    let backend = Backend::start();
    let site = Site::new(proxy, backend.address(), keep).await;
    site.list("allows", "127.0.0.78").await;
    site.list("blocks", "127.0.0.79").await;
    let (eve, ada) = (browser("127.0.0.79"), browser("127.0.0.78"));
    let (answer, _) = eventually(PATIENCE, "the block counts", async || {
        let answer = site.get(&eve, "/").await;
        (answer.status() == 403).then_some(answer)
    })
    .await;
    assert_eq!(field(&answer, "content-type"), "application/problem+json");
    assert_eq!((left(&answer), field(&answer, "retry-after")), (None, ""));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], "Requests from this address are not served.");

    for _ in 0..10 {
        assert_eq!(site.get(&ada, "/").await.text().await.unwrap(), BODY);
    }
    let own = site.get(&ada, "/forbidden").await;
    assert_eq!(own.status(), 403);
    assert_eq!(own.text().await.unwrap(), "forbidden by the backend\n");
}

#[rstest]
#[tokio::test]
async fn what_a_client_claims_in_headers_changes_nothing(
    #[values(Nginx, Traefik, Caddy, Envoy, EnvoyGrpc, Haproxy)] proxy: Proxy,
    #[values(
        "",
        "x-forwarded-for",
        "x-forwarded-for, x-forwarded-uri, x-forwarded-method, x-original-uri"
    )]
    hop_by_hop: &str,
) {
    let backend = Backend::start();
    let site = Site::new(proxy, backend.address(), |launch| {
        launch.with("IPWARDEN_IDENTITY__HEADER", "X-User")
    })
    .await;
    let liar = browser("127.0.0.80");
    let mut statuses = Vec::new();
    for lie in 1..=7 {
        let address = format!("192.0.2.{lie}");
        let mut request = site.request(&liar, Method::GET, "/admin?rd=/never");
        for name in ["x-forwarded-for", "x_forwarded_for", "x-real-ip", "forwarded", "x-client-ip"]
        {
            request = request.header(name, &address);
        }
        for name in [
            "x-original-url",
            "x-original-uri",
            "x-forwarded-uri",
            "x_forwarded_uri",
            "x-forwarded-prefix",
            "x-rewrite-url",
            "x-envoy-original-path",
        ] {
            request = request.header(name, "/never");
        }
        for name in ["x-forwarded-method", "x-original-method", "x-http-method-override"] {
            request = request.header(name, "PUT");
        }
        request = request.header("x-ipwarden-pass", "v1.0").header("x-ipwarden-status", "200");
        request = request.header("x-request-id", "1").header("x-user", format!("user{lie}"));
        if !hop_by_hop.is_empty() {
            request = request.header("connection", hop_by_hop);
        }
        let answer = request.send().await.unwrap();
        statuses.push(answer.status().as_u16());
    }
    if matches!(proxy, Envoy | EnvoyGrpc) && !hop_by_hop.is_empty() {
        assert_eq!(statuses, [400; 7], "Envoy itself answers so to who nominates these");
        site.records(0).await;
        return;
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429], "{}", site.front.log().unwrap());
    for record in site.records(7).await {
        assert_eq!(record.address.to_string(), "127.0.0.80");
        assert_eq!((record.method.as_str(), record.path.as_str()), ("GET", "/admin"));
        assert_eq!(record.identity, None);
    }
}

/// The status that somebody at this address gets who sends these bytes.
async fn raw_status(address: &str, site: SocketAddr, request: &[u8]) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    let mut stream = socket.connect(site).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[9..]).parse().unwrap()
}

#[rstest]
#[tokio::test]
async fn bytes_that_are_no_text_lead_nobody_past_his_quota(
    #[values(Nginx, Traefik, Caddy, Envoy, EnvoyGrpc, Haproxy)] proxy: Proxy,
) {
    let backend = Backend::start();
    let site = Site::new(proxy, backend.address(), keep).await;
    let (ada, reached) = (browser("127.0.0.84"), backend.count());
    for _ in 0..5 {
        assert_eq!(site.get(&ada, "/").await.status(), 200);
    }
    for (method, path, agent) in [
        (&b"GET"[..], &b"/caf\xe9"[..], &b"x"[..]),
        (b"GET", b"/?q=\xff\xfe", b"x"),
        (b"GET", b"/", b"\xff\xfe\x80"),
        (b"G\xcbT", b"/", b"x"),
    ] {
        let head = b" HTTP/1.1\r\nhost: a\r\nuser-agent: ";
        let request = [method, b" ", path, head, agent, b"\r\n\r\n"].concat();
        let status = raw_status("127.0.0.84", site.front.address(), &request).await;
        // Some of them refuse such bytes themselves.
        assert!([400, 429].contains(&status), "{}: {status}", request.escape_ascii());
    }
    assert_eq!(backend.count() - reached, 5);
}

#[rstest]
#[tokio::test]
async fn odd_requests_reach_no_backend_beyond_the_quota_and_are_no_500(
    #[values(Nginx, Traefik, Caddy, Envoy, EnvoyGrpc, Haproxy)] proxy: Proxy,
) {
    let backend = Backend::start();
    let site = Site::new(proxy, backend.address(), keep).await;
    let (ada, reached) = (browser("127.0.0.85"), backend.count());
    for _ in 0..5 {
        assert_eq!(site.get(&ada, "/").await.status(), 200);
    }
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    for (line, fields) in [
        ("GET http://a/x", ""),
        ("GET http://a?x=y", ""),
        ("GET http://a", ""),
        ("OPTIONS *", ""),
        ("CONNECT a:80", ""),
        ("GET //x", ""),
        ("GET /#x", ""),
        ("PROPFIND /", ""),
        ("GET /", &many),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        let status = raw_status("127.0.0.85", site.front.address(), request.as_bytes()).await;
        assert_ne!(status, 500, "{line}: {}", site.front.log().unwrap());
    }
    assert_eq!(backend.count() - reached, 5);
}

/// The recipes bound how long a question waits.
#[rstest]
#[case(Nginx, 200)]
#[case(Traefik, 504)]
#[case(Caddy, 504)]
#[case(Envoy, 503)]
#[case(EnvoyGrpc, 503)]
#[case(Haproxy, 200)]
#[tokio::test]
async fn an_ipwarden_that_hangs_is_as_good_as_stopped(#[case] proxy: Proxy, #[case] status: u16) {
    let backend = Backend::start();
    let site = Site::new(proxy, backend.address(), keep).await;
    let ada = browser("127.0.0.86");
    assert_eq!(site.get(&ada, "/").await.status(), 200);
    site.bed.first().signal("STOP");
    let answer = tokio::time::timeout(PATIENCE / 3, site.get(&ada, "/"));
    assert_eq!(answer.await.unwrap().status(), status);
    site.bed.first().signal("CONT");
}

/// What a proxy does while ipwarden is stopped, as its recipe says, and as it says that one may choose.
#[rstest]
#[case(Choice::Recipes, Nginx, 200)]
#[case(Choice::Recipes, Traefik, 503)]
#[case(Choice::Recipes, Caddy, 502)]
#[case(Choice::Recipes, Envoy, 503)]
#[case(Choice::Recipes, EnvoyGrpc, 503)]
#[case(Choice::Recipes, Haproxy, 200)]
#[case(Choice::Other, Nginx, 503)]
#[case(Choice::Other, Traefik, 200)]
#[case(Choice::Other, Envoy, 200)]
#[case(Choice::Other, EnvoyGrpc, 200)]
#[case(Choice::Other, Haproxy, 503)]
#[tokio::test]
async fn without_ipwarden_the_choice_of_the_recipe_holds(
    #[case] choice: Choice,
    #[case] proxy: Proxy,
    #[case] status: u16,
) {
    let backend = Backend::start();
    let gate = SocketAddr::from(([127, 0, 0, 1], ipwarden_testbed::lasting_port().unwrap()));
    let mut site = Site::choosing(choice, proxy, backend.address(), |launch| {
        let key = match proxy {
            EnvoyGrpc => "IPWARDEN_GATE__GRPC_BIND",
            _ => "IPWARDEN_GATE__BIND",
        };
        launch.with(key, &gate.to_string())
    })
    .await;
    let ada = browser("127.0.0.81");
    assert_eq!(site.get(&ada, "/").await.status(), 200);
    let reached = backend.count();
    site.bed.replicas[0].crash();
    eventually(PATIENCE, "it does as the recipe says", async || {
        (site.get(&ada, "/").await.status() == status).then_some(())
    })
    .await;
    assert_eq!(backend.count() > reached, status == 200);
    site.bed.replicas[0].start_again().await;
    // It judges again by itself.
    let again = browser("127.0.0.82");
    eventually(PATIENCE, "a sixth request is refused", async || {
        let answer = site.request(&again, Method::GET, "/").send().await.unwrap();
        (answer.status() == 429).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn an_application_that_wraps_itself_takes_the_pass_that_the_recipe_hands_on(
    #[values(Nginx, Traefik, Caddy, Envoy, EnvoyGrpc, Haproxy)] proxy: Proxy,
) {
    let public = SocketAddr::from(([127, 0, 0, 1], ipwarden_testbed::lasting_port().unwrap()));
    let site = Site::new(proxy, public, |launch| {
        launch
            .with("IPWARDEN_PUBLIC__BIND", &public.to_string())
            .with("IPWARDEN_GATE__PASS_SECRET", "the secret of the gate and the application")
    })
    .await;
    let ada = browser("127.0.0.83");
    for remaining in (0..5).rev() {
        let answer = site.get(&ada, "/?a=b%20c&d").await;
        assert_eq!((answer.status(), left(&answer)), (StatusCode::OK, Some(remaining)));
        assert_eq!(answer.headers().get_all("ratelimit").iter().count(), 1);
        assert!(!answer.headers().contains_key("x-ipwarden-pass"));
        assert_eq!(answer.json::<Value>().await.unwrap()["address"], "127.0.0.83");
    }
    assert_eq!(site.get(&ada, "/?a=b%20c&d").await.status(), 429);
    site.records(6).await;
}
