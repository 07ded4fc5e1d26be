//! A restart with a million blocks in the copy of the lists.

use std::time::Duration;

use ipwarden_core::changes::COPY;
use ipwarden_engine::blocklist::{ListEntry, disk};
use ipwarden_engine::network::Network;
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::common::{Bed, Launch, Replica, TEN_TIMES_A_SECOND, eventually};
use super::{seed, turn};

const NETWORKS: usize = 1_000_000;
/// Ten times the goal; a build without optimisation is given ten times as much again.
const READY_WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
/// Twice the goal of 150: right after a change the lists before it, those behind it and their copy for
/// the disk are in memory together.
const MOST_MEGABYTES: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_million_blocks_is_soon_ready_again_and_takes_one_more() {
    let _turn = turn().await;
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut bed = Bed::embedded(Launch::default().behind_proxies()).await;
    block(&bed, "203.0.113.1").await;
    bed.replicas[0].terminate();
    assert!(bed.replicas[0].ended().await.success());
    // As if all had been there before that change: the copy says so, and its store knows that change.
    let mut networks: Vec<Network> = (0..NETWORKS).map(|_| draw(&mut rng)).collect();
    networks.sort_unstable();
    networks.dedup();
    let path = bed.first().data().join(COPY);
    let copy = disk::load(&path).unwrap().unwrap();
    let blocked =
        networks.iter().map(|network| ListEntry { network: *network, ends: None, by_scan: false });
    let blocked = blocked.chain(copy.blocked());
    disk::save(&path, copy.version(), copy.made(), blocked, []).unwrap();

    let (mut ready, mut megabytes, mut live) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..short_or_long(2, 10) {
        bed.replicas[0].start_again().await;
        bed.replicas[0].crash();
        ready.push(bed.replicas[0].start_again().await);
        for network in rng.choose_multiple(&networks, 20) {
            let answer = bed.first().get(&network.last_address().to_string(), "/").await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{network}");
        }
        let added = format!("203.0.113.{}", 10 + round);
        assert_ne!(bed.first().get(&added, "/").await.status(), StatusCode::FORBIDDEN);
        block(&bed, &added).await;
        let (_, took) = eventually(TEN_TIMES_A_SECOND, "one more is live", async || {
            let status = bed.first().get(&added, "/").await.status();
            (status == StatusCode::FORBIDDEN).then_some(())
        })
        .await;
        live.push(took);
        megabytes.push(resident(bed.first()));
        bed.replicas[0].crash();
    }
    let [ready, live] = [ready, live].map(|mut times| {
        times.sort_unstable();
        times
    });
    let most = *megabytes.iter().max().unwrap();
    let build = if cfg!(debug_assertions) { "a build without optimisation" } else { "release" };
    report(
        Part::Kills,
        format!("`kill -9` with a million blocks in the copy of the lists, {} times", ready.len()),
        "Blocked addresses get 403 at once; ready again within 200 ms; one more block is live within 1 s; \
         goal for memory 150 MB",
        format!(
            "ready again after {:.0?} (median; {build}); one more live \
             after {:.0?} (median); {most} MB right after it",
            ready[ready.len() / 2],
            live[live.len() / 2],
        ),
    );
    assert!(ready[ready.len() / 2] <= READY_WITHIN, "{ready:?}");
    assert!(most <= MOST_MEGABYTES, "{megabytes:?} MB");
}

/// Nine IPv4 networks of ten, none in 203.0.113.0/24.
fn draw(rng: &mut fastrand::Rng) -> Network {
    let network = match rng.u8(..10) {
        0 => Network::new(
            std::net::Ipv6Addr::from_bits(1 << 125 | rng.u128(..) >> 3).into(),
            rng.u8(48..=128),
        ),
        _ => Network::new(
            std::net::Ipv4Addr::from_bits(rng.u32(0x0100_0000..0x7e00_0000)).into(),
            rng.u8(24..=32),
        ),
    };
    network.unwrap()
}

async fn block(bed: &Bed, target: &str) {
    let (status, _) =
        bed.api(Method::POST, "/api/v1/blocks", Some(json!({ "target": target }))).await;
    assert_eq!(status, StatusCode::CREATED);
}

/// What the process has in memory, in megabytes.
fn resident(replica: &Replica) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", replica.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes / 1_024
}
