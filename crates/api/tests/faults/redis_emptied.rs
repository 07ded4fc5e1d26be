//! Redis that forgets everything, and Redis whose answers are lost, while requests flow.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipwarden_testbed::proxy::Proxy;
use ipwarden_testbed::report::{Part, report, short_or_long};
use tokio::time::{Instant, sleep};

use super::check::{Tally, admitted, most_within};
use super::load::{Load, Shot, Who, among, sweep};
use super::redis::{FALLBACKS, LIMIT, MORE, POSSIBLE, REPLICAS, WINDOW, bed, between, exact_again};
use super::{seed, turn};

/// What each replica admits by its own log, whatever Redis forgets.
const OWN: u64 = LIMIT * REPLICAS as u64;
const PAUSE: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_admits_at_most_one_quota_more_each_time() {
    let _turn = turn().await;
    let (per_second, times) = short_or_long((500, 2), (2_000, 20));
    let seed = seed();
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed = bed(&redis, redis.url()).await;
    let load = Load::start(&bed.public_addresses(), per_second, 32, seed, clients(0));
    for _ in 0..times {
        sleep(PAUSE).await;
        let redis = redis.clone();
        let flushed = tokio::task::spawn_blocking(move || redis.ask("FLUSHALL").unwrap());
        assert_eq!(flushed.await.unwrap().trim(), "OK");
    }
    let strays = bed.sum(FALLBACKS).await;
    let (emptied, shots) = finish(load).await;
    let strays_after = bed.sum(FALLBACKS).await - strays;
    let most = assert_within(&shots, LIMIT + MORE * times, strays + strays_after);
    assert!(most > LIMIT, "nothing was forgotten: {most} of {LIMIT} admitted");
    let newcomers = assert_exact_after(&shots, emptied, strays_after);
    report(
        Part::Redis,
        format!(
            "`FLUSHALL` {times} times at {per_second} requests a second over {REPLICAS} replicas"
        ),
        "no error; at most 5 more of each client each time; exact for whoever comes after",
        format!(
            "{} answers, none failed; at most {most} of each client in a minute; {newcomers} clients \
             that came after admitted 5 each; {} decided without Redis",
            shots.len(),
            strays + strays_after,
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_restarted_empty_at_once_admits_within_the_bound_and_says_so() {
    let _turn = turn().await;
    let (per_second, times) = short_or_long((500, 1), (2_000, 5));
    let seed = seed();
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed = bed(&redis, redis.url()).await;
    let load = Load::start(&bed.public_addresses(), per_second, 32, seed, clients(0));
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        sleep(PAUSE * 2).await;
        let (redis, before) = (redis.clone(), Instant::now());
        let restart = move || redis.stop().and_then(|()| redis.start()).unwrap();
        tokio::task::spawn_blocking(restart).await.unwrap();
        longest = longest.max(before.elapsed());
        exact_again(&bed).await;
    }
    let strays = bed.sum(FALLBACKS).await;
    let (restarted, shots) = finish(load).await;
    let strays_after = bed.sum(FALLBACKS).await - strays;
    // Each restart is a loss and a return; what of either is seen depends on how quick it was.
    let most = assert_within(&shots, LIMIT + 2 * MORE * times, strays + strays_after);
    let newcomers = assert_exact_after(&shots, restarted, strays_after);
    let possible = bed.sum(POSSIBLE).await;
    assert!(most.saturating_sub(LIMIT) <= possible, "{most} admitted, {possible} more possible");
    assert!(possible > 0, "nobody noticed the restart");
    report(
        Part::Redis,
        format!("Redis restarted empty {times} times at {per_second} requests a second"),
        "no error; at most 5 more of each client by each loss and each return; the metric says so",
        format!(
            "{} answers, none failed; away for {longest:.0?} at most; at most {most} of each client \
             in a minute, where the replicas together say that {possible} more are possible; \
             {newcomers} clients that came after admitted 5 each",
            shots.len(),
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_after_redis_has_counted_fail_nobody() {
    let _turn = turn().await;
    let (per_second, times) = short_or_long((500, 10), (2_000, 200));
    let seed = seed();
    let redis = ipwarden_testbed::redis_private().unwrap();
    let server: SocketAddr = redis.url().strip_prefix("redis://").unwrap().parse().unwrap();
    let proxy = Proxy::to(server).unwrap();
    let bed = bed(&redis, &format!("redis://{}", proxy.address())).await;
    let who = sweep(Ipv4Addr::new(198, 18, 0, 0), 12);
    let load = Load::start(&bed.public_addresses(), per_second, 32, seed, who);
    for _ in 0..times {
        // Between the faults.
        sleep(Duration::from_millis(300)).await;
        proxy.lose_answers();
    }
    let exact = exact_again(&bed).await;
    let shots = load.stop().await;
    let tally = Tally::of(&shots);
    tally.assert_none_failed();
    let (fallbacks, lost) = (bed.sum(FALLBACKS).await, proxy.lost());
    assert!(lost >= times, "{lost} answers were lost");
    // Redis forgets nothing here, so only what was decided without it can be too much.
    let admitted = admitted(&shots);
    let beyond: u64 = admitted.values().map(|took| took.saturating_sub(LIMIT)).sum();
    assert!(beyond <= fallbacks, "{beyond} admitted beyond the limit, {fallbacks} fallbacks");
    let most = admitted.values().copied().max().unwrap();
    assert!(most <= LIMIT + 2 * MORE, "{most} of one client");
    report(
        Part::Redis,
        format!(
            "answers lost {times} times after Redis has counted, at {per_second} requests a second"
        ),
        format!("no failed request; at most {} of each client", LIMIT + 2 * MORE),
        format!(
            "{} answers, none failed; {lost} answers lost, {fallbacks} requests decided without Redis; \
             at most {most} of each client, {beyond} beyond the limit in all; exact again after \
             {exact:.0?}",
            tally.references.len(),
        ),
    );
}

/// Few clients, so that each comes far past its quota.
fn clients(group: u8) -> Who {
    among((0..40).map(|host| Ipv4Addr::new(198, 19, group, host)).collect())
}

/// Lets newcomers ask; when they began, and all that was asked.
async fn finish(load: Load) -> (Instant, Vec<Shot>) {
    let after = Instant::now();
    load.set_who(clients(9));
    sleep(Duration::from_millis(1_500)).await;
    (after, load.stop().await)
}

/// Nobody failed, and nobody was admitted more than so many in a minute, besides those that were
/// decided without Redis. The most that anybody was.
fn assert_within(shots: &[Shot], bound: u64, strays: u64) -> u64 {
    Tally::of(shots).assert_none_failed();
    let most = most_within(shots, WINDOW);
    for (client, admitted) in &most {
        let allowed = bound.min(OWN) + MORE * u64::from(strays > 0);
        assert!(*admitted <= allowed, "{client}: {admitted} of {allowed}, {strays} fallbacks");
    }
    most.values().copied().max().unwrap()
}

/// Those who came after are admitted exactly their quota. How many they are.
fn assert_exact_after(shots: &[Shot], after: Instant, strays: u64) -> usize {
    let shots = between(shots, after, shots[shots.len() - 1].sent);
    let asked = |client| shots.iter().filter(|shot| shot.client == client).count();
    let mut newcomers = admitted(&shots);
    newcomers.retain(|client, _| client.octets()[2] == 9 && asked(*client) > 2 * LIMIT as usize);
    let off: u64 = newcomers.values().map(|admitted| admitted.abs_diff(LIMIT)).sum();
    assert!(off <= strays, "{off} off, {strays} fallbacks: {newcomers:?}");
    newcomers.len()
}
