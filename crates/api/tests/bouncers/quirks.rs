//! What nginx's Lua bouncer and the module for Caddy send and expect, as their sources have it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::client::{Bouncer, block, found, ipctl};
use super::common::{Bed, Launch, Replica};

/// Sends a request as it is written here, and reads the answer to its end: its head and its body.
async fn raw(
    replica: &Replica,
    line: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> (String, String) {
    let gate = replica.gate.strip_prefix("http://").unwrap().to_owned();
    let fields: String =
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request =
        format!("{line} HTTP/1.1\r\nHost: {gate}\r\nConnection: close\r\n{fields}\r\n{body}");
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(gate).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(!head.contains("content-encoding"), "neither unpacks anything: {head}");
    let body =
        if head.contains("transfer-encoding: chunked") { joined(body) } else { body.to_owned() };
    (head, body)
}

/// A body without the sizes of its chunks.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body += &rest[..size];
        chunks = &rest[size + 2..];
    }
    body
}

fn lua(key: &str) -> [(&str, &str); 2] {
    [("x-api-key", key), ("User-Agent", "crowdsec-openresty-bouncer/v1.0.9")]
}

/// `^((?<hours>[0-9]+)h)?((?<minutes>[0-9]+)m)?((?<seconds>[0-9]+)s)?$`, of at least a second: Lua's bouncer
/// takes any other for "for ever".
fn seconds(duration: &str) -> u64 {
    let (mut seconds, mut rest) = (0, duration);
    for (unit, each) in [('h', 3_600), ('m', 60), ('s', 1)] {
        if let Some((count, behind)) = rest.split_once(unit) {
            seconds += count.parse::<u64>().unwrap() * each;
            rest = behind;
        }
    }
    assert!(rest.is_empty() && seconds > 0, "{duration}");
    seconds
}

#[tokio::test]
async fn lua_bouncer_pulls_with_a_startup_that_is_true_false_or_nil() {
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    block(&bed, "203.0.113.9", "90m").await;
    block(&bed, "2001:db8:9::/48", "permanent").await;
    let pull = async |startup: &str| {
        let line = format!("GET /v1/decisions/stream?startup={startup}");
        let (head, body) = raw(replica, &line, &lua(&bouncer.key), "").await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let told = pull("true").await;
    let new = told["new"].as_array().unwrap();
    assert_eq!((new.len(), &told["deleted"]), (2, &Value::Null), "a table, or null: {told}");
    for decision in new {
        // It keeps `type/origin/family` under a key that it makes of value and scope.
        assert_eq!(decision["type"], "ban");
        assert!(!decision["origin"].as_str().unwrap().contains('/'));
        let is_range = decision["value"].as_str().unwrap().contains('/');
        assert_eq!(decision["scope"], if is_range { "Range" } else { "Ip" });
        let seconds = seconds(decision["duration"].as_str().unwrap());
        assert!(is_range || (5_300..=5_400).contains(&seconds), "{decision}");
    }
    // It has forgotten whether it has started, but not what it was told.
    for startup in ["nil", "false", ""] {
        let told = pull(startup).await;
        assert_eq!(told, json!({ "new": null, "deleted": null }), "{startup}");
    }
    ipctl(replica, &["unblock", "203.0.113.9"]);
    let told = pull("nil").await;
    assert_eq!((&told["new"], &told["deleted"][0]["value"]), (&Value::Null, &json!("203.0.113.9")));
}

#[tokio::test]
async fn lua_bouncer_asks_about_an_address_of_ipv6_as_it_is_and_knows_null_by_its_bytes() {
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    block(&bed, "2001:db8:9::/48", "4h").await;
    found(&bouncer, replica, "2001:db8:9::1", true).await;
    let line = "GET /v1/decisions?ip=2001:db8:9::1";
    let (_, body) = raw(replica, line, &lua(&bouncer.key), "").await;
    let decisions: Vec<Value> = serde_json::from_str(&body).unwrap();
    assert_eq!((decisions.len(), &decisions[0]["value"]), (1, &json!("2001:db8:9::/48")));
    let line = "GET /v1/decisions?ip=2001:db8:8::1";
    assert_eq!(raw(replica, line, &lua(&bouncer.key), "").await.1, "null");
}

#[tokio::test]
async fn lua_bouncer_sends_what_it_counts_with_tables_that_are_empty_and_null() {
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    let usage = json!({ "log_processors": null, "remediation_components": [{
        "type": "lua-bouncer", "name": "nginx bouncer", "version": "v1.0.9", "feature_flags": [],
        "os": { "name": "debian", "version": "12" }, "utc_startup_timestamp": 1, "metrics": [{
            "items": [
                { "name": "active_decisions", "value": 2, "unit": "ip",
                  "labels": { "ip_type": "ipv4", "origin": "manual" } },
                { "name": "active_decisions", "value": 3, "unit": "ip",
                  "labels": { "ip_type": "ipv6", "origin": "manual" } },
                { "name": "processed", "value": 9, "unit": "request", "labels": {} },
            ],
            "meta": { "utc_now_timestamp": 1, "window_size_seconds": 900 },
        }],
    }] });
    let body = format!("{usage}\n");
    let length = body.len().to_string();
    let [key, agent] = lua(&bouncer.key);
    let fields = [key, agent, ("Content-Length", &*length)];
    let (head, body) = raw(replica, "POST /v1/usage-metrics", &fields, &body).await;
    assert!(head.starts_with("http/1.1 201"), "{head}");
    assert_eq!(body, "");
    let listed = ipctl(replica, &["bouncer", "list", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["applied"], &listed[0]["type"]),
        (&json!(5), &json!("crowdsec-openresty-bouncer"))
    );
}

/// The headers that each of them adds to the client's own in its question about a request.
fn question<'a>(
    key: &'a str,
    ip: &'a str,
    uri: &'a str,
    agent: &'a str,
) -> [(&'a str, &'a str); 6] {
    [
        ("X-Crowdsec-Appsec-Ip", ip),
        ("X-Crowdsec-Appsec-Uri", uri),
        ("X-Crowdsec-Appsec-Host", "shop.example.test"),
        ("X-Crowdsec-Appsec-Verb", "POST"),
        ("X-Crowdsec-Appsec-Api-Key", key),
        ("X-Crowdsec-Appsec-User-Agent", agent),
    ]
}

/// What a client may send that is passed on with the question, and must not count.
const OF_THE_CLIENT: [(&str, &str); 7] = [
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Authorization", "Bearer what-the-application-wants"),
    ("X-Api-Key", "of the application"),
    ("X-Forwarded-For", "192.0.2.99"),
    ("X-Forwarded-Uri", "/never"),
    ("X_Crowdsec_Appsec_Ip", "192.0.2.99"),
    ("X-Ipwarden-Pass", "v1.0"),
];

#[tokio::test]
async fn both_send_the_clients_own_headers_along_with_a_question_about_a_request() {
    let launch = Launch::default().behind_proxies().with("IPWARDEN_IDENTITY__HEADER", "X-User");
    let bed = Bed::embedded(launch).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    for (asks, ip, uri, agent) in [
        // nginx leaves no more of `http://shop.example.test?a=b`; Lua sends the body along, and its kind.
        ("POST", "203.0.113.7", "?a=b", "a browser"),
        ("POST", "203.0.113.8", "/cart?a=b", "a browser"),
        // Caddy: an absolute URI, a client on the same link, and none that says what it is.
        ("GET", "203.0.113.9", "http://shop.example.test/cart?a=b", ""),
        ("GET", "fe80::1%eth0", "//shop.example.test:80", ""),
    ] {
        for left in [4, 3, 2, 1, 0, -1] {
            let body = if asks == "POST" { "a=b" } else { "" };
            let length = body.len().to_string();
            let mut fields = question(&bouncer.key, ip, uri, agent).to_vec();
            fields.extend(OF_THE_CLIENT);
            fields.push(("X-User", "ada"));
            fields.push(("X-Crowdsec-Appsec-Transfer-Encoding", "chunked"));
            fields.push(("Content-Length", &length));
            let (head, body) = raw(replica, &format!("{asks} /v1/appsec"), &fields, body).await;
            let (status, expected) = match left {
                -1 => ("403", json!({ "action": "ban", "http_status": 429 })),
                _ => ("200", json!({ "action": "allow" })),
            };
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{ip}: {head}");
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
        }
    }
    bed.logs(24).await;
    for record in bed.records().await {
        let address = record.address.to_string();
        assert!(address.starts_with("203.0.113.") || address == "fe80::1", "{address}");
        assert_eq!((record.method.as_str(), record.identity), ("POST", None));
        assert!(
            ["/", "/cart", "//shop.example.test:80"].contains(&&*record.path),
            "{}",
            record.path
        );
    }
}

#[tokio::test]
async fn caddy_keeps_a_decision_by_its_scope_to_the_letter_and_hears_an_end_before_what_is_new() {
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    block(&bed, "203.0.113.9", "4h").await;
    block(&bed, "198.51.100.0/24", "4h").await;
    let fields = [
        ("X-Api-Key", &*bouncer.key),
        ("User-Agent", "caddy-cs-bouncer/v0.12.1"),
        ("Accept-Encoding", "gzip"),
    ];
    let pull = async |startup: bool| {
        let line = format!("GET /v1/decisions/stream?startup={startup}");
        let (_, body) = raw(replica, &line, &fields, "").await;
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let told = pull(true).await;
    let scopes: Vec<_> = told["new"].as_array().unwrap().iter().map(|one| &one["scope"]).collect();
    assert!(scopes.contains(&&json!("Ip")) && scopes.contains(&&json!("Range")), "{told}");
    for decision in told["new"].as_array().unwrap() {
        for name in ["scope", "value", "type", "duration", "origin", "scenario"] {
            assert!(decision[name].is_string(), "a pointer that is nil ends it: {decision}");
        }
    }
    // Unblocked and blocked again between two pulls: it deletes first and adds then, others the other way
    // round, so that only one of both is told.
    ipctl(replica, &["unblock", "203.0.113.9"]);
    block(&bed, "203.0.113.9", "1h").await;
    let told = pull(false).await;
    assert_eq!(told["new"][0]["value"], "203.0.113.9");
    assert_eq!(told["deleted"], Value::Null, "{told}");
}
