//! SIGTERM and SIGINT: under load, with slow and silent clients, and while the store is away.

use std::net::SocketAddr;
use std::time::Duration;

use ipwarden_testbed::PostgresServer;
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::check::{Tally, each_is_logged_once};
use super::common::{Bed, Launch, PATIENCE, TEN_TIMES_A_SECOND, eventually};
use super::load::{Load, Outcome, anybody};
use super::{seed, turn};

const GOAL: Duration = Duration::from_secs(5);
/// Containers are killed after this, unless somebody says otherwise.
const WITHOUT_STORE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_replica_answers_what_it_accepted_and_ships_its_log() {
    let _turn = turn().await;
    let seed = seed();
    let per_second = short_or_long(300, 1_000);
    for mut bed in Bed::each(Launch::behind_proxies).await {
        let load = Load::start(&[bed.first().public_address()], per_second, 12, seed, anybody());
        sleep(Duration::from_secs(short_or_long(1, 10))).await;

        let (unready, took) = end(&mut bed, &load, &["TERM"]).await;
        let shots = load.stop().await;
        let tally = Tally::of(&shots);
        tally.assert_no_server_error();
        let failed: Vec<_> =
            shots.iter().filter(|shot| !matches!(shot.outcome, Outcome::Answered { .. })).collect();
        assert!(failed.is_empty(), "reset after {took:?}: {failed:?}");
        // It said that all was shipped: nobody else ships it, in the embedded size.
        let (late, _) =
            each_is_logged_once(&bed.db, &tally.references, Duration::from_secs(1)).await;
        report(
            Part::Stops,
            format!("SIGTERM at {per_second} requests a second, {}", bed.size),
            format!(
                "unready at once, no accepted request is reset, all in the log, exit 0, {GOAL:?}"
            ),
            format!(
                "{} answers, none reset, all logged ({late:?}); unready after {unready:?}, exit 0 \
                 after {took:?}",
                tally.references.len(),
            ),
        );
        assert!(took <= GOAL * 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_replica_ends_in_good_order_however_often_it_is_asked() {
    let _turn = turn().await;
    let mut bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let load = Load::start(&[bed.first().public_address()], 200, 8, seed(), anybody());
    sleep(Duration::from_secs(1)).await;

    let (_, took) = end(&mut bed, &load, &["INT", "TERM", "INT"]).await;
    let tally = Tally::of(&load.stop().await);
    tally.assert_no_server_error();
    assert_eq!(tally.lost, Vec::<String>::new(), "nothing is reset");
    each_is_logged_once(&bed.db, &tally.references, Duration::from_secs(1)).await;
    report(
        Part::Stops,
        "SIGINT, and then SIGTERM and SIGINT again while it ends",
        format!("as one SIGTERM: no accepted request is reset, all in the log, exit 0, {GOAL:?}"),
        format!(
            "{} answers, none reset, all logged; exit 0 after {took:?}",
            tally.references.len()
        ),
    );
    assert!(took <= GOAL * 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_begun_to_ask_is_answered_and_who_is_silent_delays_nothing() {
    let _turn = turn().await;
    let mut bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let address = bed.first().public_address();
    // One that has asked before and may again, one that asks slowly, and one that never comes to an
    // end.
    let mut idle = Slow::begin(address, 1).await;
    assert!(idle.finish().await.starts_with("http/1.1 200 "));
    let mut slow = Slow::begin(address, 2).await;
    let mut never = Slow::begin(address, 3).await;
    // All of them are accepted when one that comes later is answered.
    assert_eq!(bed.first().get("198.18.1.1", "/").await.status(), StatusCode::OK);

    bed.first().terminate();
    let asked = Instant::now();
    sleep(Duration::from_millis(500)).await;
    let answer = slow.finish().await;
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    let (_, rest) = answer.split_once("x-ipwarden-reference: ").unwrap();
    let reference = rest.split_whitespace().next().unwrap().to_uppercase();
    // Half a head is no request yet: it is closed, and so is what is idle.
    for silent in [&mut idle, &mut never] {
        silent.closed().await;
    }
    let status = bed.replicas[0].ended().await;
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(0), "{}", bed.first().said());
    let logged = super::check::logged(&bed.db).await;
    let found = logged.iter().filter(|(one, _)| one.to_uppercase() == reference);
    assert_eq!(found.map(|(_, times)| times).sum::<u32>(), 1, "{reference} in {logged:?}");
    report(
        Part::Stops,
        "SIGTERM with an idle connection, a head whose rest comes 0.5 s later, and one whose rest never does",
        format!(
            "what was begun is answered and logged, who is silent delays nothing, exit 0, {GOAL:?}"
        ),
        format!(
            "answered, with `Connection: close`, and logged; the others closed; exit 0 after {took:?}"
        ),
    );
    assert!(took <= GOAL * 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_ends_without_its_store_and_ships_its_log_after_the_next_start() {
    let _turn = turn().await;
    away("killed", PostgresServer::stop, PostgresServer::start).await;
    away("frozen", PostgresServer::freeze, PostgresServer::thaw).await;
}

async fn away(
    how: &str,
    break_it: fn(&PostgresServer) -> anyhow::Result<()>,
    heal_it: fn(&PostgresServer) -> anyhow::Result<()>,
) {
    let server = tokio::task::spawn_blocking(ipwarden_testbed::postgres_private);
    let server = server.await.unwrap().unwrap();
    let redis = ipwarden_testbed::redis_private().unwrap();
    let mut bed = Bed::on_own_postgres(&server, 1, Some(redis), Launch::behind_proxies).await;
    let load = Load::start(&[bed.first().public_address()], 200, 8, seed(), anybody());
    sleep(Duration::from_millis(500)).await;
    let breaking = server.clone();
    tokio::task::spawn_blocking(move || break_it(&breaking)).await.unwrap().unwrap();
    sleep(Duration::from_secs(short_or_long(1, 30))).await;

    let (_, took) = end(&mut bed, &load, &["TERM"]).await;
    let tally = Tally::of(&load.stop().await);
    tally.assert_no_server_error();
    assert_eq!(tally.lost, Vec::<String>::new(), "nothing is reset");

    tokio::task::spawn_blocking(move || heal_it(&server)).await.unwrap().unwrap();
    let ready = bed.replicas[0].start_again().await;
    let (late, unanswered) = each_is_logged_once(&bed.db, &tally.references, PATIENCE).await;
    assert_eq!(unanswered, 0, "records of nobody's requests");
    report(
        Part::Stops,
        format!("SIGTERM while PostgreSQL is {how}"),
        format!("exit 0 within {WITHOUT_STORE:?}; the next start ships what stayed in the spool"),
        format!(
            "exit 0 after {took:?}; ready again after {ready:?}, all {} answers logged once {late:?} \
             later",
            tally.references.len(),
        ),
    );
}

/// Sends the only replica these signals, the first and then the others, and acts as a proxy that sees
/// that it is no more ready: opens nothing new, and uses what it has. Returns how long it took to be
/// unready, and to end.
async fn end(bed: &mut Bed, load: &Load, signals: &[&str]) -> (Duration, Duration) {
    let asked = Instant::now();
    bed.first().signal(signals[0]);
    let (_, unready) = eventually(TEN_TIMES_A_SECOND, "readiness fails", async || {
        let (status, _) = bed.first().open("/readyz").await;
        (status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    load.connect_no_more();
    for signal in &signals[1..] {
        bed.first().signal(signal);
    }
    let status = bed.replicas[0].ended().await;
    assert_eq!(status.code(), Some(0), "{}", bed.first().said());
    (unready, asked.elapsed())
}

/// A client that takes its time.
struct Slow(TcpStream);

impl Slow {
    /// Connects, and sends half of a head.
    async fn begin(address: SocketAddr, host: u8) -> Slow {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let half = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 198.18.2.{host}\r\n");
        stream.write_all(half.as_bytes()).await.unwrap();
        Slow(stream)
    }

    /// Sends the other half. Returns the head of the answer.
    async fn finish(&mut self) -> String {
        self.0.write_all(b"Accept: application/json\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let mut bytes = [0; 1_024];
            let read = timeout(PATIENCE, self.0.read(&mut bytes)).await.unwrap().unwrap();
            assert_ne!(read, 0, "closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..read]);
        }
        String::from_utf8_lossy(&answer).to_lowercase()
    }

    /// Waits until the other side has closed it.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("it is closed");
    }
}
