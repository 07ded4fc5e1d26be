//! `kill -9` of a replica under load.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::{Create, Db, blocked_ips};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::time::sleep;

use super::check::{Tally, each_is_logged_once};
use super::common::{Bed, Launch, TEN_TIMES_A_SECOND, now};
use super::load::{Load, anybody};
use super::{seed, turn};

const KILLS: u32 = 10;
/// With an empty list; ten times the goal for a million blocks.
const READY_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_loses_no_answered_request_and_no_block() {
    let _turn = turn().await;
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let file = bed.first().dir().join("data/ipwarden.db");
    let (mut blocked, mut ready): (Vec<Ipv4Addr>, Vec<Duration>) = (Vec::new(), Vec::new());

    let load = Load::start(&[bed.first().public_address()], 300, 8, seed, anybody());
    for round in 0..KILLS {
        // Operators are at work as well.
        let (url, key) = (format!("{}/api/v1/blocks", bed.first().control), bed.admin.clone());
        let blocking = tokio::spawn(block_on(url, key, round));
        sleep(Duration::from_millis(rng.u64(20..700))).await;
        bed.replicas[0].crash();
        blocked.extend(blocking.await.unwrap());

        let store = Db::open_sqlite(&file, Create::Never).await.unwrap();
        let Db::Sqlite(pool) = &store else { unreachable!("it is a file") };
        assert_eq!(pool.check_integrity().await.unwrap(), Vec::<String>::new(), "round {round}");

        ready.push(bed.replicas[0].start_again().await);
        load.moved(0, bed.first().public_address());
        if let Some(last) = blocked.last() {
            let answer = bed.first().get(&last.to_string(), "/").await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{last} in round {round}");
        }
    }
    sleep(Duration::from_millis(300)).await;
    let shots = load.stop().await;
    let tally = Tally::of(&shots);
    tally.assert_no_server_error();
    // At most what was on its way on each connection at each kill.
    assert!(tally.lost.len() <= 8 * KILLS as usize, "{} lost", tally.lost.len());

    let within = TEN_TIMES_A_SECOND;
    let (took, unanswered) = each_is_logged_once(&bed.db, &tally.references, within).await;
    // Those that asked for the last block are in it, too.
    let own = usize::try_from(KILLS).unwrap();
    assert!(unanswered <= tally.lost.len() + own, "{unanswered} records of nobody's requests");

    let rows = bed.db.run(|conn| blocked_ips::page(conn, None, 10_000, now()).boxed());
    let rows = rows.await.unwrap();
    let there: Vec<String> = rows.iter().map(|row| row.network.to_string()).collect();
    for address in &blocked {
        assert!(there.contains(&address.to_string()), "the block of {address} is gone");
    }
    assert!(!blocked.is_empty(), "no block was made");
    ready.sort_unstable();
    eprintln!(
        "{KILLS} kills: {} answers, all logged once after {took:?} ({unanswered} unanswered ones \
         too); {} blocks; ready again after {:?} (median), {:?} (longest; goal 200 ms)",
        tally.references.len(),
        blocked.len(),
        ready[ready.len() / 2],
        ready[ready.len() - 1],
    );
    assert!(ready[ready.len() / 2] <= READY_WITHIN, "{ready:?}");
}

/// Blocks one address after the other until nobody answers; those whose block was confirmed.
async fn block_on(url: String, key: String, round: u32) -> Vec<Ipv4Addr> {
    let client = Client::new();
    let mut blocked = Vec::new();
    for host in 0..250 {
        let address =
            Ipv4Addr::from_bits(Ipv4Addr::new(100, 100, 0, 0).to_bits() + round * 256 + host);
        let request = client.post(&url).bearer_auth(&key).json(&json!({ "target": address }));
        match request.send().await {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::CREATED),
            Err(_) => break,
        }
        blocked.push(address);
        sleep(Duration::from_millis(10)).await;
    }
    blocked
}
