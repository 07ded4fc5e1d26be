//! The example, tried: an application that knows nothing of ipwarden but a middleware.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::{Create, Db, request_logs};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// `cargo test` builds examples beside the tests; `cargo test --test protect` alone builds none.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/protect");
    if !path.exists() {
        let build = ["build", "--quiet", "--package", "ipwarden-guard", "--example", "protect"];
        assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());
    }
    path
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn get(url: &str) -> Option<reqwest::Response> {
    // `ipctl` has reqwest speak TLS, and whoever builds a client then has to say by whose means.
    let _already = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new().get(url).timeout(Duration::from_secs(5)).send().await.ok()
}

#[tokio::test]
async fn an_unrelated_application_is_guarded_and_its_log_arrives_in_a_database() {
    let data = tempfile::tempdir().unwrap();
    let port = free_port();
    let child = Command::new(example())
        .arg(format!("127.0.0.1:{port}"))
        .current_dir(data.path())
        .env("IPWARDEN_DATA_DIR", data.path().join("own"))
        .env_remove("DATABASE_URL")
        .env_remove("REDIS_URL")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let url = format!("http://127.0.0.1:{port}/");

    let mut statuses = Vec::new();
    for _ in 0..200 {
        // Until it listens there is nobody to answer; what is answered counts.
        match get(&url).await {
            Some(answer) => statuses.push(answer.status().as_u16()),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        if statuses.len() == 6 {
            break;
        }
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);

    // SIGTERM: the application stops in order, and its log is shipped.
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.0.wait().unwrap().success());
    let store = Db::open_sqlite(&data.path().join("own/ipwarden.db"), Create::Never).await.unwrap();
    let rows = store
        .run(|conn| {
            async move { request_logs::page(conn, &request_logs::Filter::default(), None, 10).await }
                .boxed()
        })
        .await
        .unwrap();
    let mut seen: Vec<_> = rows.iter().map(|row| (row.status, row.verdict.as_str())).collect();
    seen.reverse();
    assert_eq!(seen[..5], [(200, "allowed"); 5]);
    assert_eq!(seen[5..], [(429, "throttled")]);
}
