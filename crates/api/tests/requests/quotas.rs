//! Who is admitted how often.

use std::time::Duration;

use ipwarden_core::keys::Role;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use crate::common::{Bed, Launch, PATIENCE, Replica, eventually, field, left};

/// How many of `count` requests are admitted, over all replicas in turn.
async fn admitted(
    bed: &Bed,
    count: usize,
    ask: impl AsyncFn(&Replica, usize) -> StatusCode,
) -> usize {
    let mut admitted = 0;
    for (n, replica) in bed.replicas.iter().cycle().take(count).enumerate() {
        match ask(replica, n).await {
            StatusCode::OK => admitted += 1,
            status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
        }
    }
    admitted
}

#[tokio::test]
async fn the_sixth_within_a_minute_waits_until_the_first_is_a_minute_old() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let began = tokio::time::Instant::now();
        for wanted in (0..5).rev() {
            let answer = bed.first().get("203.0.113.1", "/").await;
            assert_eq!((answer.status(), left(&answer)), (StatusCode::OK, Some(wanted)));
        }
        for _ in 0..20 {
            let answer = bed.replicas.last().unwrap().get("203.0.113.1", "/").await;
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(left(&answer), Some(0));
            let seconds: u64 = field(&answer, "retry-after").parse().unwrap();
            let elapsed = began.elapsed().as_secs();
            assert!((59 - elapsed..=60).contains(&seconds), "{seconds} s after {elapsed} s");
            let limit = format!("\"anonymous\";r=0;t={seconds}");
            assert_eq!(field(&answer, "ratelimit"), limit);
        }
    }
}

/// With three in six seconds for five in sixty.
#[tokio::test]
async fn who_asks_at_intervals_waits_until_the_oldest_has_aged() {
    const PERIOD: f64 = 6.0;
    const SPACE: Duration = Duration::from_millis(1_300);
    let policies = "[[quotas]]\nname = \"short\"\npaths = [\"/\"]\nanonymous = \"3/6s\"\n";
    for bed in Bed::each(|launch| launch.behind_proxies().file(policies)).await {
        let ask = async |replica: &Replica| {
            let sent = Instant::now();
            let answer = replica.get("203.0.113.1", "/").await;
            (sent, answer, Instant::now())
        };
        let (sent, first, received) = ask(bed.first()).await;
        assert_eq!(first.status(), StatusCode::OK);
        for _ in 0..2 {
            tokio::time::sleep(SPACE).await;
            assert_eq!(ask(bed.first()).await.1.status(), StatusCode::OK);
        }
        tokio::time::sleep(SPACE).await;
        let (asked, refused, told) = ask(bed.replicas.last().unwrap()).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{}", bed.size);
        let wait: f64 = field(&refused, "retry-after").parse().unwrap();
        // The oldest was admitted between being sent and being answered.
        let [longest, shortest] =
            [asked - received, told - sent].map(|age| (PERIOD - age.as_secs_f64()).ceil());
        assert!((shortest..=longest).contains(&wait), "{wait} of {shortest} to {longest} s");
        assert!(shortest < PERIOD, "it has aged");
        // It is the truth: not before, and then at once.
        tokio::time::sleep(Duration::from_secs_f64(wait)).await;
        assert_eq!(ask(bed.first()).await.1.status(), StatusCode::OK, "{}", bed.size);
    }
}

#[tokio::test]
async fn a_key_is_counted_by_itself_wherever_it_comes_from() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let (anna, berta) = (bed.key(Role::User).await, bed.key(Role::Reader).await);
        let carla = bed.key(Role::User).await;
        let ask = async |replica: &Replica, n: usize| {
            replica.get_as(&anna, &format!("203.0.113.{}", n % 3)).await.status()
        };
        assert_eq!(admitted(&bed, 12, ask).await, 10, "{}: one key, three addresses", bed.size);
        for key in [&berta, &carla] {
            let ask =
                async |replica: &Replica, _| replica.get_as(key, "203.0.113.9").await.status();
            assert_eq!(admitted(&bed, 11, ask).await, 10, "{}: two keys, one address", bed.size);
        }
        // Never both: the address itself still has all of its own.
        let ask = async |replica: &Replica, _| replica.get("203.0.113.9", "/").await.status();
        assert_eq!(admitted(&bed, 11, ask).await, 5, "{}", bed.size);
        let answer = bed.first().get_as("ipw_not_a_key", "203.0.113.10").await;
        assert_eq!(field(&answer, "ratelimit-policy"), r#""anonymous";q=5;w=60"#);
        let answer = bed.first().get_as(&anna, "203.0.113.10").await;
        assert_eq!(field(&answer, "ratelimit-policy"), r#""authenticated";q=10;w=60"#);
    }
}

#[tokio::test]
async fn blocked_requests_are_not_counted() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let block = json!({ "target": "203.0.113.5" });
        let (status, _) = bed.api(Method::POST, "/api/v1/blocks", Some(block)).await;
        assert_eq!(status, StatusCode::CREATED);
        for replica in &bed.replicas {
            eventually(PATIENCE, "the block arrives", async || {
                (replica.metric("ipwarden_blocked_networks").await == 1).then_some(())
            })
            .await;
        }
        for replica in bed.replicas.iter().cycle().take(100) {
            let answer = replica.get("203.0.113.5", "/").await;
            assert_eq!((answer.status(), left(&answer)), (StatusCode::FORBIDDEN, None));
        }
        for replica in &bed.replicas {
            assert_eq!(replica.metric("ipwarden_limiter_clients").await, 0);
        }
        let (status, _) = bed.api(Method::DELETE, "/api/v1/blocks/203.0.113.5", None).await;
        assert_eq!(status, StatusCode::OK);
        for replica in &bed.replicas {
            eventually(PATIENCE, "the change arrives", async || {
                (replica.metric("ipwarden_blocked_networks").await == 0).then_some(())
            })
            .await;
        }
        let ask = async |replica: &Replica, _| replica.get("203.0.113.5", "/").await.status();
        assert_eq!(admitted(&bed, 6, ask).await, 5, "{}", bed.size);
    }
}

#[tokio::test]
async fn an_ipv6_client_is_its_64() {
    for bed in Bed::each(Launch::behind_proxies).await {
        let ask = async |replica: &Replica, n: usize| {
            replica.get(&format!("2001:db8:0:1::{n:x}"), "/").await.status()
        };
        assert_eq!(admitted(&bed, 1_000, ask).await, 5, "{}", bed.size);
        for net in 2..4 {
            let ask = async |replica: &Replica, n: usize| {
                replica.get(&format!("2001:db8:0:{net}::{n:x}"), "/").await.status()
            };
            assert_eq!(admitted(&bed, 8, ask).await, 5, "{}", bed.size);
        }
    }
}

const POLICIES: &str = r#"
[[quotas]]
name = "search"
paths = ["/search"]
methods = ["GET"]
anonymous = "2/1m"
authenticated = "3/1m"

[[quotas]]
name = "watched"
paths = ["/watched"]
anonymous = "5/1m"
dry_run = true
"#;

#[tokio::test]
async fn a_policy_holds_its_paths_and_methods_however_the_path_is_written() {
    for bed in Bed::each(|launch| launch.behind_proxies().file(POLICIES)).await {
        let replica = bed.first();
        let answer = replica.get("203.0.113.1", "/search").await;
        assert_eq!(field(&answer, "ratelimit-policy"), r#""search";q=2;w=60"#);
        assert_eq!((answer.status(), left(&answer)), (StatusCode::NOT_FOUND, Some(1)));
        let answer = replica.get("203.0.113.1", "/%73earch/deep?q=x").await;
        assert_eq!((answer.status(), left(&answer)), (StatusCode::NOT_FOUND, Some(0)));
        for path in ["/search", "/%73earch", "/search/", "/search?x", "//search", "/x/../search"] {
            let answer = replica.get("203.0.113.1", path).await;
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
            let problem: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(problem["violated-policies"], json!(["search"]));
        }
        // Another method, another path, another client: each counts elsewhere.
        let post =
            replica.request(Method::POST, "/search").header("x-forwarded-for", "203.0.113.1");
        let answer = post.send().await.unwrap();
        assert_eq!(field(&answer, "ratelimit-policy"), r#""anonymous";q=5;w=60"#);
        assert_eq!((answer.status(), left(&answer)), (StatusCode::NOT_FOUND, Some(4)));
        let answer = replica.get("203.0.113.1", "/searching").await;
        assert_eq!((answer.status(), left(&answer)), (StatusCode::NOT_FOUND, Some(3)));
        let answer = replica.get("203.0.113.2", "/search").await;
        assert_eq!((answer.status(), left(&answer)), (StatusCode::NOT_FOUND, Some(1)));
        let key = bed.key(Role::User).await;
        let request = replica.request(Method::GET, "/search").bearer_auth(&key);
        let answer = request.header("x-forwarded-for", "203.0.113.1").send().await.unwrap();
        assert_eq!(field(&answer, "ratelimit-policy"), r#""search";q=3;w=60"#);
    }
}

#[tokio::test]
async fn a_dry_run_refuses_nothing_and_counts_what_it_would() {
    for bed in Bed::each(|launch| launch.behind_proxies().file(POLICIES)).await {
        for _ in 0..20 {
            let answer = bed.first().get("203.0.113.1", "/watched").await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        }
        assert_eq!(bed.first().metric("ipwarden_would_limit_total").await, 15, "{}", bed.size);
        bed.logs(20).await;
        assert!(bed.records().await.iter().all(|record| record.verdict == "allowed"));
    }
}
