//! The gate while Redis and the database are away: it answers as the public listener does.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

use reqwest::{Method, StatusCode};

use super::common::{Bed, field, left};

async fn status(bed: &Bed, client: &str) -> StatusCode {
    let question = bed.first().question(Method::GET, "/v1/forward-auth");
    let question = question.header("x-forwarded-method", "GET").header("x-forwarded-uri", "/a");
    let answer = question.header("x-forwarded-for", client).send().await.unwrap();
    if answer.status() == StatusCode::OK {
        assert!(left(&answer).is_some(), "{answer:?}");
    }
    assert_eq!(field(&answer, "x-ipwarden-client-ip"), client);
    answer.status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_and_the_database_it_decides_and_loses_no_record() {
    let postgres = ipwarden_testbed::postgres_private().unwrap();
    let redis = ipwarden_testbed::redis_private().unwrap();
    let settings = |launch: super::common::Launch| launch.behind_proxies();
    let bed = Bed::on_own_postgres(&postgres, 1, Some(redis.clone()), settings).await;
    assert_eq!(status(&bed, "192.0.2.1").await, 200);
    bed.logs(1).await;

    redis.stop().unwrap();
    postgres.stop().unwrap();
    for client in ["192.0.2.2", "192.0.2.3"] {
        let mut statuses = Vec::new();
        for _ in 0..7 {
            statuses.push(status(&bed, client).await.as_u16());
        }
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429], "{client}");
    }
    postgres.start().unwrap();
    redis.start().unwrap();
    bed.logs(15).await;
}
