//! Limits while requests race over replicas, clients vanish, and Redis forgets its script.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipwarden_testbed::report::{Part, report, short_or_long};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::check::{Tally, admitted};
use super::common::{Bed, Launch, PATIENCE, eventually};
use super::load::{Line, Load, connect, receive, request_of, sweep};
use super::{seed, turn};

const LIMIT: u64 = 5;
const REPLICAS: usize = 4;
/// So many clients race at a time: each of them is done long before its window frees.
const ROUND: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_replicas_admit_exactly_five_of_a_hundred_racing_requests_of_each_of_a_thousand_clients()
 {
    let _turn = turn().await;
    let clients = 1_000;
    let bed = fleet().await;
    let race = race(&bed, 400, clients, 100).await;
    let strays = bed.sum("ipwarden_limiter_fallbacks_total").await;
    assert_eq!(strays, 0, "decided without Redis, which was there all the time");
    race.assert_exact(strays);
    report(
        Part::Quotas,
        format!("100 requests of each of {clients} new clients at once, over {REPLICAS} replicas"),
        "exactly 5 of each admitted",
        race.measured(strays),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_embedded_process_admits_exactly_five_of_each_racing_client() {
    let _turn = turn().await;
    let bed = Bed::embedded(Launch::default().behind_proxies()).await;
    let one = race(&bed, 100, 1, 100).await;
    one.assert_exact(0);
    let hundred = race(&bed, 100, 100, 10).await;
    hundred.assert_exact(0);
    report(
        Part::Quotas,
        "100 requests of 1 new client, then 1,000 of 100, at once on 100 connections to one process",
        "exactly 5 of each admitted",
        format!("{}; {}", one.measured(0), hundred.measured(0)),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_the_script_again_and_again_costs_no_error_and_no_exactness() {
    let _turn = turn().await;
    let (per_second, seconds) = short_or_long((500, 5), (2_000, 60));
    let seed = seed();
    let bed = fleet().await;
    let (redis, stop) = (bed.redis.clone().unwrap(), CancellationToken::new());
    let flushing = tokio::spawn({
        let (redis, stop) = (redis.clone(), stop.clone());
        async move {
            let mut flushes = 0;
            while !stop.is_cancelled() {
                let redis = redis.clone();
                let flush = move || redis.ask("SCRIPT FLUSH").unwrap();
                assert_eq!(tokio::task::spawn_blocking(flush).await.unwrap().trim(), "OK");
                flushes += 1;
                // The fault itself: every 100 ms.
                sleep(Duration::from_millis(100)).await;
            }
            flushes
        }
    });
    let who = sweep(Ipv4Addr::new(198, 18, 0, 0), 12);
    let load = Load::start(&bed.public_addresses(), per_second, 32, seed, who);
    sleep(Duration::from_secs(seconds)).await;
    let shots = load.stop().await;
    stop.cancel();
    let flushes: u32 = flushing.await.unwrap();

    Tally::of(&shots).assert_none_failed();
    let strays = bed.sum("ipwarden_limiter_fallbacks_total").await;
    let mut asked: HashMap<Ipv4Addr, u32> = HashMap::new();
    shots.iter().for_each(|shot| *asked.entry(shot.client).or_default() += 1);
    let mut admitted = admitted(&shots);
    // The last one was still asking.
    admitted.retain(|client, _| asked[client] == 12);
    assert_exact(&admitted, strays);
    let with_text = redis.ask("INFO commandstats").unwrap();
    let with_text = with_text.lines().find_map(|line| line.strip_prefix("cmdstat_eval:calls="));
    let with_text: u32 = with_text.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(with_text >= flushes / 2, "the script was forgotten {with_text} times only");
    report(
        Part::Quotas,
        format!("`SCRIPT FLUSH` every 100 ms for {seconds} s at {per_second} requests a second"),
        "no error, and exactly 5 of each client admitted",
        format!(
            "{} answers, none an error; {} clients admitted 5 each, {strays} decided without Redis; \
             the script was forgotten {flushes} times and sent {with_text} times",
            shots.len(),
            admitted.len(),
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_reset_their_connections_leak_nothing_and_are_counted_once() {
    let _turn = turn().await;
    let seed = seed();
    let bed = fleet().await;
    let clients: Vec<Ipv4Addr> = (0..100).map(|host| Ipv4Addr::new(198, 18, 200, host)).collect();
    let before = decisions(&bed).await;
    let mut resets = JoinSet::new();
    for number in 0..50_usize {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(number as u64));
        let (targets, clients) = (bed.public_addresses(), clients.clone());
        resets.spawn(async move {
            for round in 0..20 {
                let client = clients[(number * 20 + round) % clients.len()];
                let mut line = connect(targets[rng.usize(..targets.len())]).await.unwrap();
                let text = request_of(client, "/");
                line.get_mut().write_all(text.as_bytes()).await.unwrap();
                // At once, or while the request is somewhere on its way through the replica.
                if rng.bool() {
                    sleep(Duration::from_micros(rng.u64(0..5_000))).await;
                }
                line.get_ref().set_zero_linger().unwrap();
            }
        });
    }
    resets.join_all().await;
    for replica in &bed.replicas {
        eventually(PATIENCE, "no question is on its way", async || {
            (replica.metric("ipwarden_redis_commands_in_flight").await == 0).then_some(())
        })
        .await;
    }
    let read = decisions(&bed).await - before;
    // What their quotas still hold.
    for client in &clients {
        for request in 0..6 {
            let status = bed.replicas[request % REPLICAS].get(&client.to_string(), "/").await;
            assert!([200, 429].contains(&status.status().as_u16()));
        }
    }
    let race = race(&bed, 400, 20, 100).await;
    let strays = bed.sum("ipwarden_limiter_fallbacks_total").await;
    race.assert_exact(strays);

    let decisions = decisions(&bed).await;
    bed.logs(usize::try_from(decisions).unwrap()).await;
    let records = bed.records().await;
    let references: std::collections::HashSet<_> =
        records.iter().map(|record| record.reference.as_ref().unwrap()).collect();
    assert_eq!(references.len() as u64, decisions, "each request is in the log once");
    let (mut answered, mut gone) = (0, 0);
    for client in &clients {
        let own = records.iter().filter(|record| record.address == *client);
        let allowed: Vec<i16> =
            own.filter(|record| record.verdict == "allowed").map(|record| record.status).collect();
        // Whose client went away before the answer may have been counted, or not have come so far.
        let (of_gone, of_answered): (Vec<i16>, Vec<i16>) =
            allowed.into_iter().partition(|status| *status == 499);
        let within = of_answered.len() as u64;
        assert!(within <= LIMIT + strays, "{client}: {within} admitted of {LIMIT}");
        let all = within + of_gone.len() as u64;
        assert!(all + strays >= LIMIT, "{client}: {all} took all of {LIMIT}: one counted twice");
        (answered, gone) = (answered + within, gone + of_gone.len());
    }
    report(
        Part::Quotas,
        format!(
            "clients reset the connection right behind their request, 1,000 times over {REPLICAS} replicas"
        ),
        "each that was admitted is counted and logged once, and nothing leaks",
        format!(
            "{read} of 1,000 were read; {gone} were gone before their answer; {answered} \
             admitted of 100 clients, each within its 5; {decisions} decisions, each in the log \
             once; no question to Redis left; then {}",
            race.measured(strays),
        ),
    );
}

async fn decisions(bed: &Bed) -> u64 {
    bed.sum("ipwarden_requests_total{verdict=\"allowed\"}").await
        + bed.sum("ipwarden_requests_total{verdict=\"throttled\"}").await
}

async fn fleet() -> Bed {
    let bed = Bed::fleet(REPLICAS, Launch::behind_proxies).await;
    // So that none answers its first question to Redis late.
    for (replica, host) in bed.replicas.iter().zip(1..) {
        for _ in 0..8 {
            replica.get(&Ipv4Addr::new(198, 18, 255, host).to_string(), "/").await;
        }
    }
    bed
}

/// What came of requests that were released at once.
struct Race {
    admitted: HashMap<Ipv4Addr, u64>,
    requests: usize,
    took: Duration,
}

/// Each of so many new clients asks `each` times, all at once, on so many connections to all replicas
/// alike.
async fn race(bed: &Bed, connections: usize, clients: u32, each: usize) -> Race {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let first = NEXT.fetch_add(clients, std::sync::atomic::Ordering::Relaxed);
    let base = Ipv4Addr::new(198, 19, 0, 0).to_bits() + first;
    let clients: Arc<[Ipv4Addr]> =
        (0..clients).map(|client| Ipv4Addr::from_bits(base + client)).collect();
    let targets = bed.public_addresses();
    let (groups, barrier) = (connections / each, Arc::new(Barrier::new(connections)));
    let mut racers = JoinSet::new();
    for number in 0..connections {
        let (clients, barrier) = (clients.clone(), barrier.clone());
        let (target, group) = (targets[number % targets.len()], number / targets.len() % groups);
        racers.spawn(async move {
            let mut line = connect(target).await.unwrap();
            let mut answers = Vec::new();
            for round in clients.chunks(ROUND) {
                let own: Vec<Ipv4Addr> =
                    round.iter().copied().skip(group).step_by(groups).collect();
                barrier.wait().await;
                ask_at_once(&mut line, target, &own, &mut answers).await;
            }
            answers
        });
    }
    let started = Instant::now();
    let answers: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
    let took = started.elapsed();
    let mut admitted: HashMap<Ipv4Addr, u64> = HashMap::new();
    for (client, status) in &answers {
        assert!([200, 429].contains(status), "{status}");
        *admitted.entry(*client).or_default() += u64::from(*status == 200);
    }
    assert_eq!((answers.len(), admitted.len()), (clients.len() * each, clients.len()));
    Race { admitted, requests: answers.len(), took }
}

/// Sends one request of each of these clients at once, and awaits the answers.
async fn ask_at_once(
    line: &mut Line,
    target: SocketAddr,
    clients: &[Ipv4Addr],
    answers: &mut Vec<(Ipv4Addr, u16)>,
) {
    let mut rest = clients;
    for _ in 0..3 {
        let text: String = rest.iter().map(|client| request_of(*client, "/")).collect();
        let sent = line.get_mut().write_all(text.as_bytes()).await;
        while sent.is_ok()
            && let Some((client, others)) = rest.split_first()
            && let Ok(answer) = receive(line).await
        {
            answers.push((*client, answer.status));
            rest = others;
        }
        if rest.is_empty() {
            return;
        }
        // On a busy machine it lay idle for longer than the replica waits; and whoever asks once more
        // is not admitted once more.
        *line = connect(target).await.unwrap();
    }
    panic!("no answer to {rest:?}");
}

impl Race {
    fn assert_exact(&self, strays: u64) {
        assert_exact(&self.admitted, strays);
    }

    fn measured(&self, strays: u64) -> String {
        let Race { admitted, requests, took } = self;
        format!(
            "{} of {requests} admitted, {} of {} clients exactly 5, {strays} decided without Redis, \
             in {took:.1?}",
            admitted.values().sum::<u64>(),
            admitted.values().filter(|admitted| **admitted == LIMIT).count(),
            admitted.len(),
        )
    }
}

/// Each is admitted exactly to its limit. On a machine that is too busy some questions to Redis count
/// as unanswered, and each of those is one admission more or less at most.
fn assert_exact(admitted: &HashMap<Ipv4Addr, u64>, strays: u64) {
    let off: u64 = admitted.values().map(|admitted| admitted.abs_diff(LIMIT)).sum();
    assert!(off <= strays, "off by {off} in all, {strays} decided without Redis: {admitted:?}");
}
