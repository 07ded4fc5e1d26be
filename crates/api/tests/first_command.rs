//! The first command of somebody new: no settings, one process, one directory.

mod common;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use common::{Bed, Launch, TEN_TIMES_A_SECOND, eventually, field, left};
use futures_util::FutureExt as _;
use ipwarden_core::db::{Create, Db, request_logs};
use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test]
async fn the_banner_names_where_everything_is_and_the_key_is_its_owners_alone() {
    let bed = Bed::embedded(Launch::default()).await;
    let (replica, dir) = (bed.first(), bed.first().dir().canonicalize().unwrap());
    assert_eq!(replica.announced("data"), dir.join("data").to_str().unwrap());
    let file = dir.join("data/admin.key");
    assert_eq!(replica.announced("key"), file.to_str().unwrap());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!replica.said().contains(&bed.admin), "a key is shown on terminals only");
    let (status, keys) = bed.api(Method::GET, "/api/v1/keys", None).await;
    assert_eq!((status, keys["items"].as_array().unwrap().len()), (StatusCode::OK, 1));
    let (status, text) = replica.open("/readyz?verbose").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.ends_with("ready\n"), "{text}");
}

/// With them it would hold more than twice the memory.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_service_has_no_huge_pages() {
    let bed = Bed::embedded(Launch::default()).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", bed.first().pid())).unwrap();
    assert!(status.contains("THP_enabled:\t0"), "{status}");
}

#[tokio::test]
async fn five_requests_a_minute_are_answered_and_all_are_in_the_log() {
    let bed = Bed::embedded(Launch::default()).await;
    let replica = bed.first();

    let answer = replica.request(Method::GET, "/").send().await.unwrap();
    assert_eq!((answer.status(), left(&answer)), (StatusCode::OK, Some(4)));
    assert_eq!(field(&answer, "ratelimit-policy"), r#""anonymous";q=5;w=60"#);
    assert!(!field(&answer, "x-ipwarden-reference").is_empty());
    insta::assert_json_snapshot!("who", answer.json::<Value>().await.unwrap());

    let answer = replica.request(Method::GET, "/").header("accept", BROWSER).send().await.unwrap();
    assert_eq!((answer.status(), left(&answer)), (StatusCode::OK, Some(3)));
    assert_eq!(field(&answer, "content-type"), "text/html; charset=utf-8");
    insta::assert_snapshot!("who_in_a_browser", answer.text().await.unwrap());

    let answer = replica.request(Method::GET, "/nowhere").send().await.unwrap();
    assert_eq!((answer.status(), left(&answer)), (StatusCode::NOT_FOUND, Some(2)));
    assert_eq!(field(&answer, "content-type"), "application/problem+json");
    let answer = replica.request(Method::POST, "/").send().await.unwrap();
    assert_eq!((answer.status(), left(&answer)), (StatusCode::METHOD_NOT_ALLOWED, Some(1)));
    let answer = replica.request(Method::HEAD, "/").send().await.unwrap();
    assert_eq!((answer.status(), left(&answer)), (StatusCode::OK, Some(0)));

    let answer = replica.request(Method::GET, "/").send().await.unwrap();
    assert_eq!((answer.status(), left(&answer)), (StatusCode::TOO_MANY_REQUESTS, Some(0)));
    assert_eq!(field(&answer, "content-type"), "application/problem+json");
    let retry_after = field(&answer, "retry-after").to_owned();
    assert!((1..=60).contains(&retry_after.parse::<u32>().unwrap()), "{retry_after}");
    assert!(field(&answer, "ratelimit").ends_with(&format!(";t={retry_after}")));
    let reference = field(&answer, "x-ipwarden-reference").to_owned();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["reference"], reference);
    let mut varying = insta::Settings::clone_current();
    varying.add_filter(r"in \d+ seconds?", "in [t] seconds");
    varying.add_filter(r"Reference: \w+", "Reference: [reference]");
    varying.bind(|| {
        insta::assert_json_snapshot!("throttled", problem, { ".reference" => "[reference]" });
    });

    let answer = replica.request(Method::GET, "/").header("accept", BROWSER).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let page = answer.text().await.unwrap();
    varying.bind(|| insta::assert_snapshot!("throttled_in_a_browser", page));

    // The guard rails keep the operator from locking himself out, until he insists.
    let mut block = json!({ "target": "127.0.0.1", "for": "1m" });
    let (status, refused) = bed.api(Method::POST, "/api/v1/blocks", Some(block.clone())).await;
    assert_eq!((status, &refused["errors"][0]["field"]), (StatusCode::CONFLICT, &json!("target")));
    block["force"] = true.into();
    let (status, blocked) = bed.api(Method::POST, "/api/v1/blocks", Some(block)).await;
    assert_eq!(status, StatusCode::CREATED, "{blocked}");
    let mut sent = 7;
    let (_, took) = eventually(TEN_TIMES_A_SECOND, "the block counts", async || {
        sent += 1;
        let answer = replica.request(Method::GET, "/").send().await.unwrap();
        (answer.status() == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
    eprintln!("blocked after {took:?} (goal 1 s)");

    let took = bed.logs(sent).await;
    eprintln!("the log was complete after {took:?} (goal 1 s)");
    let records = bed.records().await;
    let (first, refused) = (&records[sent - 1], &records[sent - 6]);
    assert_eq!((first.status, first.verdict.as_str()), (200, "allowed"));
    assert_eq!((refused.status, refused.verdict.as_str()), (429, "throttled"));
    assert_eq!(refused.reference.as_deref(), Some(reference.as_str()));
    assert_eq!((records[0].status, records[0].verdict.as_str()), (403, "blocked"));
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_fills_no_log() {
    use std::io::{Read as _, Write as _};
    let replica = Launch::default().start().await;
    let address = replica.public.strip_prefix("http://").unwrap();
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /\x00\xff HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(replica.request(Method::GET, "/").send().await.unwrap().status(), StatusCode::OK);
    assert!(!replica.said().contains("parse error"), "{}", replica.said());
}

#[tokio::test]
async fn sigterm_ships_the_log_and_exits_with_success() {
    let replica = Launch::default().start().await;
    for _ in 0..50 {
        replica.request(Method::GET, "/").send().await.unwrap();
    }
    let (status, stopped) = replica.stop().await;
    assert_eq!(status.code(), Some(0));
    let file = stopped.dir().join("data/ipwarden.db");
    let db = Db::open_sqlite(&file, Create::Never).await.unwrap();
    let rows = db.run(|conn| request_logs::count(conn).boxed()).await.unwrap();
    assert_eq!(rows, 50);
}

#[tokio::test]
async fn a_killed_process_loses_no_answered_request_no_block_and_no_key() {
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let block = json!({ "target": "203.0.113.1" });
    assert_eq!(bed.api(Method::POST, "/api/v1/blocks", Some(block)).await.0, StatusCode::CREATED);
    let Bed { mut replicas, admin, .. } = bed;
    let replica = replicas.remove(0);
    for host in 2..202 {
        assert_eq!(replica.get(&format!("203.0.113.{host}"), "/").await.status(), StatusCode::OK);
    }
    let killed = replica.kill();

    let replica = killed.again().behind_proxies().start().await;
    assert_eq!(replica.get("203.0.113.1", "/").await.status(), StatusCode::FORBIDDEN);
    assert!(replica.said().contains("(the first admin key)"), "{}", replica.said());
    let (_, took) = eventually(TEN_TIMES_A_SECOND, "the log is complete", async || {
        let path = "/api/v1/request-logs?limit=1000";
        let (status, page) = replica.control(Method::GET, path, Some(&admin), None).await;
        assert_eq!(status, StatusCode::OK);
        let rows = page["items"].as_array().unwrap().len();
        assert!(rows <= 201, "{rows} rows for 201 requests");
        (rows == 201).then_some(())
    })
    .await;
    eprintln!("what the killed process left was shipped after {took:?}");
}

#[rstest]
#[case::unknown_key("[scan]\nmax_requets = 5\n", &[], "scan.max_requets")]
#[case::wrong_type("[scan]\nmax_requests = \"many\"\n", &[], "scan.max_requests")]
#[case::no_toml("[scan\n", &[], "ipwarden.toml is not valid TOML")]
#[case::a_typo_makes_no_new_store("", &[("DATABASE_URL", "postgre://db/ipwarden")], "postgre")]
#[case::unknown_store("", &[("DATABASE_URL", "mysql://db/ipwarden")], "unknown scheme `mysql`")]
#[case::impossible_port("", &[("DATABASE_URL", "postgres://me@db:99999/x")], "DATABASE_URL")]
#[case::unknown_level("", &[("IPWARDEN_LOG__LEVEL", "loud")], "`loud` is no level")]
#[case::unknown_redis("", &[("REDIS_URL", "memcached://db")], "memcached")]
#[case::everyone_trusted("", &[("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "0.0.0.0/0")], "0.0.0.0/0")]
#[case::bad_proxy("", &[("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "10.0.0.0/33")], "10.0.0.0/33")]
#[tokio::test]
async fn a_bad_configuration_is_named_before_a_port_is_bound(
    #[case] file: &str,
    #[case] variables: &[(&str, &str)],
    #[case] named: &str,
) {
    // Whoever binds first complains of this port.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut launch = Launch::default()
        .with("IPWARDEN_PUBLIC__BIND", &taken.local_addr().unwrap().to_string())
        .file(file);
    for (name, value) in variables {
        launch = launch.with(name, value);
    }
    let (status, said) = launch.fail().await;
    assert_eq!(status.code(), Some(64), "{said}");
    assert!(said.contains(named), "{said}");
    assert!(!said.contains("cannot listen"), "{said}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, said) = Launch::default().with("IPWARDEN_PUBLIC__BIND", &address).fail().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("public.bind") && said.contains(&address), "{said}");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_named_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    // A file stands where the spool belongs; that hinders root as well.
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("spool"), "").unwrap();
    for unusable in [file, taken] {
        let path = unusable.to_str().unwrap();
        let (status, said) = Launch::default().with("IPWARDEN_DATA_DIR", path).fail().await;
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("data_dir {path} cannot be")), "{said}");
    }
}

#[tokio::test]
async fn unknown_variables_are_only_warned_about() {
    // Kubernetes injects such ones for a service called ipwarden.
    let launch = Launch::default().with("IPWARDEN_PORT", "tcp://10.0.0.1:80");
    let replica = launch.start().await;
    assert!(replica.said().contains("IPWARDEN_PORT"), "{}", replica.said());
}

#[tokio::test]
async fn a_fleets_store_without_its_schema_is_refused_with_what_to_do() {
    let database = ipwarden_testbed::postgres_database().unwrap();
    let (status, said) = Launch::default().with("DATABASE_URL", database.url()).fail().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("ipctl migrate"), "{said}");
}

#[tokio::test]
async fn a_data_directory_has_one_process() {
    let replica = Launch::default().start().await;
    let theirs = replica.dir().join("data");
    let launch = Launch::default().with("IPWARDEN_DATA_DIR", theirs.to_str().unwrap());
    let (status, said) = launch.fail().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(theirs.to_str().unwrap()), "{said}");
    assert!(said.contains("a data directory of its own"), "{said}");
    assert_eq!(replica.open("/readyz").await.0, StatusCode::OK);
}
