//! Redis killed, hung, slow and unreachable under load: what a loss and a return may admit, and when
//! the quotas are exact again.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipwarden_testbed::RedisServer;
use ipwarden_testbed::proxy::Proxy;
use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use super::check::{Tally, percentile};
use super::common::{Bed, Launch, PATIENCE, Replica, eventually};
use super::load::{Load, Outcome, Shot, Who, among};
use super::{seed, turn};

const REPLICAS: usize = 4;
const PER_SECOND: u32 = 500;
/// Clients of each phase: few, so that each comes far past its quota.
const CLIENTS: u32 = 60;
const LIMIT: u64 = 5;
/// What one loss, return or emptying of Redis may admit more, per client: `max(limit, replicas)`.
const MORE: u64 = 5;
/// How long a command to Redis may stay unanswered: no answer to a client should take longer.
const COMMAND_PATIENCE: Duration = Duration::from_millis(20);
const EXACT_AGAIN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_fails_nobody_and_comes_back_empty_within_the_bound() {
    let _turn = turn().await;
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed = bed(&redis, redis.url()).await;
    let (down, up) = (redis.clone(), redis.clone());
    trial(&bed, "killed", 3, move || down.stop().unwrap(), move || up.start().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_redis_fails_nobody_and_admits_within_the_bound() {
    let _turn = turn().await;
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed = bed(&redis, redis.url()).await;
    let (down, up) = (redis.clone(), redis.clone());
    trial(&bed, "hung", 3, move || down.freeze().unwrap(), move || up.thaw().unwrap()).await;
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
    trial(&bed, "slow by 200 ms", 3, slower, normal).await;
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
    trial(&bed, "unreachable", 3, move || down.hold(), move || up.release()).await;
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
    eprintln!("{attempts} connections in {seconds} s from {REPLICAS} replicas");
    assert!(attempts <= seconds * REPLICAS as u64 * (10 + 4), "{attempts} in {seconds} s");
}

/// Four replicas, each of which knows that there are four.
async fn bed(redis: &RedisServer, url: &str) -> Bed {
    let settings = |launch: Launch| launch.behind_proxies().with("REDIS_URL", url);
    let bed = Bed::on_postgres(REPLICAS, Some(redis.clone()), settings).await;
    for replica in &bed.replicas {
        eventually(PATIENCE, "it knows of the others", async || {
            (replica.metric("ipwarden_live_replicas").await == REPLICAS as i64).then_some(())
        })
        .await;
    }
    bed
}

/// Breaks Redis for so many seconds under load and heals it; three groups of clients ask: one from
/// the start, one that comes while it is broken, one when it is whole again.
async fn trial(
    bed: &Bed,
    how: &str,
    seconds: u64,
    break_it: impl FnOnce() + Send + 'static,
    heal_it: impl FnOnce() + Send + 'static,
) {
    let seed = seed();
    let targets: Vec<_> = bed.replicas.iter().map(Replica::public_address).collect();
    let load = Load::start(&targets, PER_SECOND, 32, seed, group(&[1]));
    sleep(Duration::from_secs(2)).await;
    let calm = Instant::now();
    let (losses_before, fallbacks_before) = (losses(bed).await, fallbacks(bed).await);

    load.set_who(group(&[1, 2]));
    let broken = Instant::now();
    tokio::task::spawn_blocking(break_it).await.unwrap();
    let (_, opened) = eventually(PATIENCE, "every breaker is open", async || {
        let mut open = 0;
        for replica in &bed.replicas {
            open += replica.metric("ipwarden_redis_breaker_open").await;
        }
        (open == REPLICAS as i64).then_some(())
    })
    .await;
    let after_opening = Instant::now();
    let (_, text) = bed.first().open("/readyz?verbose").await;
    assert!(text.contains("[!] quotas"), "{text}");
    sleep(Duration::from_secs(seconds)).await;

    let healing = Instant::now();
    tokio::task::spawn_blocking(heal_it).await.unwrap();
    let exact = exact_again(bed).await;
    let fallbacks_then = fallbacks(bed).await;
    load.set_who(group(&[1, 2, 3]));
    sleep(Duration::from_secs(2)).await;
    let (losses_after, fallbacks_after) = (losses(bed).await, fallbacks(bed).await);
    let shots = load.stop().await;

    let tally = Tally::of(&shots);
    tally.assert_none_failed();
    let calm = between(&shots, shots[0].sent, calm);
    let opening = between(&shots, broken, after_opening);
    let during = between(&shots, after_opening, healing);
    let most = admitted(&shots);
    eprintln!(
        "{how}: {} answers; p99 {:?} before, {:?} until the breakers opened ({opened:?}), {:?} while \
         open (goal {COMMAND_PATIENCE:?}); at most {most:?} admitted per client of {LIMIT}; exact again \
         after {exact:?} (goal {EXACT_AGAIN:?}); losses {losses_before} before and {} then; fallbacks \
         {fallbacks_before} before, {} meanwhile, {} after",
        tally.references.len(),
        percentile(&calm, 99),
        percentile(&opening, 99),
        percentile(&during, 99),
        losses_after - losses_before,
        fallbacks_then - fallbacks_before,
        fallbacks_after - fallbacks_then,
    );
    assert!(percentile(&during, 99) <= COMMAND_PATIENCE * 10, "slow while the breakers are open");
    // While Redis answers nothing is admitted but within the limit; on a machine that is too busy some
    // commands count as unanswered, and each is at most one admission more.
    let late = fallbacks_after - fallbacks_then;
    let newcomers: Vec<Shot> =
        shots.iter().filter(|shot| group_of(shot.client) == 3).cloned().collect();
    for (when, shots, strays) in [("before", &calm, fallbacks_before), ("after", &newcomers, late)]
    {
        let beyond: u64 = per_client(shots).values().map(|took| took.saturating_sub(LIMIT)).sum();
        assert!(beyond <= strays, "{when}: {beyond} admitted beyond the limit, {strays} fallbacks");
    }
    // A loss and a return. Those that were not of our making, for the same reason, count alike.
    let strange = losses_before + (losses_after - losses_before).saturating_sub(REPLICAS as u64);
    let strays = u64::from(fallbacks_before > 0) + u64::from(late > 0);
    let bound = LIMIT + MORE * (2 * (1 + strange) + strays);
    for (client, admitted) in per_client(&shots) {
        assert!(admitted <= bound, "{client}: {admitted} of {bound}, {strange} strange losses");
    }
    assert!(exact <= EXACT_AGAIN * 10);
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
async fn exact_again(bed: &Bed) -> Duration {
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

fn between(shots: &[Shot], from: Instant, to: Instant) -> Vec<Shot> {
    shots.iter().filter(|shot| from <= shot.sent && shot.sent < to).cloned().collect()
}

/// How many requests of each client were admitted.
fn per_client(shots: &[Shot]) -> HashMap<Ipv4Addr, u64> {
    let mut admitted: HashMap<Ipv4Addr, u64> = HashMap::new();
    for shot in shots {
        let is_admitted = matches!(shot.outcome, Outcome::Answered { status: 200, .. });
        *admitted.entry(shot.client).or_default() += u64::from(is_admitted);
    }
    admitted
}

/// The most that any client of each group was admitted.
fn admitted(shots: &[Shot]) -> [u64; 3] {
    let mut most = [0; 3];
    for (client, admitted) in per_client(shots) {
        let group = &mut most[usize::from(group_of(client)) - 1];
        *group = admitted.max(*group);
    }
    most
}

fn group_of(client: Ipv4Addr) -> u8 {
    client.octets()[2]
}

/// How often a replica has lost Redis, all together.
async fn losses(bed: &Bed) -> u64 {
    sum(bed, "ipwarden_redis_losses_total").await
}

/// How many requests were decided without Redis, all together.
async fn fallbacks(bed: &Bed) -> u64 {
    sum(bed, "ipwarden_limiter_fallbacks_total").await
}

async fn sum(bed: &Bed, metric: &str) -> u64 {
    let mut sum = 0;
    for replica in &bed.replicas {
        sum += u64::try_from(replica.metric(metric).await).unwrap();
    }
    sum
}
