//! Pages and filters: nothing is skipped or shown twice, and every character means itself.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch};

async fn page(bed: &Bed, path: &str) -> (Vec<Value>, Option<String>) {
    let (status, page) = bed.api(Method::GET, path, None).await;
    assert_eq!(status, StatusCode::OK, "{path}: {page}");
    let next = page["next"].as_str().map(str::to_owned);
    (page["items"].as_array().unwrap().clone(), next)
}

/// All rows of a listing, page by page; `between` happens after each page.
async fn walk(bed: &Bed, path: &str, mut between: impl AsyncFnMut()) -> Vec<Value> {
    let (mut rows, mut next) = page(bed, path).await;
    while let Some(cursor) = next {
        between().await;
        let (more, following) = page(bed, &format!("{path}&cursor={cursor}")).await;
        assert!(!more.is_empty() || following.is_none());
        rows.extend(more);
        next = following;
    }
    rows
}

#[tokio::test]
async fn pages_of_blocks_show_each_row_once_while_others_arrive() {
    for bed in Bed::each(|launch| launch).await {
        let put = async |network: String| {
            let (status, _) =
                bed.api(Method::POST, "/api/v1/blocks", Some(json!({ "target": network }))).await;
            assert_eq!(status, StatusCode::CREATED);
        };
        for host in 0..25 {
            put(format!("203.0.113.{host}")).await;
        }
        let mut later = 0;
        let rows = walk(&bed, "/api/v1/blocks?limit=10", async || {
            later += 1;
            put(format!("198.51.100.{later}")).await;
        })
        .await;
        let networks: Vec<_> = rows.iter().map(|row| row["network"].as_str().unwrap()).collect();
        let old: BTreeSet<_> =
            networks.iter().filter(|text| text.starts_with("203.0.113.")).collect();
        assert_eq!((old.len(), networks.len()), (25, 25), "{networks:?}");
        assert!(later >= 2);
    }
}

#[tokio::test]
async fn pages_of_the_log_show_each_row_once_while_others_arrive() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let mut sent = 0;
        for host in 0..40 {
            bed.first().get(&format!("203.0.113.{host}"), "/old").await;
            sent += 1;
        }
        bed.logs(sent).await;
        let rows = walk(&bed, "/api/v1/request-logs?limit=7", async || {
            sent += 1;
            bed.first().get("198.51.100.1", "/new").await;
            bed.logs(sent).await;
        })
        .await;
        let addresses: BTreeSet<_> =
            rows.iter().map(|row| row["address"].as_str().unwrap()).collect();
        assert_eq!((rows.len(), addresses.len()), (40, 40), "{rows:?}");
        assert!(sent > 44);
        let times: Vec<DateTime<Utc>> =
            rows.iter().map(|row| row["at"].as_str().unwrap().parse().unwrap()).collect();
        assert!(times.is_sorted_by(|newer, older| newer >= older), "newest first: {times:?}");
    }
}

#[tokio::test]
async fn a_cursor_counts_as_it_was_given_and_nowhere_else() {
    for bed in Bed::each(Launch::behind_proxies).await {
        for host in 0..4 {
            bed.first().get(&format!("203.0.113.{host}"), "/x").await;
        }
        bed.logs(4).await;
        let listing = "/api/v1/request-logs?ip=203.0.113.0/24&path=/x&limit=2";
        let (_, next) = page(&bed, listing).await;
        let cursor = next.unwrap();
        // Another size of page, the filters in another order, another replica: all the same listing.
        let other = "/api/v1/request-logs?limit=1&path=/x&ip=203.0.113.0/24";
        let path = format!("{other}&cursor={cursor}");
        for replica in &bed.replicas {
            let (status, page) = replica.control(Method::GET, &path, Some(&bed.admin), None).await;
            assert_eq!((status, page["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
        }
        let mut wrong = vec![
            format!("/api/v1/request-logs?cursor={cursor}"),
            format!("/api/v1/request-logs?ip=203.0.113.0/24&path=/y&cursor={cursor}"),
            format!("/api/v1/blocks?cursor={cursor}"),
            format!("{listing}&cursor={cursor}A"),
            format!("{listing}&cursor={}", &cursor[1..]),
        ];
        for at in 0..cursor.len() {
            let mut text = cursor.clone().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            wrong.push(format!("{listing}&cursor={}", String::from_utf8(text).unwrap()));
        }
        for path in wrong {
            let (status, problem) = bed.api(Method::GET, &path, None).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {problem}");
            assert_eq!(problem["errors"][0]["field"], "cursor", "{path}: {problem}");
        }
    }
}

#[tokio::test]
async fn hours_that_were_judged_and_what_was_changed_come_in_pages() {
    for bed in Bed::each(|launch| launch).await {
        let began = crate::common::now();
        bed.scan(began).await;
        let (scans, _) = page(&bed, "/api/v1/scans").await;
        assert!(!scans.is_empty() && scans[0]["window_start"].is_string(), "{scans:?}");
        for host in 0..5 {
            let body = json!({ "target": format!("203.0.113.{host}"), "reason": "noise" });
            bed.api(Method::POST, "/api/v1/blocks", Some(body)).await;
        }
        let rows = walk(&bed, "/api/v1/audit?limit=2", async || ()).await;
        let targets: Vec<_> = rows.iter().map(|row| row["target"].as_str().unwrap()).collect();
        let newest: Vec<_> = (0..5).rev().map(|host| format!("203.0.113.{host}")).collect();
        assert_eq!(targets[..5], newest, "{rows:?}");
        insta::assert_json_snapshot!("audit", rows[0], {
            ".id" => "[id]", ".at" => "[time]", ".actor" => "[admin]",
        });
    }
}

#[tokio::test]
async fn filters_of_the_log_mean_what_they_say_letter_by_letter() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let paths =
            ["/a%25b", "/a_b", "/axb", "/a%5Cb", "/a'b", "/';%20DROP%20TABLE%20request_log;--"];
        for (host, path) in (1..).zip(paths) {
            bed.first().get(&format!("203.0.113.{host}"), path).await;
        }
        bed.first().get("2001:db8::7", "/six").await;
        for _ in 0..7 {
            bed.first().get("198.51.100.1", "/often").await;
        }
        bed.logs(14).await;
        let times: BTreeSet<String> = walk(&bed, "/api/v1/request-logs?limit=1000", async || ())
            .await
            .iter()
            .map(|row| row["at"].as_str().unwrap().to_owned())
            .collect();
        let (first, last) = (times.first().unwrap(), times.last().unwrap());
        let cases = [
            ("path=/a_".to_owned(), 1),
            ("path=/a%25".to_owned(), 2), // `%25b` and `%5Cb`, as they came
            ("path=/a%2525".to_owned(), 1),
            ("path=/a%25b".to_owned(), 0),
            ("path=/a".to_owned(), 5),
            ("path=/A".to_owned(), 0),
            ("path=%25".to_owned(), 0),
            ("path=/';%2520DROP".to_owned(), 1),
            ("path='%2520or%25201=1--".to_owned(), 0),
            ("path=/a*".to_owned(), 0),
            ("ip=203.0.113.3".to_owned(), 1),
            ("ip=203.0.113.0/24".to_owned(), 6),
            ("ip=203.0.113.0/30".to_owned(), 3),
            ("ip=2001:db8::/32".to_owned(), 1),
            ("ip=::/0".to_owned(), 1),
            ("ip=0.0.0.0/0".to_owned(), 13),
            ("verdict=throttled".to_owned(), 2),
            ("verdict=allowed".to_owned(), 12),
            ("verdict=allowed&path=/often".to_owned(), 5),
            ("verdict=blocked".to_owned(), 0),
            ("status=404".to_owned(), 12),
            ("status=4xx".to_owned(), 14),
            ("status=429&path=/often".to_owned(), 2),
            ("status=5xx".to_owned(), 0),
            ("country=de".to_owned(), 0),
            (format!("since={first}"), 14),
            (format!("until={first}"), 0),
            (format!("since={last}"), 1),
            (format!("until={last}"), 13),
            ("until=2001-01-01T00:00:00%2B02:00".to_owned(), 0),
        ];
        for (query, expected) in cases {
            let (rows, _) = page(&bed, &format!("/api/v1/request-logs?{query}")).await;
            assert_eq!(rows.len(), expected, "{}: {query}: {rows:#?}", bed.size);
        }
        assert_eq!(bed.logged().await, 14);
    }
}

#[tokio::test]
async fn a_record_in_the_api_has_the_names_that_others_rely_on() {
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let request = bed.first().request(Method::GET, "/login?next=/").header("user-agent", "a \"b\"");
    request.header("x-forwarded-for", "203.0.113.5").send().await.unwrap();
    bed.logs(1).await;
    let (_, page) = bed.api(Method::GET, "/api/v1/request-logs", None).await;
    insta::assert_json_snapshot!("request_logs", page, {
        ".items[].at" => "[time]", ".items[].recorded_at" => "[time]", ".items[].id" => "[id]",
        ".items[].reference" => "[reference]", ".items[].node" => "[node]",
    });
}
