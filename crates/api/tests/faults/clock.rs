//! Wall clocks that are stepped while requests flow: of an embedded process, and of one replica of a
//! fleet whose store and Redis keep the time.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};

use super::check::{each_is_logged_once, most_within};
use super::common::{Bed, Launch, TEN_TIMES_A_SECOND, now};
use super::load::{Line, Outcome, Shot, connect, receive, request_of};
use super::turn;

/// By default 5 a minute; of a short window one sees how it frees.
const SETTINGS: &str = "[[quotas]]\nname = \"quick\"\npaths = [\"/quick\"]\nanonymous = \"3/2s\"\n";
const QUICK: (u64, Duration) = (3, Duration::from_secs(2));
const MINUTE: (u64, Duration) = (5, Duration::from_secs(60));
/// Of the client that asks for `/` and of the one that asks for `/quick`.
const CLIENTS: [(&str, Ipv4Addr); 2] =
    [("/", Ipv4Addr::new(198, 51, 100, 1)), ("/quick", Ipv4Addr::new(198, 51, 100, 2))];
const BLOCKED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
const BLOCKED_FOR_SECONDS: i64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_an_embedded_process_s_clock_admit_nobody_more_and_lock_nobody_out() {
    let _turn = turn().await;
    let clock = Clock::new();
    // Else the year 2040 would drop what was logged in the year of this test.
    let launch = Launch::default().behind_proxies().file(SETTINGS);
    let launch = clock.moves(launch).with("IPWARDEN_REQUEST_LOG__RETENTION", "36500d");
    let bed = Bed::embedded(launch).await;
    let body = json!({ "target": BLOCKED });
    let (status, _) = bed.api(Method::POST, "/api/v1/blocks", Some(body)).await;
    assert_eq!(status, StatusCode::CREATED);
    let shots = ask_through_the_steps(&bed, &clock, async || {
        let status = bed.first().get(&BLOCKED.to_string(), "/").await.status();
        assert_eq!(status, StatusCode::FORBIDDEN, "the block has no end");
    })
    .await;
    let (quick, pause) = assert_kept(&shots);
    let (years, took) = assert_logged(&bed, &shots).await;
    report(
        Part::Quotas,
        "the clock of an embedded process steps by +1 h, -1 h, to 1970, to 2040 and back",
        "no admission more, nobody locked out for longer than his window, each record kept",
        format!(
            "5 of {} admitted by 5/60s, at most {quick} in 2 s by 3/2s and never longer than \
             {pause:.1?} without; all {} in the log once, dated {years}, after {took:.1?}; a block \
             without end held",
            shots.iter().filter(|shot| shot.client == CLIENTS[0].1).count(),
            shots.len(),
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_one_replica_s_clock_change_neither_quotas_nor_the_ends_of_blocks() {
    let _turn = turn().await;
    let (clock, first) = (Clock::new(), Cell::new(true));
    let bed = Bed::fleet(2, |launch| {
        let launch = launch.behind_proxies().file(SETTINGS);
        if first.replace(false) { clock.moves(launch) } else { launch }
    })
    .await;
    // Through the replica whose clock is wrong, one after the other, so that each step meets some.
    let mut ends: Option<DateTime<Utc>> = None;
    let (mut blocks, mut held) = (0, 0);
    let mut late = TimeDelta::zero();
    let shots = ask_through_the_steps(&bed, &clock, async || {
        let Some(end) = ends else {
            let target = Ipv4Addr::from_bits(BLOCKED.to_bits() + blocks);
            let body = json!({ "target": target, "for": format!("{BLOCKED_FOR_SECONDS}s") });
            let (status, block) = bed.api(Method::POST, "/api/v1/blocks", Some(body)).await;
            assert_eq!(status, StatusCode::CREATED, "{block}");
            let end: DateTime<Utc> = block["expires_at"].as_str().unwrap().parse().unwrap();
            let lasts = (end - now()).num_seconds() - BLOCKED_FOR_SECONDS;
            assert!(lasts.abs() <= 2, "it ends at {end}, {lasts} s off");
            (ends, blocks) = (Some(end), blocks + 1);
            // Until the other has heard of it, too.
            sleep(Duration::from_millis(1_500)).await;
            return;
        };
        let target = Ipv4Addr::from_bits(BLOCKED.to_bits() + blocks - 1).to_string();
        let mut free = 0;
        for replica in &bed.replicas {
            let before = now();
            let status = replica.get(&target, "/").await.status();
            if status == StatusCode::FORBIDDEN {
                let beyond = before - end;
                late = late.max(beyond);
                assert!(beyond <= TimeDelta::seconds(10), "blocked {beyond} after its end");
                held += 1;
            } else {
                let left = end - now();
                assert!(left <= TimeDelta::milliseconds(300), "free {left} before its end");
                free += 1;
            }
        }
        if free == bed.replicas.len() {
            ends = None;
        }
    })
    .await;
    let (quick, pause) = assert_kept(&shots);
    let (years, took) = assert_logged(&bed, &shots).await;
    assert!(blocks >= 2 && held > 0, "{blocks} blocks, seen {held} times");
    report(
        Part::Quotas,
        "the clock of one of 2 replicas steps by +1 h, -1 h, to 1970, to 2040 and back",
        "no admission more, nobody locked out for longer than his window, each record kept, blocks \
         end by the store's clock",
        format!(
            "5 of {} admitted by 5/60s, at most {quick} in 2 s by 3/2s and never longer than \
             {pause:.1?} without; all {} in the log once, dated {years}, after {took:.1?}; \
             {blocks} blocks of {BLOCKED_FOR_SECONDS} s ended on both replicas, none early, {} ms \
             late at most",
            shots.iter().filter(|shot| shot.client == CLIENTS[0].1).count(),
            shots.len(),
            late.num_milliseconds(),
        ),
    );
}

/// Two clients ask all replicas in turn while the clock steps; meanwhile `besides` is done again and
/// again.
async fn ask_through_the_steps(
    bed: &Bed,
    clock: &Clock,
    mut besides: impl AsyncFnMut(),
) -> Vec<Shot> {
    let each = short_or_long(Duration::from_millis(2_800), Duration::from_secs(8));
    let mut lines: Vec<Line> = Vec::new();
    for replica in &bed.replicas {
        lines.push(connect(replica.public_address()).await.unwrap());
    }
    let hour = TimeDelta::hours(1);
    let to = |year: i32| now().with_year(year).unwrap_or_default() - now();
    let mut shots = Vec::new();
    for step in [TimeDelta::zero(), hour, -hour, to(1970), to(2040), TimeDelta::zero()] {
        clock.set(step);
        let until = Instant::now() + each;
        while Instant::now() < until {
            for (target, line) in lines.iter_mut().enumerate() {
                for (path, client) in CLIENTS {
                    let sent = Instant::now();
                    let text = request_of(client, path);
                    line.get_mut().write_all(text.as_bytes()).await.unwrap();
                    let answer = receive(line).await.unwrap();
                    let status = if answer.status == 404 { 200 } else { answer.status };
                    assert!([200, 429].contains(&status), "{status} to {client}");
                    let longest = if path == "/" { MINUTE.1 } else { QUICK.1 };
                    let wait = Duration::from_secs(answer.retry_after.unwrap_or(0));
                    assert!(wait <= longest, "{client} is to wait for {wait:?} after {step}");
                    assert_eq!(status == 429, !wait.is_zero(), "a refusal says for how long");
                    let outcome = Outcome::Answered { status, reference: answer.reference };
                    shots.push(Shot { client, target, sent, took: sent.elapsed(), outcome });
                }
            }
            besides().await;
            // A pace, not a wait for anything.
            sleep(Duration::from_millis(40)).await;
        }
    }
    shots
}

/// Neither client was admitted more than its quota, nor kept waiting for longer than its window. How
/// many the quick one was admitted in a window, and how long it was refused at most.
fn assert_kept(shots: &[Shot]) -> (u64, Duration) {
    let [(_, slow), (_, quick)] = CLIENTS;
    let began = shots[0].sent;
    assert_eq!(most_within(shots, MINUTE.1)[&slow], MINUTE.0);
    let most = most_within(shots, QUICK.1)[&quick];
    assert_eq!(most, QUICK.0);
    let of_quick = shots.iter().filter(|shot| shot.client == quick);
    let mut admitted: Vec<Duration> = of_quick
        .filter(|shot| matches!(shot.outcome, Outcome::Answered { status: 200, .. }))
        .map(|shot| shot.sent - began)
        .collect();
    admitted.push(shots[shots.len() - 1].sent - began);
    let longest = admitted.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    // A window, and the time until it is asked again: what is beside it takes its time.
    assert!(longest <= QUICK.1 * 3, "refused for {longest:?} by {QUICK:?}");
    (most, longest)
}

/// Each answered request is in the log once, with the wrong times that the clock showed.
async fn assert_logged(bed: &Bed, shots: &[Shot]) -> (String, Duration) {
    let reference = |shot: &Shot| match &shot.outcome {
        Outcome::Answered { reference, .. } => reference.clone(),
        other => panic!("{other:?}"),
    };
    let references: Vec<String> = shots.iter().map(reference).collect();
    let (took, _) = each_is_logged_once(&bed.db, &references, TEN_TIMES_A_SECOND).await;
    let mut years: Vec<i32> = bed.records().await.iter().map(|record| record.at.year()).collect();
    years.sort_unstable();
    years.dedup();
    assert!(years.contains(&1970) && years.contains(&2040), "the clock was not stepped: {years:?}");
    let years: Vec<String> = years.iter().map(i32::to_string).collect();
    (years.join(", "), took)
}

/// A wall clock that the test steps while a process runs on it.
struct Clock {
    library: PathBuf,
    offset: tempfile::NamedTempFile,
}

impl Clock {
    fn new() -> Clock {
        let clock = Clock { library: library(), offset: tempfile::NamedTempFile::new().unwrap() };
        clock.set(TimeDelta::zero());
        clock
    }

    /// An `api` whose wall clock is this one; its steady clock is the machine's.
    fn moves(&self, launch: Launch) -> Launch {
        launch
            .with("LD_PRELOAD", self.library.to_str().unwrap())
            .with("FAKETIME_TIMESTAMP_FILE", self.offset.path().to_str().unwrap())
            .with("FAKETIME_CACHE_DURATION", "1")
            .with("FAKETIME_NO_CACHE", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .with("DONT_FAKE_MONOTONIC", "1")
    }

    /// From now on it is so far ahead of the machine's.
    fn set(&self, offset: TimeDelta) {
        let beside = self.offset.path().with_extension("new");
        std::fs::write(&beside, format!("{:+}\n", offset.num_seconds())).unwrap();
        std::fs::rename(&beside, self.offset.path()).unwrap();
    }
}

/// The library that fakes a clock for several threads.
fn library() -> PathBuf {
    let of_machine = |folder: &Path| {
        let machines = std::fs::read_dir(folder).into_iter().flatten().flatten();
        machines
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
            .find(|file| file.exists())
    };
    ["/usr/lib", "/usr/lib64", "/usr/local/lib"]
        .iter()
        .flat_map(|folder| {
            let own = Path::new(folder).join("faketime/libfaketimeMT.so.1");
            own.exists().then_some(own).or_else(|| of_machine(Path::new(folder)))
        })
        .next()
        .expect("no libfaketime: run the tests with `bash .ci/test`, which installs it, or `apt-get install faketime`")
}
