//! Server-sent events: what happens is told once, in order, and from where a reader left.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use ipwarden_core::keys::{self, Role};
use ipwarden_core::lists::Actor;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch, PATIENCE, eventually, field, now};

/// A reader of a stream.
struct Reader {
    answer: Response,
    unread: String,
}

#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Reader {
    async fn open(bed: &Bed, replica: usize, path: &str, last: Option<&str>) -> Reader {
        let answer = ask(bed, replica, path, last).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(field(&answer, "content-type"), "text/event-stream");
        let mut reader = Reader { answer, unread: String::new() };
        // Where it stands, before anything happens.
        let first = reader.block().await.unwrap();
        assert!(first.starts_with("retry: 2000\n: alive\nid: "), "{first}");
        reader
    }

    /// The lines up to the next empty one; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                return Some(block);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.answer.chunk()).await.unwrap();
            self.unread.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        }
    }

    /// The next event; signs of life are passed over.
    async fn event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let line = |name: &str| {
                let found = block.lines().find_map(|line| line.strip_prefix(name));
                found.map(|text| text.trim_start_matches(": ").to_owned())
            };
            if let (Some(name), Some(id), Some(data)) = (line("event"), line("id"), line("data")) {
                return Some(Event { name, id, data: serde_json::from_str(&data).unwrap() });
            }
        }
    }
}

async fn ask(bed: &Bed, replica: usize, path: &str, last: Option<&str>) -> Response {
    let url = format!("{}/api/v1{path}", bed.replicas[replica].control);
    let mut request = reqwest::Client::new().get(url).bearer_auth(&bed.admin);
    if let Some(id) = last {
        request = request.header("last-event-id", id);
    }
    request.send().await.unwrap()
}

async fn block(bed: &Bed, host: usize) {
    let body = json!({ "target": format!("203.0.113.{host}") });
    let (status, _) = bed.api(Method::POST, "/api/v1/blocks", Some(body)).await;
    assert_eq!(status, StatusCode::CREATED);
}

#[tokio::test]
async fn changes_of_the_lists_are_told_in_order_and_from_where_a_reader_left() {
    for bed in Bed::each(|launch| launch).await {
        let last = bed.replicas.len() - 1;
        let mut reader = Reader::open(&bed, last, "/changes/stream", None).await;
        for host in 0..4 {
            block(&bed, host).await;
        }
        let mut read = Vec::new();
        for _ in 0..2 {
            read.push(reader.event().await.unwrap());
        }
        drop(reader);
        block(&bed, 4).await;
        bed.api(Method::DELETE, "/api/v1/blocks/203.0.113.0", None).await;
        let id = read.last().unwrap().id.clone();
        let mut reader = Reader::open(&bed, 0, "/changes/stream", Some(&id)).await;
        for _ in 0..4 {
            read.push(reader.event().await.unwrap());
        }
        let told: Vec<_> = read
            .iter()
            .map(|event| {
                (event.data["op"].as_str().unwrap(), event.data["network"].as_str().unwrap())
            })
            .collect();
        let expected = ["203.0.113.0", "203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"];
        assert_eq!(told[..5], expected.map(|network| ("set", network)));
        assert_eq!(told[5], ("removed", "203.0.113.0"));
        let versions: Vec<_> =
            read.iter().map(|event| event.data["version"].as_i64().unwrap()).collect();
        assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
        assert!(read.iter().all(|event| event.name == "change"));
    }
}

#[tokio::test]
async fn records_are_told_as_they_come_and_none_is_missed_by_who_comes_back() {
    for bed in Bed::each(Launch::behind_proxies).await {
        bed.first().get("198.51.100.1", "/before").await;
        bed.logs(1).await;
        let last = bed.replicas.len() - 1;
        let mut reader = Reader::open(&bed, last, "/request-logs/stream", None).await;
        let mut paths = BTreeSet::new();
        for n in 0..6 {
            let replica = &bed.replicas[n % bed.replicas.len()];
            replica.get(&format!("203.0.113.{n}"), &format!("/path-{n}")).await;
        }
        let mut id = String::new();
        for _ in 0..3 {
            let event = reader.event().await.unwrap();
            assert_eq!(event.name, "record");
            paths.insert(event.data["path"].as_str().unwrap().to_owned());
            id = event.id;
        }
        assert_eq!(paths.len(), 3, "each once: {paths:?}");
        drop(reader);
        bed.first().get("203.0.113.200", "/meanwhile").await;
        bed.logs(8).await;
        let mut reader = Reader::open(&bed, 0, "/request-logs/stream", Some(&id)).await;
        while paths.len() < 7 {
            let event = reader.event().await.unwrap();
            let path = event.data["path"].as_str().unwrap().to_owned();
            // In a fleet the last seconds are told again, for those who were late.
            let again = path == "/before" || !paths.insert(path.clone());
            assert!(!again || bed.size == "fleet", "{path} again");
        }
        assert!(paths.contains("/meanwhile"), "{paths:?}");
    }
}

#[tokio::test]
async fn a_stream_tells_only_what_its_filters_show() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let path = "/request-logs/stream?ip=203.0.113.0/24&verdict=throttled";
        let mut reader = Reader::open(&bed, 0, path, None).await;
        for _ in 0..6 {
            bed.first().get("198.51.100.1", "/other").await;
            bed.first().get("203.0.113.1", "/often").await;
        }
        let event = reader.event().await.unwrap();
        let (address, verdict) = (&event.data["address"], &event.data["verdict"]);
        assert_eq!((address, verdict), (&json!("203.0.113.1"), &json!("throttled")));
        // A position of this stream counts for no other.
        let other = ask(&bed, 0, "/request-logs/stream", Some(&event.id)).await;
        assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn a_position_that_was_tampered_with_is_refused_by_name() {
    let bed = Bed::embedded(Launch::default()).await;
    for path in ["/request-logs/stream", "/changes/stream"] {
        for (path, last, named) in [
            (path.to_owned(), Some("1"), "Last-Event-ID"),
            (path.to_owned(), Some(""), "Last-Event-ID"),
            (format!("{path}?cursor=1.2"), None, "cursor"),
            (format!("{path}?limit=1"), None, "limit"),
        ] {
            let answer = ask(&bed, 0, &path, last).await;
            assert!(answer.status().is_client_error(), "{path} {last:?}: {}", answer.status());
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["errors"][0]["field"], named, "{problem}");
        }
    }
}

#[tokio::test]
async fn there_is_room_for_so_many_readers_and_again_when_one_leaves() {
    let bed = Bed::embedded(Launch::default()).await;
    let mut readers = Vec::new();
    for _ in 0..16 {
        readers.push(Reader::open(&bed, 0, "/changes/stream", None).await);
    }
    let answer = ask(&bed, 0, "/request-logs/stream", None).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&answer, "retry-after"), "5");
    readers.pop();
    eventually(PATIENCE, "there is room", async || {
        (ask(&bed, 0, "/changes/stream", None).await.status() == StatusCode::OK).then_some(())
    })
    .await;
    block(&bed, 1).await;
    for reader in &mut readers {
        assert_eq!(reader.event().await.unwrap().data["network"], "203.0.113.1");
    }
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives_longer_than_an_idle_connection() {
    let bed = Bed::embedded(Launch::default()).await;
    let mut reader = Reader::open(&bed, 0, "/changes/stream", None).await;
    let block = reader.block().await.unwrap();
    assert!(block.starts_with(": alive\nid: ") && !block.contains("data"), "{block}");
}

#[tokio::test]
async fn a_stream_ends_with_the_process_and_with_the_key_of_its_reader() {
    let mut bed = Bed::embedded(Launch::default()).await;
    let key = bed.key(Role::Reader).await;
    let admin = std::mem::replace(&mut bed.admin, key.clone());
    let mut reader = Reader::open(&bed, 0, "/changes/stream", None).await;
    bed.admin = admin;
    let id = key.split('_').nth(1).unwrap().to_owned();
    let actor = Actor { name: "cli:test".to_owned(), address: None };
    keys::revoke(&bed.db, id, actor, now()).await.unwrap();
    assert!(reader.event().await.is_none());

    let mut reader = Reader::open(&bed, 0, "/request-logs/stream", None).await;
    let began = tokio::time::Instant::now();
    bed.first().terminate();
    assert!(reader.event().await.is_none());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(bed.replicas[0].ended().await.success());
}
