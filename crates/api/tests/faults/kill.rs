//! `kill -9` of a replica under load, at random instants and at those that matter.

use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt as _;
use ipwarden_core::changes::COPY;
use ipwarden_core::db::{Create, Db, blocked_ips};
use ipwarden_core::keys::ADMIN_KEY_FILE;
use ipwarden_engine::blocklist::disk;
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::{Client, Method, StatusCode};
use serde_json::json;
use tokio::time::sleep;

use super::check::{Tally, each_is_logged_once};
use super::common::{Bed, Launch, Replica, TEN_TIMES_A_SECOND, now};
use super::load::{Load, anybody};
use super::{seed, turn};

/// With an empty list; ten times the goal for a million blocks.
const READY_WITHIN: Duration = Duration::from_secs(2);
const CONNECTIONS: u32 = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_loses_no_answered_request_and_no_block() {
    let _turn = turn().await;
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    kill_often(bed, short_or_long(20, 500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_of_a_fleet_lose_no_answered_request_and_no_block() {
    let _turn = turn().await;
    let bed = Bed::fleet(3, Launch::behind_proxies).await;
    kill_often(bed, short_or_long(20, 1_000)).await;
}

/// Kills one replica after the other, under load and while operators are at work.
async fn kill_often(mut bed: Bed, kills: u32) {
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let (mut blocked, mut ready): (Vec<Ipv4Addr>, Vec<Duration>) = (Vec::new(), Vec::new());
    let per_second = short_or_long(300, 1_000);
    let load = start_load(&bed, per_second, seed);
    for round in 0..kills {
        let victim = rng.usize(..bed.replicas.len());
        let (url, key) =
            (format!("{}/api/v1/blocks", bed.replicas[victim].control), bed.admin.clone());
        let blocking = tokio::spawn(block_on(url, key, round));
        sleep(instant(&mut rng)).await;
        bed.replicas[victim].crash();
        blocked.extend(blocking.await.unwrap());

        assert_file_is_whole(&bed, round).await;
        ready.push(bed.replicas[victim].start_again().await);
        load.moved(victim, bed.replicas[victim].public_address());
        if let Some(last) = blocked.last() {
            let answer = bed.replicas[victim].get(&last.to_string(), "/").await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{last} in round {round}");
        }
    }
    sleep(Duration::from_millis(300)).await;
    let tally = Tally::of(&load.stop().await);
    tally.assert_no_server_error();
    let (took, unanswered) = assert_logged(&bed, &tally, kills).await;
    assert_blocked(&bed, &blocked).await;
    ready.sort_unstable();
    let median = ready[ready.len() / 2];
    report(
        Part::Kills,
        format!(
            "{kills} `kill -9` at random instants, {} replicas ({}), {per_second} requests a second",
            bed.replicas.len(),
            bed.size,
        ),
        "Every answered request is in the log once, every confirmed block is in force at once, \
         `integrity_check` is ok each time; ready again at once (goal 200 ms)",
        format!(
            "{} answers, each logged once ({took:.0?} after the last; {unanswered} records of requests \
             that the kill left without an answer); {} blocks, all there; ready again after {median:.0?} \
             (median), {:.0?} (longest)",
            tally.references.len(),
            blocked.len(),
            ready[ready.len() - 1],
        ),
    );
    assert!(median <= READY_WITHIN, "{ready:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_killed_at_a_moment_that_matters_comes_back_whole() {
    let _turn = turn().await;
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let mut bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let load = start_load(&bed, 300, seed);
    let rounds = short_or_long(4, 100);
    let mut blocked = Vec::new();
    let kinds = 4;
    for round in 0..rounds * kinds {
        let replica = &mut bed.replicas[0];
        match round % kinds {
            // As soon as it is ready, and before.
            0 => {}
            1 => {
                replica.crash();
                replica.begin_again();
                sleep(Duration::from_millis(rng.u64(..150))).await;
            }
            // On its way out.
            2 => {
                replica.terminate();
                sleep(Duration::from_millis(rng.u64(..2_000))).await;
            }
            // While the copy of the lists is being written, which it is after each block.
            _ => {
                let url = format!("{}/api/v1/blocks", replica.control);
                let blocking = tokio::spawn(block_on(url, bed.admin.clone(), round));
                sleep(Duration::from_millis(rng.u64(20..300))).await;
                replica.crash();
                blocked.extend(blocking.await.unwrap());
            }
        }
        bed.replicas[0].crash();
        assert_file_is_whole(&bed, round).await;
        let copy = disk::load(&bed.first().data().join(COPY));
        assert!(copy.as_ref().is_ok_and(Option::is_some), "round {round}: {copy:?}");
        bed.replicas[0].start_again().await;
        load.moved(0, bed.first().public_address());
    }
    sleep(Duration::from_millis(300)).await;
    let tally = Tally::of(&load.stop().await);
    tally.assert_no_server_error();
    let (_, unanswered) = assert_logged(&bed, &tally, 2 * rounds * kinds).await;
    assert_blocked(&bed, &blocked).await;
    report(
        Part::Kills,
        format!(
            "`kill -9` {} times each: right after the start, within 150 ms of it, up to 2 s after \
             SIGTERM, while the copy of the lists is written",
            rounds,
        ),
        "The same, and the copy of the lists is whole each time",
        format!(
            "{} answers, each logged once ({unanswered} records of unanswered ones); {} blocks, all there",
            tally.references.len(),
            blocked.len(),
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_killed_during_its_first_start_starts_the_next_time() {
    let _turn = turn().await;
    let mut rng = Rng::with_seed(seed());
    let (rounds, mut before) = (short_or_long(12, 200), 0);
    for round in 0..rounds {
        let mut replica = Launch::default().begin();
        // Its tables are made in the first of these milliseconds.
        sleep(Duration::from_millis(rng.u64(..120))).await;
        replica.crash();
        before += u32::from(!replica.data().join(ADMIN_KEY_FILE).exists());
        replica.start_again().await;
        let key = std::fs::read_to_string(replica.data().join(ADMIN_KEY_FILE)).unwrap();
        let path = "/api/v1/blocks";
        let (status, _) = replica.control(Method::GET, path, Some(key.trim()), None).await;
        assert_eq!(status, StatusCode::OK, "round {round}: the first key");
        let store = Db::open_sqlite(&replica.data().join("ipwarden.db"), Create::Never).await;
        assert_integrity(&store.unwrap(), round).await;
    }
    report(
        Part::Kills,
        format!("`kill -9` within 120 ms of the very first start, {rounds} times"),
        "The next start makes what is missing: tables, the first admin key",
        format!("all {rounds} started, {before} of them had no key yet; each key works"),
    );
}

/// From right after the start to long after it.
fn instant(rng: &mut Rng) -> Duration {
    let milliseconds = match rng.u32(..8) {
        0..=1 => rng.u64(..50),
        2..=6 => rng.u64(50..700),
        _ => rng.u64(700..2_500),
    };
    Duration::from_millis(milliseconds)
}

fn start_load(bed: &Bed, per_second: u32, seed: u64) -> Load {
    let targets: Vec<_> = bed.replicas.iter().map(Replica::public_address).collect();
    Load::start(&targets, per_second, CONNECTIONS, seed, anybody())
}

/// After so many kills. Returns how long that took, and the number of records without an answer.
async fn assert_logged(bed: &Bed, tally: &Tally, kills: u32) -> (Duration, usize) {
    // At most what was on its way on each connection at each kill, and what its client sent next: while a
    // process dies its listener may take one more connection.
    assert!(tally.lost.len() <= (2 * CONNECTIONS * kills) as usize, "{} lost", tally.lost.len());
    let within = short_or_long(TEN_TIMES_A_SECOND, TEN_TIMES_A_SECOND * 12);
    let (took, unanswered) = each_is_logged_once(&bed.db, &tally.references, within).await;
    // Those that asked for the last block are in it, too.
    let own = usize::try_from(kills).unwrap();
    assert!(unanswered <= tally.lost.len() + own, "{unanswered} records of nobody's requests");
    (took, unanswered)
}

async fn assert_blocked(bed: &Bed, blocked: &[Ipv4Addr]) {
    assert!(!blocked.is_empty(), "no block was made");
    let rows = bed.db.run(|conn| blocked_ips::page(conn, None, 1_000_000, now()).boxed());
    let rows = rows.await.unwrap();
    let there: std::collections::HashSet<_> =
        rows.iter().map(|row| row.network.to_string()).collect();
    for address in blocked {
        assert!(there.contains(&address.to_string()), "the block of {address} is gone");
    }
}

/// The embedded store, while nobody has it open.
async fn assert_file_is_whole(bed: &Bed, round: u32) {
    if bed.db.is_sqlite() {
        let file = bed.first().data().join("ipwarden.db");
        assert_integrity(&Db::open_sqlite(&file, Create::Never).await.unwrap(), round).await;
    }
}

async fn assert_integrity(store: &Db, round: u32) {
    let Db::Sqlite(pool) = store else { unreachable!("it is a file") };
    assert_eq!(pool.check_integrity().await.unwrap(), Vec::<String>::new(), "round {round}");
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
