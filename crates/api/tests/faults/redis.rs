//! Redis killed, hung, slow and unreachable under load: what a loss and a return may admit, and when
//! the quotas are exact again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipwarden_testbed::RedisServer;
use ipwarden_testbed::proxy::Proxy;
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::check::{Tally, admitted, most_within, percentile};
use super::common::{Bed, Launch, PATIENCE, eventually};
use super::load::{Load, Shot, Who, among, sweep};
use super::{seed, turn};

pub(crate) const REPLICAS: usize = 4;
/// Clients of each phase: few, so that each comes far past its quota.
const CLIENTS: u32 = 60;
pub(crate) const LIMIT: u64 = 5;
/// What one loss, return or emptying of Redis may admit more, per client: `max(limit, replicas)`.
pub(crate) const MORE: u64 = 5;
/// How long a command to Redis may stay unanswered: no answer to a client should take longer.
const COMMAND_PATIENCE: Duration = Duration::from_millis(20);
const EXACT_AGAIN: Duration = Duration::from_secs(1);
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// A client who is blocked throughout.
const BLOCKED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
pub(crate) const FALLBACKS: &str = "ipwarden_limiter_fallbacks_total";
const LOSSES: &str = "ipwarden_redis_losses_total";
pub(crate) const POSSIBLE: &str = "ipwarden_extra_admissions_possible_total{policy=\"anonymous\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_fails_nobody_and_comes_back_empty_within_the_bound() {
    let _turn = turn().await;
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed = bed(&redis, redis.url()).await;
    let (down, up) = (redis.clone(), redis.clone());
    trial(&bed, "killed", move || down.stop().unwrap(), move || up.start().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_redis_fails_nobody_and_admits_within_the_bound() {
    let _turn = turn().await;
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed = bed(&redis, redis.url()).await;
    let (down, up) = (redis.clone(), redis.clone());
    trial(&bed, "hung", move || down.freeze().unwrap(), move || up.thaw().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis_is_a_lost_one() {
    let _turn = turn().await;
    let (redis, proxy) = behind_a_proxy();
    let bed = bed(&redis, &format!("redis://{}", proxy.address())).await;
    let slow = Duration::from_millis(200);
    let (proxy, connected) = (Arc::new(proxy), Instant::now());
    let (down, up) = (proxy.clone(), proxy.clone());
    let before = proxy.accepted();
    let (slower, normal) = (move || down.set_latency(slow), move || up.set_latency(Duration::ZERO));
    trial(&bed, "slow by 200 ms", slower, normal).await;
    assert_few_attempts(&proxy, before, connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_unreachable_without_a_reset_is_tried_seldom() {
    let _turn = turn().await;
    let (redis, proxy) = behind_a_proxy();
    let bed = bed(&redis, &format!("redis://{}", proxy.address())).await;
    let (proxy, connected) = (Arc::new(proxy), Instant::now());
    let (down, up) = (proxy.clone(), proxy.clone());
    let before = proxy.accepted();
    trial(&bed, "unreachable", move || down.hold(), move || up.release()).await;
    assert_few_attempts(&proxy, before, connected);
}

fn behind_a_proxy() -> (RedisServer, Proxy) {
    let redis = ipwarden_testbed::redis_private().unwrap();
    let server: SocketAddr = redis.url().strip_prefix("redis://").unwrap().parse().unwrap();
    (redis, Proxy::to(server).unwrap())
}

/// The limiter of each replica makes at most ten connections a second; its subscription to hints tries
/// again after 250 ms at the earliest.
fn assert_few_attempts(proxy: &Proxy, before: u64, since: Instant) {
    let (attempts, seconds) = (proxy.accepted() - before, since.elapsed().as_secs() + 1);
    let at = proxy.accepted_at();
    let within_a_second = |from: usize| {
        at[from..].iter().take_while(|then| **then - at[from] < Duration::from_secs(1)).count()
    };
    let most = (0..at.len()).map(within_a_second).max().unwrap_or(0);
    eprintln!(
        "{attempts} connections in {seconds} s from {REPLICAS} replicas, {most} in one second at most"
    );
    assert!(attempts <= seconds * REPLICAS as u64 * (10 + 4), "{attempts} in {seconds} s");
    assert!(most <= REPLICAS * (10 + 4), "{most} in one second");
}

/// Four replicas, each of which knows that there are four.
pub(crate) async fn bed(redis: &RedisServer, url: &str) -> Bed {
    bed_of(REPLICAS, redis, url).await
}

async fn bed_of(replicas: usize, redis: &RedisServer, url: &str) -> Bed {
    let settings = |launch: Launch| launch.behind_proxies().with("REDIS_URL", url);
    let bed = Bed::on_postgres(replicas, Some(redis.clone()), settings).await;
    for replica in &bed.replicas {
        eventually(PATIENCE, "it knows of the others", async || {
            (replica.metric("ipwarden_live_replicas").await == replicas as i64).then_some(())
        })
        .await;
    }
    bed
}

/// Breaks Redis for a while under load and heals it; three groups of clients ask: one from the start,
/// one that comes while it is broken, one when it is whole again.
async fn trial(
    bed: &Bed,
    how: &str,
    break_it: impl FnOnce() + Send + 'static,
    heal_it: impl FnOnce() + Send + 'static,
) {
    let seed = seed();
    let (per_second, seconds) = short_or_long((500, 3), (2_000, 60));
    let block = json!({ "target": BLOCKED });
    let (status, _) = bed.api(Method::POST, "/api/v1/blocks", Some(block)).await;
    assert_eq!(status, StatusCode::CREATED);
    let load = Load::start(&bed.public_addresses(), per_second, 32, seed, group(&[1]));
    sleep(Duration::from_secs(2)).await;
    let calm = Instant::now();
    let (losses_before, fallbacks_before) = (bed.sum(LOSSES).await, bed.sum(FALLBACKS).await);

    load.set_who(group(&[1, 2]));
    let broken = Instant::now();
    tokio::task::spawn_blocking(break_it).await.unwrap();
    let (_, opened) = eventually(PATIENCE, "every breaker is open", async || {
        (bed.sum("ipwarden_redis_breaker_open").await == REPLICAS as u64).then_some(())
    })
    .await;
    let after_opening = Instant::now();
    let (_, text) = bed.first().open("/readyz?verbose").await;
    assert!(text.contains("[!] quotas"), "{text}");
    for replica in &bed.replicas {
        let status = replica.get(&BLOCKED.to_string(), "/").await.status();
        assert_eq!(status, StatusCode::FORBIDDEN, "blocked, whatever becomes of Redis");
    }
    // The outage itself.
    sleep(Duration::from_secs(seconds)).await;

    let healing = Instant::now();
    tokio::task::spawn_blocking(heal_it).await.unwrap();
    let exact = exact_again(bed).await;
    let fallbacks_then = bed.sum(FALLBACKS).await;
    load.set_who(group(&[1, 2, 3]));
    sleep(Duration::from_secs(2)).await;
    let (losses_after, fallbacks_after) = (bed.sum(LOSSES).await, bed.sum(FALLBACKS).await);
    let shots = load.stop().await;

    let tally = Tally::of(&shots);
    tally.assert_none_failed();
    let calm = between(&shots, shots[0].sent, calm);
    let opening = between(&shots, broken, after_opening);
    let during = between(&shots, after_opening, healing);
    let after = between(&shots, healing, shots[shots.len() - 1].sent);
    let slow = percentile(&during, 99);
    assert!(slow <= COMMAND_PATIENCE * 10, "{slow:?} while the breakers are open");
    // While Redis answers nothing is admitted but within the limit; on a machine that is too busy some
    // commands count as unanswered, and each is at most one admission more.
    let late = fallbacks_after - fallbacks_then;
    let newcomers: Vec<Shot> =
        shots.iter().filter(|shot| group_of(shot.client) == 3).cloned().collect();
    for (when, shots, strays) in [("before", &calm, fallbacks_before), ("after", &newcomers, late)]
    {
        let beyond: u64 = admitted(shots).values().map(|took| took.saturating_sub(LIMIT)).sum();
        assert!(beyond <= strays, "{when}: {beyond} admitted beyond the limit, {strays} fallbacks");
    }
    // A loss and a return. Those that were not of our making, for the same reason, count alike.
    let strange = losses_before + (losses_after - losses_before).saturating_sub(REPLICAS as u64);
    let strays = u64::from(fallbacks_before > 0) + u64::from(late > 0);
    let bound = LIMIT + MORE * (2 * (1 + strange) + strays);
    let most = most_within(&shots, WINDOW);
    for (client, admitted) in &most {
        assert!(*admitted <= bound, "{client}: {admitted} of {bound}, {strange} strange losses");
    }
    let most_of = |number| {
        let of_group = most.iter().filter(|(client, _)| group_of(**client) == number);
        of_group.map(|(_, admitted)| *admitted).max().unwrap_or(0)
    };
    let (most_met, most_new) = (most_of(1), most_of(2));
    // The replicas say themselves what may have come of it.
    let possible = bed.sum(POSSIBLE).await;
    assert!(possible >= 2 * MORE * REPLICAS as u64, "{possible}, with a loss and a return of each");
    assert!(most_met.max(most_new) <= LIMIT + possible);
    assert!(exact <= EXACT_AGAIN * 10);
    report(
        Part::Redis,
        format!(
            "Redis {how} for {seconds} s at {per_second} requests a second over {REPLICAS} replicas"
        ),
        format!(
            "no failed request; at most {} of each client in a minute; answers in {COMMAND_PATIENCE:?} \
             once the breaker is open; exact within {EXACT_AGAIN:?} of its return; blocks hold",
            LIMIT + 2 * MORE,
        ),
        format!(
            "{} answers, none failed; at most {most_met} of those who asked before and {most_new} of \
             those who came meanwhile; breakers open after {opened:.0?}; p99 {:.1?} before, {:.1?} \
             until then, {slow:.1?} while open, {:.1?} after; exact again after {exact:.0?}; {} \
             decided without Redis",
            tally.references.len(),
            percentile(&calm, 99),
            percentile(&opening, 99),
            percentile(&after, 99),
            fallbacks_then - fallbacks_before,
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_replicas_that_find_redis_back_make_few_connections_and_answer_as_before() {
    /// Of the pool, for what is not on the path of a request; and one that listens to hints.
    const BESIDES: usize = 4 + 1;
    const REPLICAS: usize = 8;
    let _turn = turn().await;
    let seed = seed();
    let (per_second, seconds) = short_or_long((400, 4), (2_000, 600));
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed = bed_of(REPLICAS, &redis, redis.url()).await;
    let who = sweep(Ipv4Addr::new(198, 18, 0, 0), 12);
    let load = Load::start(&bed.public_addresses(), per_second, 64, seed, who);
    sleep(Duration::from_secs(2)).await;
    let broken = Instant::now();
    let (down, up) = (redis.clone(), redis.clone());
    tokio::task::spawn_blocking(move || down.stop().unwrap()).await.unwrap();
    // The outage itself.
    sleep(Duration::from_secs(seconds)).await;
    tokio::task::spawn_blocking(move || up.start().unwrap()).await.unwrap();
    let back = Instant::now();
    let mut connected = Vec::new();
    while back.elapsed() < Duration::from_secs(3) {
        let redis = redis.clone();
        let told = tokio::task::spawn_blocking(move || redis.ask("INFO clients").unwrap());
        connected.push(number_in(&told.await.unwrap(), "connected_clients:"));
    }
    exact_again(&bed).await;
    let shots = load.stop().await;
    let made = number_in(&redis.ask("INFO stats").unwrap(), "total_connections_received:");
    Tally::of(&shots).assert_none_failed();

    let workers = std::thread::available_parallelism().unwrap().get();
    // A probe's that becomes a worker's is one of them; ours asks.
    let bound = REPLICAS * (workers + BESIDES) + 1;
    let most = connected.iter().copied().max().unwrap();
    assert!(most <= bound, "{most} connections at once, {bound} are enough");
    let before = percentile(&between(&shots, shots[0].sent, broken), 99);
    let after = percentile(&between(&shots, back, back + Duration::from_secs(2)), 99);
    assert!(
        after <= COMMAND_PATIENCE * 10 + before,
        "{after:?} after its return, {before:?} before"
    );
    report(
        Part::Redis,
        format!(
            "Redis back after {seconds} s, {REPLICAS} replicas at {per_second} requests a second"
        ),
        format!("at most {bound} connections at once; no answer slower than {COMMAND_PATIENCE:?}"),
        format!(
            "{} answers, none failed; {most} connections at once at most, {} made in all; p99 \
             {before:.1?} before, {after:.1?} in the two seconds after its return",
            shots.len(),
            made.saturating_sub(connected.len() + 1),
        ),
    );
}

/// The number behind this word in what Redis says of itself.
fn number_in(told: &str, word: &str) -> usize {
    let mut lines = told.lines();
    lines.find_map(|line| line.strip_prefix(word)?.trim().parse().ok()).unwrap()
}

/// The clients of these groups.
fn group(numbers: &[u32]) -> Who {
    let base = Ipv4Addr::new(198, 19, 0, 0).to_bits();
    let clients = numbers.iter().flat_map(|number| {
        (0..CLIENTS).map(move |host| Ipv4Addr::from_bits(base + number * 256 + host))
    });
    among(clients.collect())
}

/// Until a client that nobody has seen is admitted exactly to its limit, over all replicas together.
pub(crate) async fn exact_again(bed: &Bed) -> Duration {
    let mut number = 0;
    let (_, took) = eventually(PATIENCE, "quotas are exact again", async || {
        number += 1;
        let client = Ipv4Addr::from_bits(Ipv4Addr::new(198, 19, 128, 0).to_bits() + number);
        let mut admitted = 0;
        for _ in 0..3 {
            for replica in &bed.replicas {
                let status = replica.get(&client.to_string(), "/").await.status();
                assert!([StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(&status));
                admitted += u64::from(status == StatusCode::OK);
            }
        }
        (admitted == LIMIT).then_some(())
    })
    .await;
    took
}

pub(crate) fn between(shots: &[Shot], from: Instant, to: Instant) -> Vec<Shot> {
    shots.iter().filter(|shot| from <= shot.sent && shot.sent < to).cloned().collect()
}

fn group_of(client: Ipv4Addr) -> u8 {
    client.octets()[2]
}
