//! `/v1/decisions/stream`: everything once, then what changed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::client::{Bouncer, block, ipctl, values};
use super::common::{Bed, Launch};

#[tokio::test]
async fn a_bouncer_hears_of_every_change_once_whichever_replica_it_asks() {
    for bed in Bed::each(|launch| launch).await {
        let bouncer = Bouncer::of(&bed).await;
        let (first, last) = (bed.first(), bed.replicas.last().unwrap());
        block(&bed, "203.0.113.9", "4h").await;
        let told = bouncer.pulls(first, "startup=true").await;
        assert_eq!((values(&told.new), values(&told.deleted)), (vec!["203.0.113.9"], vec![]));
        let quiet = bouncer.text(last, "/v1/decisions/stream?startup=false").await;
        assert_eq!(quiet, r#"{"new":null,"deleted":null}"#);

        block(&bed, "2001:db8:9::/48", "permanent").await;
        let (status, _) = bed.api(Method::DELETE, "/api/v1/blocks/203.0.113.9", None).await;
        assert!(status.is_success());
        // A look moves nothing.
        let head = bouncer.asks(last, Method::HEAD, "/v1/decisions/stream").await;
        assert_eq!(head.status(), StatusCode::OK);
        let told = bouncer.pulls(last, "startup=false").await;
        assert_eq!(values(&told.new), ["2001:db8:9::/48"]);
        assert_eq!(values(&told.deleted), ["203.0.113.9"]);
        assert_eq!(told.deleted[0]["origin"], "manual");
        assert_eq!(told.new[0]["scope"], "Range");
        let told = bouncer.pulls(first, "startup=false").await;
        assert_eq!(values(&told.new), [""; 0]);

        // One that was killed and comes back.
        let told = bouncer.pulls(last, "startup=true").await;
        assert_eq!(values(&told.new), ["2001:db8:9::/48"]);
        assert!(values(&told.deleted).contains(&"203.0.113.9"), "what is known to have ended");
        let told = bouncer.pulls(first, "startup=true&scopes=ip").await;
        assert_eq!(values(&told.new), [""; 0], "ranges were not asked for");

        let (_, page) = bed.api(Method::GET, "/api/v1/keys", None).await;
        assert!(page.to_string().contains("bouncer"));
    }
}

#[tokio::test]
async fn what_ipctl_does_reaches_a_bouncer_with_its_next_pull_and_ipctl_sees_the_bouncer() {
    let bed = Bed::embedded(Launch::default()).await;
    let replica = bed.first();
    let key = ipctl(replica, &["bouncer", "add", "edge"]).trim().to_owned();
    let bouncer = Bouncer::with(key);
    super::common::eventually(super::common::TEN_TIMES_A_SECOND, "the key counts", async || {
        // Seldom: five that do not count yet would silence it.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let answer = bouncer.asks(replica, Method::GET, "/v1/decisions/stream?startup=true").await;
        answer.status().is_success().then_some(())
    })
    .await;
    for round in 0..3 {
        let target = format!("203.0.113.{round}");
        ipctl(replica, &["block", &target, "--for", "4h"]);
        let told = bouncer.pulls(replica, "startup=false").await;
        assert_eq!(values(&told.new), [target.as_str()]);
        ipctl(replica, &["unblock", &target]);
        let told = bouncer.pulls(replica, "startup=false").await;
        assert!(values(&told.deleted).contains(&target.as_str()), "{told:?}");
    }
    let usage = json!({ "remediation_components": [{ "type": "test-bouncer", "metrics": [
        { "items": [{ "name": "active_decisions", "value": 42, "unit": "ip" }] }
    ] }] });
    let request = reqwest::Client::new().post(format!("{}/v1/usage-metrics", replica.gate));
    let request = request.header("x-api-key", &bouncer.key).json(&usage);
    let answer = request.header("user-agent", "test-bouncer/v1.2").send().await.unwrap();
    assert_eq!((answer.status(), &*answer.text().await.unwrap()), (StatusCode::CREATED, ""));
    let listed = ipctl(replica, &["bouncer", "list", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "edge");
    assert_eq!(listed[0]["address"], "127.0.0.1");
    assert_eq!(
        (&listed[0]["type"], &listed[0]["version"]),
        (&json!("test-bouncer"), &json!("v1.2"))
    );
    assert_eq!(listed[0]["applied"], 42);
    assert!(listed[0]["last_pull"].is_string());

    let large = vec![b' '; (1 << 20) + 1];
    let request = reqwest::Client::new().post(format!("{}/v1/usage-metrics", replica.gate));
    let answer = request.header("x-api-key", &bouncer.key).body(large).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);

    ipctl(replica, &["bouncer", "delete", "edge"]);
    super::common::eventually(super::common::TEN_TIMES_A_SECOND, "it is refused", async || {
        let answer = bouncer.asks(replica, Method::GET, "/v1/decisions/stream").await;
        (answer.status() == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_did_not_arrive_whole_is_told_again() {
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    bouncer.pulls(replica, "startup=true").await;
    super::million::fill(&bed, 40_000).await;
    let address = replica.gate.strip_prefix("http://").unwrap().to_owned();
    let request = format!(
        "GET /v1/decisions/stream?startup=false HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n",
        bouncer.key
    );
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut some = [0; 4_096];
        assert!(stream.read(&mut some).unwrap() > 0);
        // And away: some megabytes are never read.
    })
    .await
    .unwrap();
    let told = bouncer.pulls(replica, "startup=false").await;
    assert_eq!(told.new.len(), 40_000);
    let told = bouncer.pulls(replica, "startup=false").await;
    assert_eq!(told.new.len(), 0);
}
