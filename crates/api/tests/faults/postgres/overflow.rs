//! PostgreSQL away for longer than the spool has room.

use std::time::Duration;

use ipwarden_testbed::PostgresServer;
use ipwarden_testbed::report::{Part, report};
use reqwest::StatusCode;
use tokio::time::Instant;

use super::super::check::{Tally, logged};
use super::super::common::{Bed, eventually};
use super::super::load::{Load, Outcome, anybody};
use super::super::{seed, short_or_long, turn};
use super::{DRAINED_WITHIN, on_thread, requests, server};

/// The least that may be set.
const SPOOL_BYTES: i64 = 64 << 20;
const LOST: &str = "ipwarden_records_lost_total{cause=\"spool_full\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_that_outlasts_the_spool_costs_the_oldest_records_and_says_how_many() {
    let _turn = turn().await;
    let seed = seed();
    let server = server().await;
    let bed = Bed::on_own_postgres(&server, 1, None, |one| {
        one.behind_proxies().with("IPWARDEN_REQUEST_LOG__SPOOL_BYTES", &SPOOL_BYTES.to_string())
    })
    .await;
    on_thread(&server, PostgresServer::stop).await;

    // As long as a record may be, so that there is soon too much of it.
    let path = format!("/{}", "x".repeat(2_040));
    let (targets, per_second) = ([bed.first().public_address()], short_or_long(2_500, 5_000));
    let load = Load::start_on(&targets, per_second, 32, seed, anybody(), &path);
    eventually(Duration::from_secs(120), "the oldest records go", async || {
        let bytes = bed.first().metric("ipwarden_spool_bytes").await;
        assert!(bytes <= SPOOL_BYTES, "{bytes} bytes of spool");
        (bed.first().metric(LOST).await > 0).then_some(())
    })
    .await;
    let (status, text) = bed.first().open("/readyz?verbose").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains("records were lost"), "it says so: {text}");
    let shots = load.stop().await;
    let tally = Tally::of(&shots);
    assert_eq!((tally.unsent, &tally.lost), (0, &Vec::new()), "requests without an answer");
    assert!(tally.answers.keys().all(|status| *status < 500), "{:?}", tally.answers);

    on_thread(&server, PostgresServer::start).await;
    let back = Instant::now();
    let answered = requests(bed.first()).await;
    eventually(DRAINED_WITHIN * 10, "the rest arrives", async || {
        let (shipped, lost) = (
            bed.first().metric("ipwarden_records_shipped_total").await,
            bed.first().metric(LOST).await,
        );
        (shipped + lost == answered).then_some(())
    })
    .await;
    let (drained, lost) = (back.elapsed(), bed.first().metric(LOST).await);
    let logged = logged(&bed.db).await;
    assert!(logged.values().all(|times| *times == 1), "twice in the log");
    assert_eq!(logged.len() as i64 + lost, answered, "each is in the log or counted as lost");
    // The oldest, in segments: of each worker's records the first are gone, and the last are there.
    let newest = shots.iter().rev().take(100).filter_map(|shot| match &shot.outcome {
        Outcome::Answered { reference, .. } => Some(reference),
        _ => None,
    });
    assert!(newest.into_iter().all(|reference| logged.contains_key(reference)));
    let (status, text) = bed.first().open("/readyz?verbose").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains(&format!("{lost} records were lost")), "{text}");
    report(
        Part::Postgres,
        format!("PostgreSQL away until a spool of {} MiB is full", SPOOL_BYTES >> 20),
        "no request fails; the oldest records go, counted one by one; the rest is stored once",
        format!(
            "{answered} answers, none failed; {} logged once, {lost} counted as lost; drained after \
             {:.1} s",
            logged.len(),
            drained.as_secs_f64()
        ),
    );
}
