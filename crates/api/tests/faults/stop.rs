//! SIGTERM under load.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use super::check::{Tally, each_is_logged_once};
use super::common::{Bed, Launch, TEN_TIMES_A_SECOND, eventually};
use super::load::{Load, Outcome, anybody};
use super::{seed, turn};

const GOAL: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_replica_answers_what_it_accepted_and_ships_its_log() {
    let _turn = turn().await;
    let seed = seed();
    for mut bed in Bed::each(Launch::behind_proxies).await {
        let load = Load::start(&[bed.first().public_address()], 300, 12, seed, anybody());
        sleep(Duration::from_secs(1)).await;

        bed.first().terminate();
        let asked = Instant::now();
        let (_, unready) = eventually(TEN_TIMES_A_SECOND, "readiness fails", async || {
            let (status, _) = bed.first().open("/readyz").await;
            (status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
        })
        .await;
        // As a proxy that has seen it: it opens nothing new, and uses what it has.
        load.connect_no_more();
        let status = bed.replicas[0].ended().await;
        let took = asked.elapsed();
        assert_eq!(status.code(), Some(0), "{}", bed.first().said());

        let shots = load.stop().await;
        let tally = Tally::of(&shots);
        tally.assert_no_server_error();
        let failed: Vec<_> =
            shots.iter().filter(|shot| !matches!(shot.outcome, Outcome::Answered { .. })).collect();
        assert!(failed.is_empty(), "reset after {took:?}: {failed:?}");
        let after = shots.iter().filter(|shot| shot.sent + shot.took > asked).count();
        // It said that all was shipped: nobody else ships it, in the embedded size.
        let (late, _) =
            each_is_logged_once(&bed.db, &tally.references, Duration::from_secs(1)).await;
        eprintln!(
            "{}: {} answers, {after} of them after SIGTERM, none reset, all logged ({late:?}); \
             unready after {unready:?}, exit 0 after {took:?} (goal {GOAL:?})",
            bed.size,
            tally.references.len(),
        );
        assert!(took <= GOAL * 10);
    }
}
