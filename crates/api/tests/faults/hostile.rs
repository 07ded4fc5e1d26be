//! Clients that mean harm: thousands of slow connections, a flood of long paths, and what is left of
//! both in our own log.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::check::{Tally, percentile};
use super::common::{Bed, Launch, PATIENCE, Replica, eventually};
use super::load::{Load, anybody};
use super::{seed, turn};

/// What a slow client sends, a byte in ten seconds: nothing follows what is sent at once.
const DRIP: Duration = Duration::from_secs(10);
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// For a machine that does a lot of other work.
const SLACK: Duration = Duration::from_secs(10);
/// The goal for the slowest of a hundred requests; ten times as much is asserted.
const P99: Duration = Duration::from_millis(50);

/// The ways to be slow: what is sent at once, and whether an answer to that comes first.
const WAYS: [(&str, &[u8]); 6] = [
    ("a head", b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: "),
    ("nothing", b""),
    ("a second head", b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HT"),
    ("nothing after an answer", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a body", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nx"),
    ("a body in chunks", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nx"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_connections_are_closed_within_ten_seconds_and_slow_nobody_down() {
    let _turn = turn().await;
    let count = 2_000;
    open_as_many_files_as_may_be(count as u64 + 1_000);
    let seed = seed();
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let replica = bed.first();
    let load = Load::start(&[replica.public_address()], 200, 8, seed, anybody());
    sleep(Duration::from_secs(short_or_long(3, 30))).await;
    let attacked = Instant::now();
    let (public, way) = attack(replica.public_address(), count, 10).await;
    let shots = load.stop().await;

    Tally::of(&shots).assert_none_failed();
    let (calm, meanwhile): (Vec<_>, Vec<_>) =
        shots.into_iter().partition(|shot| shot.sent < attacked);
    let [before, during] = [percentile(&calm, 99), percentile(&meanwhile, 99)];
    let (control, _) = attack(control_address(replica), count, 11).await;
    let (status, _) = replica.open("/readyz").await;
    assert!(status.is_success());
    for (name, took) in [("public", public), ("control", control)] {
        assert!(took <= CLOSED_WITHIN + SLACK, "{name}: {way} closed after {took:?}");
    }
    assert!(during <= P99 * 10, "{during:?}, before {before:?}");
    report(
        Part::Hostile,
        format!("{count} connections that send a byte in {DRIP:?}: {}", ways()),
        format!("each closed within {CLOSED_WITHIN:?}, on both listeners; nobody else is slowed"),
        format!(
            "the last closed after {public:.1?} (public), {control:.1?} (control); {} requests \
             of others meanwhile, none failed, p99 {during:.1?} ({before:.1?} before)",
            meanwhile.len()
        ),
    );
}

fn ways() -> String {
    WAYS.map(|(name, _)| name).join(", ")
}

/// Opens so many connections, in all ways in turn, and waits until each is closed. Returns how long the
/// last was open, and its way.
async fn attack(target: SocketAddr, count: usize, network: u8) -> (Duration, &'static str) {
    let mut open = JoinSet::new();
    for number in 0..count {
        let (name, bytes) = WAYS[number % WAYS.len()];
        // Addresses of their own, so that ports do not run out.
        let host = u8::try_from(number % 200 + 1).unwrap();
        let from = IpAddr::from(Ipv4Addr::new(127, network, 0, host));
        let mut stream = connect(from, target).await;
        open.spawn(async move {
            let since = Instant::now();
            let _ = stream.write_all(bytes).await;
            (drip(stream).await.duration_since(since), name)
        });
    }
    let took = open.join_all().await;
    took.into_iter().max_by_key(|(took, _)| *took).unwrap()
}

/// Sends a byte in ten seconds and reads until the other end closes; when that was.
async fn drip(mut stream: TcpStream) -> Instant {
    let mut bytes = [0; 4_096];
    let began = Instant::now();
    let mut due = began + DRIP;
    loop {
        match timeout(due.saturating_duration_since(Instant::now()), stream.read(&mut bytes)).await
        {
            Ok(Ok(0) | Err(_)) => return Instant::now(),
            Ok(Ok(_)) => {}
            Err(_) => {
                assert!(began.elapsed() < (CLOSED_WITHIN + SLACK) * 3, "it is never closed");
                due += DRIP;
                let _ = stream.write_all(b"x").await;
            }
        }
    }
}

async fn connect(from: IpAddr, target: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(target).await.unwrap()
}

fn control_address(replica: &Replica) -> SocketAddr {
    replica.control.strip_prefix("http://").unwrap().parse().unwrap()
}

/// # Panics
/// If that is not enough.
fn open_as_many_files_as_may_be(needed: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let enough = maximum.is_none_or(|files| files >= needed);
    assert!(enough, "this test opens {needed} files; raise the limit with ulimit -Hn");
}

/// The log of requests, and our own, are bounded whatever the paths.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_long_paths_takes_bounded_room_and_slows_nobody_down() {
    const LONGEST_STORED: usize = 2_048;
    let _turn = turn().await;
    let seed = seed();
    let count: usize = short_or_long(20_000, 1_000_000);
    let spool_bytes: u64 = 64 << 20;
    let bed = Bed::embedded(
        Launch::default()
            .behind_proxies()
            .with("IPWARDEN_REQUEST_LOG__SPOOL_BYTES", &spool_bytes.to_string()),
    )
    .await;
    let replica = bed.first();
    let load = Load::start(&[replica.public_address()], 100, 4, seed, anybody());
    sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    let each = count / 4;
    for client in 0..4 {
        let mut stream = TcpStream::connect(replica.public_address()).await.unwrap();
        clients.spawn(async move {
            for number in 0..each {
                ask_for_a_long_path(&mut stream, client * each + number).await;
            }
        });
    }
    let mut most = 0;
    while !clients.is_empty() {
        while let Some(client) = clients.try_join_next() {
            client.unwrap();
        }
        most = most.max(replica.metric("ipwarden_spool_bytes").await);
        sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed();
    let shots = load.stop().await;
    Tally::of(&shots).assert_none_failed();
    let (calm, meanwhile): (Vec<_>, Vec<_>) = shots.into_iter().partition(|shot| shot.sent < began);
    let [before, during] = [percentile(&calm, 99), percentile(&meanwhile, 99)];

    let records = bed.records().await;
    let longest = records.iter().map(|record| record.path.len()).max().unwrap();
    let own = replica.said().len();
    // A segment for each worker and one in reserve have their place whatever the bound is.
    assert!(u64::try_from(most).unwrap() <= spool_bytes, "{most} bytes of spool");
    assert!(longest <= LONGEST_STORED && longest > LONGEST_STORED / 2, "{longest}");
    assert!(own < 4_096, "{own} bytes of our own log:\n{}", replica.said());
    assert!(during <= P99 * 10, "{during:?}, before {before:?}");
    report(
        Part::Hostile,
        format!("{count} requests for paths of 8 kB, each another, from one client"),
        "at most 2,048 bytes of each are stored, the spool and our own log stay bounded, and nobody \
         else is slowed",
        format!(
            "in {took:.0?}; {longest} bytes stored; spool at most {most} bytes of {spool_bytes}; \
             {own} bytes of our own log; p99 of others {during:.1?} ({before:.1?} before)"
        ),
    );
}

async fn ask_for_a_long_path(stream: &mut TcpStream, number: usize) {
    let path = format!("/{number}/%61{}", "a/../b;%2e/".repeat(740));
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut bytes = [0; 4_096];
    loop {
        let read = stream.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "closed after {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            let status = head.split(' ').nth(1).unwrap();
            assert!(["404", "429"].contains(&status), "{head}");
            return;
        }
    }
}

/// Both stores go away and come back under load, while strangers send rubbish and operators ask in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_log_has_at_most_a_line_of_a_cause_in_ten_seconds() {
    let _turn = turn().await;
    let (seed, rounds) = (seed(), short_or_long(2, 20));
    let mut measured = Vec::new();
    for format in ["text", "json"] {
        let postgres = ipwarden_testbed::postgres_private().unwrap();
        let redis = ipwarden_testbed::redis_private().unwrap();
        let settings =
            |launch: Launch| launch.behind_proxies().with("IPWARDEN_LOG__FORMAT", format);
        let bed = Bed::on_own_postgres(&postgres, 1, Some(redis.clone()), settings).await;
        let load = Load::start(&[bed.first().public_address()], 200, 8, seed, anybody());
        let mut failed = 0;
        for _ in 0..rounds {
            let stores = (redis.clone(), postgres.clone());
            let down = move || (stores.0.stop().unwrap(), stores.1.stop().unwrap());
            tokio::task::spawn_blocking(down).await.unwrap();
            send_rubbish(bed.first()).await;
            failed += ask_in_vain(&bed).await;
            let stores = (redis.clone(), postgres.clone());
            let up = move || (stores.0.start().unwrap(), stores.1.start().unwrap());
            tokio::task::spawn_blocking(up).await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
        Tally::of(&load.stop().await).assert_none_failed();
        // What was held back is said, even if nothing else happens.
        let (lines, _) = eventually(PATIENCE, "what was held back is said", async || {
            let said = bed.first().said();
            said.contains(" more in 10 s").then(|| lines_of(&said, format))
        })
        .await;
        assert!(failed > 20, "{failed} requests failed; there was nothing to hold back");
        assert_seldom(&lines);
        measured.push(format!(
            "{format}: {} lines of {} causes while {failed} requests of operators failed",
            lines.len(),
            lines.iter().map(|line| &line.cause).collect::<HashSet<_>>().len(),
        ));
    }
    report(
        Part::Hostile,
        format!("PostgreSQL and Redis away {rounds} times under load, with rubbish from strangers"),
        "our own log has at most a line of a cause in ten seconds, and says how many it held back",
        measured.join("; "),
    );
}

async fn send_rubbish(replica: &Replica) {
    for _ in 0..100 {
        let mut stream = TcpStream::connect(replica.public_address()).await.unwrap();
        let _ = stream.write_all(b"\0\x1b[31m no HTTP \r\n\r\n").await;
    }
}

/// How many requests of an operator failed for want of the store, of some at once.
async fn ask_in_vain(bed: &Bed) -> usize {
    let ask = || async {
        let (path, key) = ("/api/v1/blocks", &bed.admin);
        bed.first().control_status(Method::GET, path, key, serde_json::Value::Null).await
    };
    let answers = futures_util::future::join_all((0..20).map(|_| ask())).await;
    answers.into_iter().filter(|status| status.is_server_error()).count()
}

struct Line {
    at: DateTime<Utc>,
    /// What it says, without numbers and names of single requests.
    cause: String,
}

/// The lines of a log, without the banner.
fn lines_of(said: &str, format: &str) -> Vec<Line> {
    let said = said.lines().skip_while(|line| !line.contains("  try ")).skip(1);
    said.filter_map(|line| {
        assert!(!line.contains('\u{1b}'), "{line}");
        let (at, level, says) = match format {
            "json" => {
                let mut line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
                let fields = line.as_object_mut().unwrap();
                fields.remove("reference");
                let at = fields.remove("timestamp").unwrap().as_str().unwrap().to_owned();
                let level = fields["level"].as_str().unwrap().to_owned();
                (at, level, line.to_string())
            }
            _ => {
                let (at, rest) = line.split_once(' ').unwrap();
                let (level, says) = rest.trim_start().split_once(' ').unwrap();
                let words = says.split(' ').filter(|word| !word.starts_with("reference="));
                (at.to_owned(), level.to_owned(), words.collect::<Vec<_>>().join(" "))
            }
        };
        let cause = says.replace(|byte: char| byte.is_ascii_digit(), "");
        let at = at.parse().expect("a line begins with its time");
        ["WARN", "ERROR"].contains(&level.as_str()).then_some(Line { at, cause })
    })
    .collect()
}

fn assert_seldom(lines: &[Line]) {
    for (number, line) in lines.iter().enumerate() {
        let again = lines[number + 1..].iter().find(|later| later.cause == line.cause);
        let Some(again) = again else { continue };
        // The line is dated a little after it was judged.
        let between = (again.at - line.at).to_std().unwrap_or_default();
        assert!(between >= Duration::from_millis(9_500), "{between:?}: {}", line.cause);
    }
}
