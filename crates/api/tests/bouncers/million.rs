//! Many blocks: what a look-up costs, and what a start-up takes.

use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::blocked_ips;
use ipwarden_core::db::entries::NewEntry;
use ipwarden_core::db::list_changes::{self, List, Op};
use ipwarden_engine::network::Network;
use tokio::time::Instant;

use super::client::Bouncer;
use super::common::{Bed, Launch, Replica, eventually, now};

/// Blocks so many addresses from 11.0.0.0 on, in one transaction.
pub(crate) async fn fill(bed: &Bed, blocks: u32) {
    let first = std::net::Ipv4Addr::new(11, 0, 0, 0).to_bits();
    let networks: Vec<Network> = (0..blocks)
        .map(|number| Network::from(std::net::IpAddr::V4((first + number * 2).into())))
        .collect();
    let patient = bed.db.with_timeout(Duration::from_secs(300));
    patient
        .transaction(move |conn| {
            async move {
                list_changes::lock(conn).await?;
                for network in &networks {
                    let new = NewEntry {
                        network: *network,
                        reason: "many".to_owned(),
                        origin: "import".to_owned(),
                        created_by: "test".to_owned(),
                        created_at: now(),
                        expires_at: None,
                    };
                    blocked_ips::put(conn, new).await?;
                }
                let changed: Vec<_> = networks.into_iter().map(Some).collect();
                list_changes::record(conn, List::Blocked, Op::Set, &changed, now()).await
            }
            .boxed()
        })
        .await
        .unwrap();
}

/// Waits until so many blocks are in memory; a build without optimisation takes its time.
async fn live(bouncer: &Bouncer, replica: &Replica, query: &str) {
    eventually(Duration::from_secs(60), "all is in memory", async || {
        (bouncer.decisions(replica, query).await.len() == 1).then_some(())
    })
    .await;
}

/// What the process has in memory, in kilobytes: now, and at most so far.
fn memory(replica: &Replica) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", replica.pid())).unwrap();
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (figure("VmRSS:"), figure("VmHWM:"))
}

#[tokio::test]
async fn a_hundred_thousand_blocks_start_up_within_64_megabytes_more() {
    const BLOCKS: u32 = 100_000;
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    fill(&bed, BLOCKS).await;
    live(&bouncer, replica, "ip=11.0.0.2").await;
    // The highest mark from here on.
    std::fs::write(format!("/proc/{}/clear_refs", replica.pid()), "5").unwrap();
    let (before, _) = memory(replica);
    let started = Instant::now();
    let text = bouncer.text(replica, "/v1/decisions/stream?startup=true").await;
    let took = started.elapsed();
    let (_, most) = memory(replica);
    assert_eq!(text.matches("\"value\"").count(), BLOCKS as usize);
    let more = most.saturating_sub(before) / 1_024;
    eprintln!(
        "{BLOCKS} blocks, {} MB of JSON in {took:.1?}, {more} MB more memory (goal 64)",
        text.len() >> 20
    );
    assert!(more <= 64, "{more} MB");
}

#[tokio::test]
async fn a_look_up_takes_as_long_with_many_blocks_as_with_few() {
    let bed = Bed::embedded(Launch::default()).await;
    let (bouncer, replica) = (Bouncer::of(&bed).await, bed.first());
    fill(&bed, 10).await;
    live(&bouncer, replica, "ip=11.0.0.18").await;
    let few = median_of_look_ups(&bouncer, replica).await;
    fill(&bed, 100_000).await;
    live(&bouncer, replica, "ip=11.0.3.2").await;
    let many = median_of_look_ups(&bouncer, replica).await;
    eprintln!("a look-up by ip: {few:.0?} with 10 blocks, {many:.0?} with 100,000 (median of 200)");
    assert!(many < few * 10, "a scan would take many times as long");
}

async fn median_of_look_ups(bouncer: &Bouncer, replica: &Replica) -> Duration {
    let mut times = Vec::new();
    for round in 0..200 {
        let started = Instant::now();
        let ip = format!("ip=11.0.0.{}", round % 20);
        bouncer.decisions(replica, &ip).await;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}
