//! `/v1/appsec`: one question about each request.

use reqwest::{Method, RequestBuilder, StatusCode};

use super::client::{Bouncer, block};
use super::common::{Bed, Launch, TEN_TIMES_A_SECOND, eventually, field};

fn question(bed: &Bed, key: &str, client: &str, uri: &str) -> RequestBuilder {
    reqwest::Client::new()
        .request(Method::POST, format!("{}/v1/appsec", bed.first().gate))
        .header("x-crowdsec-appsec-api-key", key)
        .header("x-crowdsec-appsec-ip", client)
        .header("x-crowdsec-appsec-uri", uri)
        .header("x-crowdsec-appsec-host", "shop.example.test")
        .header("x-crowdsec-appsec-verb", "PUT")
        .header("x-crowdsec-appsec-user-agent", "a browser")
        .header("x-crowdsec-appsec-http-version", "11")
        .body("the client's own body")
}

#[tokio::test]
async fn each_request_gets_the_guards_answer_and_one_record() {
    for bed in Bed::each(|launch| launch).await {
        let bouncer = Bouncer::of(&bed).await;
        let ask = async |client: &str, uri: &str| {
            let answer = question(&bed, &bouncer.key, client, uri).send().await.unwrap();
            let retry_after = field(&answer, "retry-after").to_owned();
            (answer.status(), retry_after, answer.text().await.unwrap())
        };
        for _ in 0..5 {
            let (status, _, body) = ask("203.0.113.7", "/cart?secret=1").await;
            assert_eq!((status, &*body), (StatusCode::OK, r#"{"action":"allow"}"#));
        }
        let (status, _, body) = ask("203.0.113.7", "/cart").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(body, r#"{"action":"ban","http_status":429}"#);
        block(&bed, "203.0.113.9", "4h").await;
        eventually(TEN_TIMES_A_SECOND, "the block is live", async || {
            let (_, _, body) = ask("203.0.113.9", "/").await;
            (body == r#"{"action":"ban","http_status":403}"#).then_some(())
        })
        .await;
        let (rows, _) = eventually(TEN_TIMES_A_SECOND, "all is recorded", async || {
            let rows = bed.records().await;
            (rows.iter().filter(|row| row.path == "/cart").count() >= 6).then_some(rows)
        })
        .await;
        let mut of_client: Vec<_> =
            rows.iter().filter(|row| row.address.to_string() == "203.0.113.7").collect();
        of_client.sort_by_key(|row| row.at);
        let statuses: Vec<i16> = of_client.iter().map(|row| row.status).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
        for row in of_client {
            assert_eq!((&*row.method, &*row.path), ("PUT", "/cart"));
            assert_eq!(row.user_agent.as_deref(), Some("a browser"));
        }
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_is_no_ban_and_leaves_no_record() {
    let bed = Bed::embedded(Launch::default()).await;
    let bouncer = Bouncer::of(&bed).await;
    let wrong = question(&bed, "ipw_no_key", "203.0.113.7", "/").send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let admin = question(&bed, &bed.admin, "203.0.113.7", "/").send().await.unwrap();
    assert_eq!(admin.status(), StatusCode::UNAUTHORIZED);
    for (client, uri) in [("nobody", "/"), ("203.0.113.0/24", "/"), ("203.0.113.7", "")] {
        let answer = question(&bed, &bouncer.key, client, uri).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{client} {uri}");
    }
    let twice = question(&bed, &bouncer.key, "203.0.113.7", "/");
    let twice = twice.header("x-crowdsec-appsec-ip", "203.0.113.8").send().await.unwrap();
    assert_eq!(twice.status(), StatusCode::BAD_REQUEST);
    let good = question(&bed, &bouncer.key, "203.0.113.7", "/").send().await.unwrap();
    assert_eq!(good.status(), StatusCode::OK);
    bed.logs(1).await;
}
