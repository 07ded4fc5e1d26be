//! Bytes as no client library sends them: each gets a 4xx or a bounded row, and nothing breaks.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use ipwarden_testbed::report::{Part, report};
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::{Bed, Launch, PATIENCE, Replica, eventually};

async fn connect(replica: &Replica) -> TcpStream {
    TcpStream::connect(replica.public.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Sends bytes and reads until the server closes. It may close before it has read all.
async fn raw(replica: &Replica, bytes: &[u8]) -> String {
    let mut stream = connect(replica).await;
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
    let _ = reading.await.expect("the server answers and closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(target: &[u8], fields: &str) -> Vec<u8> {
    let mut request = b"GET ".to_vec();
    request.extend_from_slice(target);
    request.extend_from_slice(b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
    request.extend_from_slice(fields.as_bytes());
    request.extend_from_slice(b"\r\n");
    request
}

fn path_of(length: usize) -> Vec<u8> {
    let mut path = b"/%2e".to_vec();
    path.resize(length, b'x');
    path
}

#[tokio::test]
async fn whatever_bytes_come_the_answer_is_no_500_and_each_answer_of_ours_is_a_row() {
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let replica = bed.first();
    // With the two that every request has, 97 and one less.
    let fields = |count| (2..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let (many_fields, enough_fields) = (fields(97), fields(96));
    let large_head = |size: usize| {
        let field = |n| format!("x-{n}: {}\r\n", "y".repeat(8_000));
        let mut head = (0..size / 8_008).map(field).collect::<String>();
        head.push_str(&format!("z: {}\r\n", "z".repeat(size.saturating_sub(head.len() + 60))));
        head
    };
    let (head_beyond, head_within) = (large_head(131_200), large_head(120_000));
    let large_field = format!("x-large: {}\r\n", "y".repeat(200 << 10));
    let half_high: Vec<u8> = [b"/".to_vec(), (0x80..=0xff).collect()].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("NUL in the target", get(b"/a\0b", "")),
        ("high bytes in the target", get(&half_high, "")),
        ("UTF-8 in the target", get("/ü/日本".as_bytes(), "")),
        ("CRLF in the target", get(b"/a\r\nx: y", "")),
        ("LF in the target", get(b"/a\nb", "")),
        ("ESC in the target", get(b"/\x1b[31m", "")),
        ("a blank in the target", get(b"/a b", "")),
        ("60 kB of path", get(&path_of(60_000), "")),
        ("70 kB of path", get(&path_of(70_000), "")),
        ("300 kB of path", get(&path_of(300_000), "")),
        ("a field of 200 kB", get(b"/", &large_field)),
        ("97 fields", get(b"/", &many_fields)),
        ("96 fields", get(b"/", &enough_fields)),
        ("a head of 131,200 bytes", get(b"/", &head_beyond)),
        ("a head of 120,000 bytes", get(b"/", &head_within)),
        ("NUL in a field", get(b"/", "x-a: \0\r\n")),
        ("a field without a name", get(b"/", ": a\r\n")),
        ("CR alone in the target", get(b"/a\rb", "")),
        ("escaped CR LF in the target", get(b"/a%0d%0aset-cookie:%20x", "")),
        (
            "an address in the forwarding header that is none",
            get(b"/", "x-forwarded-for: \x01\r\n"),
        ),
        ("high bytes in the forwarding header", get(b"/", "x-forwarded-for: é, 1.2.3.4\r\n")),
        ("absolute form", get(b"http://other.example/../x?y", "")),
        ("a backslash", get(b"/..\\..\\etc", "")),
        ("a fragment", get(b"/#a", "")),
        ("double slash", get(b"//a//", "")),
        ("asterisk", b"OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec()),
        ("CONNECT", b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec()),
        (
            "a method of its own",
            b"B!RK / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec(),
        ),
        ("a long method", [vec![b'A'; 5_000], get(b"/", "")].concat()),
        ("no host", b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec()),
        ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("HTTP/9", b"GET / HTTP/9.9\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("two lengths", get(b"/", "content-length: 1\r\ncontent-length: 2\r\n")),
        ("length and chunks", get(b"/", "content-length: 4\r\ntransfer-encoding: chunked\r\n")),
        ("a bad chunk", [get(b"/", "transfer-encoding: chunked\r\n"), b"zz\r\n".to_vec()].concat()),
        ("three at once", {
            let first = b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n".to_vec();
            [first.clone(), first, get(b"/3", "")].concat()
        }),
    ];
    let mut recorded = 0;
    let mut outcomes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, bytes) in &cases {
        let answer = raw(replica, bytes).await;
        // A server may hang up on what is no HTTP.
        let status = answer.split_whitespace().nth(1).unwrap_or("none");
        outcomes.entry(status.to_owned()).or_default().push(name);
        let good = ["200", "400", "404", "405", "408", "413", "414", "431", "none"];
        assert!(good.contains(&status), "{name}: {answer}");
        let ours = answer.matches("x-ipwarden-reference: ").count();
        assert!(status == "none" || status.starts_with('4') || ours > 0, "{name}: {answer}");
        recorded += ours;
        bed.logs(recorded).await;
        assert_eq!(replica.open("/readyz").await.0, StatusCode::OK, "{name}");
    }
    assert!(recorded >= 15, "{recorded}");
    for record in bed.records().await {
        assert!(record.path.len() <= 2_048 && record.method.len() <= 64, "{record:?}");
        let texts = [&record.path, &record.method];
        assert!(texts.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_graphic())));
    }
    assert_eq!(replica.request(Method::GET, "/").send().await.unwrap().status(), StatusCode::OK);
    // What is no HTTP, or too large, is refused by the server itself, and is no record.
    for (status, names) in [
        ("431", ["a field of 200 kB", "97 fields", "a head of 131,200 bytes"]),
        ("400", ["NUL in the target", "NUL in a field", "high bytes in the target"]),
    ] {
        let refused = &outcomes[status];
        assert!(names.iter().all(|name| refused.contains(name)), "{outcomes:?}");
    }
    assert!(outcomes["200"].contains(&"96 fields"), "{outcomes:?}");
    let said = replica.said();
    let own = said.lines().skip_while(|line| !line.contains("  try ")).count();
    assert_eq!(own, 1, "strangers write no lines into our log:\n{said}");
    let shown = |(status, names): (&String, &Vec<&str>)| format!("{status}: {}", names.join(", "));
    report(
        Part::Hostile,
        format!("{} requests as no client sends them", cases.len()),
        "a 4xx, or a record of at most 2,048 bytes of path that is escaped; never a 5xx",
        format!(
            "{recorded} records, no line in our own log; {}",
            outcomes.iter().map(shown).collect::<Vec<_>>().join("; ")
        ),
    );
}

#[tokio::test]
async fn who_goes_away_before_the_answer_is_in_the_log_too_and_who_sends_half_is_not() {
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let replica = bed.first();
    for host in 0..50 {
        let mut stream = connect(replica).await;
        let fields = format!("x-forwarded-for: 203.0.113.{host}\r\n");
        stream.write_all(&get(b"/aborted", &fields)).await.unwrap();
        drop(stream);
        let mut stream = connect(replica).await;
        stream.write_all(b"GET /half HTTP/1.1\r\nhost:").await.unwrap();
    }
    eventually(PATIENCE, "every whole request is decided", async || {
        let decided = replica.metric("ipwarden_requests_total{verdict=\"allowed\"}").await;
        (decided == 50).then_some(())
    })
    .await;
    bed.logs(50).await;
    let records = bed.records().await;
    assert!(records.iter().all(|record| record.path == "/aborted"), "{records:?}");
    assert!(records.iter().all(|record| [404, 499].contains(&record.status)), "{records:?}");
    assert_eq!(replica.open("/readyz").await.0, StatusCode::OK);
}
