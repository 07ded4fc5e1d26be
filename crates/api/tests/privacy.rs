//! Somebody is forgotten: afterwards nothing of him is found, wherever it was.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::TimeDelta;
use common::{Bed, Launch, PATIENCE, Replica, eventually, now};
use futures_util::FutureExt as _;
use ipwarden_core::db::nodes;
use ipwarden_testbed::proxy::Proxy;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Who is forgotten (RFC 5737); so few bytes are found by chance that nobody will see it happen.
const GONE: &str = "203.0.113.77";
/// Who is not.
const STAYS: &str = "203.0.113.78";

#[tokio::test]
async fn nothing_of_an_address_is_left_in_an_embedded_store() {
    let places = tempfile::tempdir().unwrap();
    let bed = Bed::embedded(settings(Launch::default(), places.path())).await;
    let began = now();
    for _ in 0..120 {
        bed.first().get(GONE, "/private").await;
        bed.first().get(STAYS, "/").await;
    }
    bed.logs(240).await;
    bed.scan(began).await;
    block(&bed, GONE).await;
    block(&bed, STAYS).await;
    assert_ne!(traces(bed.first()), Vec::<String>::new());

    let refused = ipctl(&bed, &["forget", GONE, "--yes"]).await;
    assert_eq!(refused.0, 2, "it is on a list: {refused:?}");
    assert!(refused.2.contains("--lists keep"), "{refused:?}");
    assert_eq!(bed.logged().await, 240, "and nothing was forgotten");

    let receipt = forget(&bed, 0).await;
    assert_eq!(states(&receipt), ["confirmed"]);
    assert!(receipt["erased_at"].is_string() && receipt["settled_at"].is_string(), "{receipt}");
    assert_eq!(traces(bed.first()), Vec::<String>::new());
    assert_eq!(bed.logged().await, 120, "of others nothing is gone");
    assert_eq!(bed.first().get(STAYS, "/").await.status(), StatusCode::FORBIDDEN);

    // What it does from now on is recorded as ever.
    assert_eq!(bed.first().get(GONE, "/").await.status(), StatusCode::OK, "and counted anew");
    bed.logs(122).await;
}

#[tokio::test]
async fn nothing_of_an_address_is_left_in_a_fleet_of_which_one_node_was_cut_off() {
    let places = tempfile::tempdir().unwrap();
    let postgres = ipwarden_testbed::postgres().unwrap();
    let proxy = Proxy::to(SocketAddr::from((Ipv4Addr::LOCALHOST, postgres.port().unwrap())));
    let (proxy, started) = (proxy.unwrap(), AtomicUsize::new(0));
    let bed = Bed::fleet(2, |launch| {
        let launch = settings(launch, places.path());
        match started.fetch_add(1, Ordering::Relaxed) {
            0 => launch,
            _ => launch.through("DATABASE_URL", proxy.address()),
        }
    })
    .await;
    for replica in &bed.replicas {
        for _ in 0..60 {
            replica.get(GONE, "/private").await;
            replica.get(STAYS, "/").await;
        }
    }
    bed.logs(240).await;
    block(&bed, GONE).await;
    for replica in &bed.replicas {
        eventually(PATIENCE, "it is blocked everywhere", async || {
            (replica.get(GONE, "/").await.status() == StatusCode::FORBIDDEN).then_some(())
        })
        .await;
    }
    let before = bed.logged_of(GONE).await;

    // The second is cut off, with requests in its spool that nobody could ship.
    proxy.hold();
    proxy.cut();
    for _ in 0..5 {
        bed.replicas[1].get(GONE, "/unshipped").await;
        bed.replicas[1].get(STAYS, "/unshipped").await;
    }
    assert!(bed.logged_of(GONE).await >= before);
    let (code, out, said) = ipctl(&bed, &forgetting(&["--wait", "2s"])).await;
    let receipt: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(states(&receipt), ["confirmed", "waiting"], "{said}");
    assert_eq!((code, receipt["settled_at"].is_null()), (1, true), "{said}");
    assert!(said.contains("have not confirmed yet") && said.contains("--status"), "{said}");
    assert_ne!(traces(&bed.replicas[1]), Vec::<String>::new(), "it could not know");

    // It is back: what it ships of others is stored.
    proxy.release();
    let id = receipt["id"].to_string();
    let (receipt, _) = eventually(PATIENCE, "both have confirmed", async || {
        let (_, out, _) = ipctl(&bed, &["forget", "--status", &id, "-o", "json"]).await;
        let receipt: Value = serde_json::from_str(&out).unwrap();
        receipt[0]["settled_at"].is_string().then(|| receipt[0].clone())
    })
    .await;
    assert_eq!(states(&receipt), ["confirmed", "confirmed"]);
    assert_eq!(bed.logged_of(STAYS).await, 125, "of others nothing is gone");
    for replica in &bed.replicas {
        assert_eq!(traces(replica), Vec::<String>::new());
    }
    let database = bed.database().content().unwrap();
    assert!(!database.contains(GONE) && database.contains(STAYS));
    let keys = bed.redis.as_ref().unwrap().ask("KEYS *").unwrap();
    assert!(!keys.contains(GONE), "{keys}");
    assert!(keys.contains(&format!("ipwarden:geo:v1:{STAYS}")), "{keys}");

    // The names are those of the processes, and the lists go on.
    let live = bed.db.run(|conn| nodes::all(conn, "api").boxed()).await.unwrap();
    let named: Vec<_> =
        receipt["nodes"].as_array().unwrap().iter().map(|one| &one["node"]).collect();
    assert!(live.iter().all(|(node, _)| named.contains(&&json!(node))), "{live:?} {named:?}");
    for replica in &bed.replicas {
        assert_ne!(replica.get(GONE, "/").await.status(), StatusCode::FORBIDDEN);
    }
    block(&bed, GONE).await;
    for replica in &bed.replicas {
        eventually(PATIENCE, "it is blocked again", async || {
            (replica.get(GONE, "/").await.status() == StatusCode::FORBIDDEN).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn records_in_the_spool_of_a_node_that_was_killed_are_not_stored_when_it_starts_again() {
    let places = tempfile::tempdir().unwrap();
    let server = tokio::task::spawn_blocking(ipwarden_testbed::postgres_private);
    let server = server.await.unwrap().unwrap();
    let mut bed =
        Bed::on_own_postgres(&server, 1, None, |launch| settings(launch, places.path())).await;
    let on_server = |act: fn(&ipwarden_testbed::PostgresServer) -> anyhow::Result<()>| {
        let server = server.clone();
        async move { tokio::task::spawn_blocking(move || act(&server)).await.unwrap().unwrap() }
    };
    on_server(ipwarden_testbed::PostgresServer::freeze).await;
    for _ in 0..5 {
        bed.first().get(GONE, "/unshipped").await;
        bed.first().get(STAYS, "/unshipped").await;
    }
    bed.replicas[0].crash();
    on_server(ipwarden_testbed::PostgresServer::thaw).await;
    // It was killed more than a moment ago, so nobody waits for it.
    bed.db
        .run(|conn| {
            async move {
                let now = conn.clock(now()).await?;
                let long_ago = now - TimeDelta::minutes(1);
                for (node, _) in nodes::all(conn, "api").await? {
                    nodes::beat(conn, &node, "api", long_ago, long_ago).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    let (code, out, said) = ipctl(&bed, &forgetting(&[])).await;
    let receipt: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, states(&receipt)), (0, vec!["silent".to_owned()]), "{said}");
    assert_ne!(traces(bed.first()), Vec::<String>::new(), "it is in the spool");

    bed.replicas[0].start_again().await;
    bed.logs(5).await;
    eventually(PATIENCE, "it has nothing on its disk", async || {
        traces(bed.first()).is_empty().then_some(())
    })
    .await;
    assert_eq!((bed.logged_of(GONE).await, bed.logged_of(STAYS).await), (0, 5));
    assert!(!bed.database().content().unwrap().contains(GONE));
}

fn settings(launch: Launch, places: &Path) -> Launch {
    let city = [("203.0.113.0/24", "NL", "Utrecht")];
    ipwarden_testbed::geo::write_city(&places.join("city.mmdb"), &city).unwrap();
    launch
        .behind_proxies()
        .with("IPWARDEN_GEO__FILES", places.to_str().unwrap())
        .with("IPWARDEN_SCAN__SENSITIVE_PATHS", "/private")
}

async fn block(bed: &Bed, address: &str) {
    let body = json!({ "target": address, "reason": "a test" });
    let (status, answer) = bed.api(Method::POST, "/api/v1/blocks", Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

fn forgetting<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["forget", GONE, "--lists", "remove", "--yes", "-o", "json"], more].concat()
}

async fn forget(bed: &Bed, code: i32) -> Value {
    let (ended, out, said) = ipctl(bed, &forgetting(&[])).await;
    assert_eq!(ended, code, "{said}");
    serde_json::from_str(&out).unwrap()
}

fn states(receipt: &Value) -> Vec<String> {
    let nodes = receipt["nodes"].as_array().unwrap();
    let mut states: Vec<_> =
        nodes.iter().map(|node| node["state"].as_str().unwrap().to_owned()).collect();
    states.sort_unstable();
    states
}

/// How a run of `ipctl` on this store ended, what it wrote, and what it said.
async fn ipctl(bed: &Bed, arguments: &[&str]) -> (i32, String, String) {
    let ran = bed.try_ipctl(arguments).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
}

/// The files of a node in which the address stands, as text or as four bytes.
fn traces(replica: &Replica) -> Vec<String> {
    let address: Ipv4Addr = GONE.parse().unwrap();
    let mut found = Vec::new();
    let mut directories = vec![replica.data()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            // Files come and go.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
            if holds(GONE.as_bytes()) || holds(&address.octets()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
