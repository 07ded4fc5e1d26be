//! PostgreSQL's disk full: first it cannot grow its tables, then it cannot write its log and ends.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::blocked_ips;
use ipwarden_testbed::report::{Part, report};
use ipwarden_testbed::{PostgresServer, SmallDisk, postgres_private_with};
use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use super::super::check::{Tally, each_is_logged_once};
use super::super::common::{Bed, eventually, now};
use super::super::{seed, short_or_long, turn};
use super::{DRAINED_WITHIN, block, block_one, drained, load, on_thread, rate, whole_again};

const REPLICAS: usize = 2;
/// Room for what `initdb` makes and for the log of this test.
const MEGABYTES: u32 = 160;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_with_a_full_disk_fails_no_request_and_loses_no_record() {
    let _turn = turn().await;
    let seed = seed();
    let disk = match SmallDisk::of_megabytes(short_or_long(MEGABYTES, MEGABYTES * 4)) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("NOT RUN: {error:#}"),
    };
    let place = disk.path().to_owned();
    let start = move || postgres_private_with(&[], Some(&place));
    let server = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed =
        Bed::on_own_postgres(&server, REPLICAS, Some(redis), |one| one.behind_proxies()).await;
    block_one(&bed).await;
    let load = load(&bed, seed);
    sleep(Duration::from_secs(1)).await;

    disk.fill().unwrap();
    let full = Instant::now();
    for replica in &bed.replicas {
        eventually(DRAINED_WITHIN, "it says that the store takes no records", async || {
            let (status, text) = replica.open("/readyz?verbose").await;
            assert_eq!(status, StatusCode::OK, "degraded is ready: {text}");
            text.contains("[!] request log: the store takes no records").then_some(())
        })
        .await;
    }
    // A page that is there may still take some; each either is made or fails loudly.
    let (mut made, mut refused) = (BTreeSet::new(), 0);
    let mut target = Ipv4Addr::new(203, 0, 113, 9).to_bits();
    while refused < 3 || full.elapsed() < Duration::from_secs(short_or_long(5, 60)) {
        target += 1;
        let address = Ipv4Addr::from_bits(target).to_string();
        let (status, problem) = block(bed.first(), &bed.admin, &address).await;
        match status {
            StatusCode::CREATED => drop(made.insert(address)),
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(problem["detail"].as_str().unwrap().contains("try again"), "{problem}");
                refused += 1;
                sleep(Duration::from_millis(200)).await;
            }
            _ => panic!("{address}: {status}: {problem}"),
        }
    }
    // Without room for the next segment of its own log it goes down altogether.
    let next = "select pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()";
    eventually(DRAINED_WITHIN, "it ends", async || {
        // It may still have segments from before, and starts again by itself after the first try.
        let _ = server.execute(next);
        server.log().unwrap().contains("PANIC").then_some(())
    })
    .await;
    let logs = server.log().unwrap();
    assert!(logs.contains("could not extend file"), "{logs}");

    disk.free().unwrap();
    // Some part of it may still be ending, or trying once more.
    on_thread(&server, PostgresServer::stop).await;
    on_thread(&server, PostgresServer::start).await;
    let back = Instant::now();
    for replica in &bed.replicas {
        whole_again(replica).await;
    }
    drained(&bed).await;
    let drained = back.elapsed();
    let tally = Tally::of(&load.stop().await);
    tally.assert_none_failed();
    each_is_logged_once(&bed.db, &tally.references, DRAINED_WITHIN * 10).await;

    made.insert(super::BLOCKED.to_owned());
    let rows = bed.db.run(|conn| blocked_ips::page(conn, None, 1_000, now()).boxed()).await;
    let there: BTreeSet<_> = rows.unwrap().iter().map(|row| row.network.to_string()).collect();
    assert_eq!(there, made, "what failed has changed nothing, what was confirmed is there");
    report(
        Part::Postgres,
        format!(
            "PostgreSQL's disk full for {} s at {} requests a second, {REPLICAS} replicas",
            full.elapsed().as_secs() - drained.as_secs(),
            rate().0
        ),
        "no request fails, no record is lost or stored twice; a block is made, or fails with 503 and \
         changes nothing",
        format!(
            "{} answers, none failed, each logged once, drained {:.1} s after there was room; {} \
             blocks still made, {refused} refused; PostgreSQL refused to write, then went down",
            tally.references.len(),
            drained.as_secs_f64(),
            made.len() - 1,
        ),
    );
}
