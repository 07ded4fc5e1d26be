//! The gate's listener beside the others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::common::{Bed, Launch, field};

#[tokio::test]
async fn without_an_address_there_is_no_gate() {
    let launch = Launch::default().with("IPWARDEN_GATE__BIND", "");
    let replica = launch.file("gate.bind = \"\"").start_unready().await;
    assert!(replica.gate.is_empty(), "{}", replica.said());
    assert_eq!(replica.request(Method::GET, "/").send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, said) = Launch::default().with("IPWARDEN_GATE__BIND", &address).fail().await;
    assert!(!status.success());
    assert!(said.contains("gate.bind: cannot listen on"), "{said}");
}

#[tokio::test]
async fn no_route_of_another_listener_is_on_the_gate() {
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    for path in
        ["/", "/livez", "/metrics", "/api/v1/blocks", "/v1/forward-auth/", "/v1/ext-authzed"]
    {
        let answer = bed.first().question(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(field(&answer, "content-type"), "application/problem+json", "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["status"], 404, "{path}");
    }
    bed.logs(0).await;
}

#[tokio::test]
async fn a_head_that_does_not_come_does_not_hold_a_connection() {
    let bed = Bed::embedded(Launch::default()).await;
    let address = bed.first().gate.strip_prefix("http://").unwrap().to_owned();
    let silent = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"GET /v1/forward-auth HTTP/1.1\r\nhost: a").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    });
    let answer = silent.await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}
