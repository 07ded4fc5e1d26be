//! The disk of `data_dir` full: requests go on, what cannot be kept is counted, and nobody has to
//! restart anything once there is room.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::{Db, blocked_ips, request_logs};
use ipwarden_testbed::SmallDisk;
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::check::{Tally, logged, percentile};
use super::common::{Bed, Launch, PATIENCE, TEN_TIMES_A_SECOND, eventually, field, now};
use super::load::{Load, Shot, anybody};
use super::{seed, turn};

const LOST: &str = "ipwarden_records_lost_total{cause=\"disk_full\"}";
const EVICTED: &str = "ipwarden_records_lost_total{cause=\"spool_full\"}";
const PER_SECOND: u32 = 800;
/// Few, so that few workers have a segment to fill.
const CONNECTIONS: u32 = 4;
/// Blocked before the disk is full (RFC 5737).
const BLOCKED: &str = "203.0.113.9";
/// Below this a time is the machine's, not the disk's.
const QUICK: Duration = Duration::from_millis(10);

/// Room for a segment of each worker, the one made ahead, those being shipped, and the store if it is
/// there as well.
fn small_disk(store_megabytes: u32) -> anyhow::Result<SmallDisk> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    SmallDisk::of_megabytes(24 + 4 * u32::try_from(workers)? + store_megabytes)
}

/// A disk that stays full: somebody (a backup, say) still reads the segments that are removed.
struct Full<'a> {
    disk: &'a SmallDisk,
    spool: PathBuf,
    held: HashMap<PathBuf, File>,
    since: Instant,
}

impl<'a> Full<'a> {
    fn new(disk: &'a SmallDisk, data: &Path) -> Full<'a> {
        let spool = data.join("spool");
        Full { disk, spool, held: HashMap::new(), since: Instant::now() }
    }

    /// Takes what is free, and holds on to what is going to be.
    fn keep(&mut self) {
        self.disk.fill().unwrap();
        for path in fs::read_dir(&self.spool).unwrap().map(|file| file.unwrap().path()) {
            // One that is gone in between is free space, which is taken the next time.
            if let Ok(file) = File::open(&path) {
                self.held.entry(path).or_insert(file);
            }
        }
    }

    /// Until records are lost, and readiness says so.
    async fn until_records_are_lost(&mut self, bed: &Bed) {
        eventually(PATIENCE * 4, "records are lost", async || {
            self.keep();
            (bed.first().metric(LOST).await > 0).then_some(())
        })
        .await;
        let (status, text) = bed.first().open("/readyz?verbose").await;
        assert_eq!(status, StatusCode::OK, "degraded is ready: {text}");
        let says = "[!] request log: the disk of data_dir is full and records are dropped: free";
        assert!(text.contains(says), "{text}");
        assert_eq!(bed.first().metric("ipwarden_degraded").await, 1);
    }

    /// There is room again. Returns how long it took until records were kept again.
    async fn end(self, bed: &Bed) -> Duration {
        self.disk.free().unwrap();
        drop(self.held);
        let until = async |what: &str, within: Duration, as_wanted: &dyn Fn(&str) -> bool| {
            let readiness = eventually(within, what, async || {
                let (status, text) = bed.first().open("/readyz?verbose").await;
                assert_eq!(status, StatusCode::OK, "degraded is ready: {text}");
                as_wanted(&text).then_some(())
            });
            readiness.await.1
        };
        let is_kept = |text: &str| !text.contains("the disk of data_dir is full");
        let took = until("records are kept again", TEN_TIMES_A_SECOND, &is_kept).await;
        // An embedded store is asked again within five seconds.
        let recent = "records were lost in the last 10 minutes: the log of this process says why";
        until("it says what was lost", PATIENCE, &|text| text.contains(recent)).await;
        assert!(bed.first().said().contains("the request log has room again"));
        took
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_data_dir_in_a_fleet_stops_no_request_and_counts_each_record_that_it_loses() {
    let _turn = turn().await;
    let seed = seed();
    let disk = match small_disk(0) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("NOT RUN: {error:#}"),
    };
    let mut bed = Bed::fleet(1, |one| one.behind_proxies().keeps_data_on(disk.path())).await;
    let load = start(&bed, seed);
    sleep(Duration::from_secs(1)).await;

    let mut full = Full::new(&disk, &bed.first().data());
    let since = full.since;
    full.until_records_are_lost(&bed).await;
    sleep(Duration::from_secs(short_or_long(2, 60))).await;
    let (kept_again, lasted) = (full.end(&bed).await, since.elapsed());
    sleep(Duration::from_secs(1)).await;
    let shots = load.stop().await;
    let mut answered = answered(&shots);
    let lost = each_is_logged_or_counted(&bed, &answered, 0).await;
    let [before, during] = assert_no_slower(&shots, since, since + lasted);

    // Whoever is restarted while it is full starts, and serves.
    let mut full = Full::new(&disk, &bed.first().data());
    full.keep();
    bed.replicas[0].crash();
    full.keep();
    let started = bed.replicas[0].start_again().await;
    full.keep();
    let load = start(&bed, seed);
    full.until_records_are_lost(&bed).await;
    full.end(&bed).await;
    sleep(Duration::from_secs(1)).await;
    answered.extend(self::answered(&load.stop().await));
    let lost_again = each_is_logged_or_counted(&bed, &answered, lost).await;
    report(
        Part::Kills,
        format!(
            "The disk of data_dir full for {} s at {PER_SECOND} requests a second (fleet), then a \
             `kill -9` and a start while it is full",
            lasted.as_secs(),
        ),
        "No request fails or is slower than ten times; readiness says it and what to do; each answer is \
         in the log once or counted as lost; without a restart records are kept again (goal 1 s)",
        format!(
            "{} answers, none failed; {} not in the log, as many counted; kept again {kept_again:.1?} \
             after there was room; p99 {before:.1?} before, {during:.1?} meanwhile; ready on the full \
             disk after {started:.0?}",
            answered.len(),
            lost + lost_again,
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_an_embedded_store_stops_no_request_and_spoils_nothing() {
    let _turn = turn().await;
    let seed = seed();
    let disk = match small_disk(short_or_long(100, 400)) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("NOT RUN: {error:#}"),
    };
    let launch = Launch::default().behind_proxies().keeps_data_on(disk.path());
    let bed = Bed::embedded(launch).await;
    let mut made = BTreeSet::from([BLOCKED.to_owned()]);
    assert_eq!(block(&bed, BLOCKED).await, StatusCode::CREATED);
    let load = start(&bed, seed);
    sleep(Duration::from_secs(1)).await;

    let mut full = Full::new(&disk, &bed.first().data());
    let since = full.since;
    full.until_records_are_lost(&bed).await;
    // A page that is there may still take some; each either is made or fails loudly.
    let (mut refused, mut target) = (0, Ipv4Addr::new(203, 0, 113, 9).to_bits());
    while refused < 3 || since.elapsed() < Duration::from_secs(short_or_long(5, 60)) {
        full.keep();
        target += 1;
        let address = Ipv4Addr::from_bits(target).to_string();
        match block(&bed, &address).await {
            StatusCode::CREATED => drop(made.insert(address)),
            StatusCode::SERVICE_UNAVAILABLE => refused += 1,
            status => panic!("{address}: {status}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    let met = bed.first().get(BLOCKED, "/").await;
    assert_eq!(met.status(), StatusCode::FORBIDDEN, "blocks stand");
    let (kept_again, lasted) = (full.end(&bed).await, since.elapsed());
    eventually(TEN_TIMES_A_SECOND, "blocks can be made again", async || {
        target += 1;
        let address = Ipv4Addr::from_bits(target).to_string();
        let status = block(&bed, &address).await;
        (status == StatusCode::CREATED).then(|| made.insert(address))
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    let shots = load.stop().await;
    let mut answered = answered(&shots);
    answered.insert(0, field(&met, "x-ipwarden-reference").to_owned());
    let lost = each_is_logged_or_counted(&bed, &answered, 0).await;
    let [before, during] = assert_no_slower(&shots, since, since + lasted);

    let Db::Sqlite(pool) = &bed.db else { unreachable!("it is a file") };
    assert_eq!(pool.check_integrity().await.unwrap(), Vec::<String>::new());
    let rows = bed.db.run(|conn| blocked_ips::page(conn, None, 1_000, now()).boxed()).await;
    let there: BTreeSet<_> = rows.unwrap().iter().map(|row| row.network.to_string()).collect();
    assert_eq!(there, made, "what failed has changed nothing, what was confirmed is there");
    report(
        Part::Kills,
        format!(
            "The disk of data_dir full for {} s at {PER_SECOND} requests a second (embedded: the \
             store is on it, too)",
            lasted.as_secs(),
        ),
        "The same; a block is made, or fails with 503 and changes nothing; `integrity_check` is ok",
        format!(
            "{} answers, none failed; {lost} not in the log, as many counted; kept again \
             {kept_again:.1?} after there was room; p99 {before:.1?} before, {during:.1?} meanwhile; \
             {} blocks made, {refused} refused",
            answered.len(),
            made.len(),
        ),
    );
}

/// Long paths, so that segments are soon full.
fn start(bed: &Bed, seed: u64) -> Load {
    let targets = bed.public_addresses();
    let path = format!("/{}", "x".repeat(2_000));
    Load::start_on(&targets, PER_SECOND, CONNECTIONS, seed, anybody(), &path)
}

/// The references of all; each was answered, with none of the server's own errors.
fn answered(shots: &[Shot]) -> Vec<String> {
    let tally = Tally::of(shots);
    assert_eq!((tally.unsent, &tally.lost), (0, &Vec::new()), "requests without an answer");
    assert!(tally.answers.keys().all(|status| [404, 429].contains(status)), "{:?}", tally.answers);
    tally.references
}

/// Waits until the log has all but those that this process, and before it others, counted as lost; returns
/// how many this process did.
async fn each_is_logged_or_counted(bed: &Bed, answered: &[String], before: usize) -> usize {
    assert_eq!(bed.first().metric(EVICTED).await, 0);
    let lost = usize::try_from(bed.first().metric(LOST).await).unwrap();
    assert!(lost > 0);
    let expected = answered.len() - lost - before;
    eventually(PATIENCE, "all that was not lost is in the log", async || {
        let rows = bed.db.run(|conn| request_logs::count(conn).boxed()).await.ok()?;
        (usize::try_from(rows).unwrap() >= expected).then_some(())
    })
    .await;
    let logged = logged(&bed.db).await;
    let missing = answered.iter().filter(|reference| !logged.contains_key(*reference)).count();
    assert_eq!(missing, lost + before, "as many are missing as were counted");
    assert_eq!(logged.len() + missing, answered.len(), "nobody else's records");
    assert!(logged.values().all(|times| *times == 1), "once each");
    assert!(logged.contains_key(answered.last().unwrap()), "new ones are kept");
    lost
}

/// Requests of this time took at most ten times as long as those before. Both 99th percentiles.
fn assert_no_slower(shots: &[Shot], from: Instant, to: Instant) -> [Duration; 2] {
    let (before, later): (Vec<Shot>, Vec<Shot>) =
        shots.iter().cloned().partition(|shot| shot.sent < from);
    let during: Vec<Shot> = later.into_iter().filter(|shot| shot.sent < to).collect();
    let [usual, meanwhile] = [&before, &during].map(|shots| percentile(shots, 99));
    assert!(meanwhile <= 10 * usual.max(QUICK), "{usual:?} before, {meanwhile:?} meanwhile");
    [usual, meanwhile]
}

/// Tries to block somebody; what fails says what to do.
async fn block(bed: &Bed, target: &str) -> StatusCode {
    let url = format!("{}/api/v1/blocks", bed.first().control);
    let request = reqwest::Client::new().request(Method::POST, url).bearer_auth(&bed.admin);
    let answer = request.json(&json!({ "target": target })).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success() || text.contains("Nothing was changed; try again"), "{text}");
    status
}
