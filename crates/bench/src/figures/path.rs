//! The steps on the path of a request: take, record, place.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipwarden_core::geo::Geo;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;
use ipwarden_engine::quota::{Bucket, Quota};
use ipwarden_engine::rate_limit::{Local, LocalOptions};
use ipwarden_engine::record::{RecordRef, RecordVerdict, Reference};
use ipwarden_engine::spool::{Draft, Spool, SpoolOptions};

use super::nanoseconds;
use crate::contestants::write_places;
use crate::document::Findings;

const OPERATIONS: usize = 1 << 20;
const FEW: usize = 10_000;
const MANY: usize = 1_000_000;

pub(super) fn measure(directory: &Path, findings: &mut Findings) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    let clients = ipwarden_bench::addresses::clients(MANY);
    take(&clients, findings);
    append(&clients, directory, findings)?;
    place(&clients, directory, findings)
}

fn take(clients: &[IpAddr], findings: &mut Findings) {
    let quota = Quota::new(100, Duration::from_secs(10));
    for (count, words) in [(FEW, "10,000"), (MANY, "a million")] {
        let local = Local::new(LocalOptions::default());
        let start = Moment::now();
        let mut number = 0_u64;
        let cost = nanoseconds(OPERATIONS, || {
            let mut admitted = 0;
            for _ in 0..OPERATIONS {
                // Every microsecond another client: 1 to 100 a second of each.
                let now = Moment { steady: start.steady + number, ..start };
                let network = Network::of_client(clients[number as usize % count], 64);
                let taken = local.take("bench", Bucket::Network(network), quota, now);
                admitted += u64::from(taken.admitted);
                number += 1;
            }
            admitted
        });
        let what = format!("take from a quota in process, {words} clients in turn");
        findings.note(&format!("take {count}"), cost, what, "ns");
    }
    let cost = nanoseconds(OPERATIONS, || (0..OPERATIONS).map(|_| Moment::now().steady).max());
    findings.note("clocks", cost, "reading both clocks", "ns");
}

fn append(clients: &[IpAddr], directory: &Path, findings: &mut Findings) -> anyhow::Result<()> {
    let options = SpoolOptions { max_bytes: 256 << 20, ..SpoolOptions::default() };
    let spool = Spool::open(directory, options)?;
    let mut writer = spool.writer();
    let at = Moment::now().wall;
    let cost = nanoseconds(OPERATIONS / 4, || {
        for client in &clients[..OPERATIONS / 4] {
            writer.append(Draft::of(&record(*client, at)));
        }
    });
    findings.note("append", cost, "append to the spool: encoded, and safe against a kill", "ns");
    Ok(())
}

/// What a browser's request comes to.
pub(super) fn record(address: IpAddr, at: i64) -> RecordRef<'static> {
    RecordRef {
        at,
        address,
        method: b"GET",
        path: b"/articles/2026/11/how-fast-is-it",
        status: 200,
        verdict: RecordVerdict::Allowed,
        sensitive: false,
        identity: None,
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        reference: Reference::random(),
    }
}

fn place(clients: &[IpAddr], directory: &Path, findings: &mut Findings) -> anyhow::Result<()> {
    let file = directory.join("city.mmdb");
    write_places(&file)?;
    let geo = Geo::open(vec![file], Some(directory), None);
    let now: DateTime<Utc> =
        DateTime::from_timestamp_micros(Moment::now().wall).unwrap_or_default();
    let mut from = 0;
    // Each round asks for others, so that none of them is known.
    let cost = nanoseconds(FEW, || {
        from += FEW;
        clients[from..from + FEW]
            .iter()
            .for_each(|client| drop(black_box(geo.place(*client, now))));
    });
    findings.note("place file", cost, "place of an address, from the file, then cached", "ns");
    let few = &clients[..FEW];
    few.iter().for_each(|client| drop(geo.place(*client, now)));
    let cost = nanoseconds(FEW * 10, || {
        (0..10).flat_map(|_| few).for_each(|client| drop(black_box(geo.place(*client, now))));
    });
    findings.note("place cached", cost, "place of an address, cached", "ns");
    Ok(())
}
