//! How soon a block is live on every replica, with Redis and without, while its client keeps asking.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipwarden_testbed::RedisServer;
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::common::{Bed, Launch, Replica, eventually};
use super::load::{Load, Outcome, Shot, among, anybody};
use super::{seed, turn};

const REPLICAS: usize = 8;
const WITH_REDIS: Duration = Duration::from_secs(1);
const WITHOUT_REDIS: Duration = Duration::from_secs(2);
/// Without a quota in the way, whoever is not blocked is served.
const NO_QUOTA: &str = "[[quotas]]\nname = \"open\"\npaths = [\"/\"]\nanonymous = \"1000000/1m\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_soon_live_on_eight_replicas_with_redis_and_without() {
    let _turn = turn().await;
    let seed = seed();
    let bed = Bed::fleet(REPLICAS, settings).await;
    let rounds = short_or_long(6, 50);
    live(&bed, "ipctl and the API", rounds, WITH_REDIS, seed).await;

    let redis: RedisServer = bed.redis.clone().unwrap();
    let stopping = redis.clone();
    tokio::task::spawn_blocking(move || stopping.stop()).await.unwrap().unwrap();
    let rounds = short_or_long(2, 20);
    live(&bed, "Redis down", rounds, WITHOUT_REDIS, seed).await;

    // Frozen, it takes hints without passing them on.
    tokio::task::spawn_blocking(move || redis.start().and_then(|()| redis.freeze()))
        .await
        .unwrap()
        .unwrap();
    live(&bed, "Redis hung", rounds, WITHOUT_REDIS, seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_soon_live_in_a_fleet_that_has_no_redis() {
    let _turn = turn().await;
    let seed = seed();
    let bed = Bed::on_postgres(REPLICAS, None, settings).await;
    live(&bed, "no Redis configured", short_or_long(2, 20), WITHOUT_REDIS, seed).await;
}

fn settings(launch: Launch) -> Launch {
    launch.behind_proxies().file(NO_QUOTA)
}

/// One change, and what the replicas did about it.
struct Change {
    client: Ipv4Addr,
    /// What every replica answers when the change is live.
    then: u16,
    /// When whoever made it was told that it is made.
    made: Instant,
    /// When the next change of this client began.
    until: Instant,
}

/// Blocks and unblocks clients that ask every replica all the time, each through another replica or
/// through `ipctl`, and looks at every answer.
async fn live(bed: &Bed, how: &str, rounds: usize, goal: Duration, seed: u64) {
    let per_second = short_or_long(25, 100);
    let targets: Vec<_> = bed.replicas.iter().map(Replica::public_address).collect();
    let replicas = u32::try_from(REPLICAS).unwrap();
    let load = Load::start(&targets, per_second * replicas, 2 * replicas, seed, anybody());
    let (mut blocked, mut unblocked) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let client = Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 1).to_bits() + round as u32);
        load.set_who(among(vec![client]));
        on_each(bed, client, goal, StatusCode::OK).await;
        let through = &bed.replicas[round % REPLICAS];
        block(bed, through, round, client).await;
        let made = Instant::now();
        on_each(bed, client, goal, StatusCode::FORBIDDEN).await;
        sleep(Duration::from_millis(300)).await;
        blocked.push(Change { client, then: 403, made, until: Instant::now() });

        unblock(bed, through, round, client).await;
        let made = Instant::now();
        on_each(bed, client, goal, StatusCode::OK).await;
        sleep(Duration::from_millis(300)).await;
        unblocked.push(Change { client, then: 200, made, until: Instant::now() });
    }
    let shots = load.stop().await;
    let [blocks, unblocks] = [blocked, unblocked].map(|changes| {
        let mut late: Vec<Duration> =
            changes.iter().flat_map(|change| last_before(change, &shots)).collect();
        assert_eq!(late.len(), rounds * REPLICAS);
        late.sort_unstable();
        let [p50, p99, most] =
            [late.len() / 2, late.len() * 99 / 100, late.len() - 1].map(|at| late[at]);
        assert!(most <= goal * 10, "{how}: live after {most:?} only, goal {goal:?}");
        format!("p50 {p50:?}, p99 {p99:?}, longest {most:?}")
    });
    report(
        Part::Lists,
        format!(
            "{rounds} blocks and unblocks of a client that sends {per_second} requests a second to \
             each of {REPLICAS} replicas: {how}"
        ),
        format!("the last answer of before is at most {goal:?} late, and none comes after it"),
        format!("{} answers; blocks: {blocks}; unblocks: {unblocks}", shots.len()),
    );
}

/// How long after the change each replica gave the last answer of before. None may come after one of
/// then.
fn last_before(change: &Change, shots: &[Shot]) -> Vec<Duration> {
    let during = shots.iter().filter(|shot| {
        shot.client == change.client && shot.sent >= change.made && shot.sent < change.until
    });
    let mut late = vec![Duration::ZERO; REPLICAS];
    let mut live: Vec<Option<Instant>> = vec![None; REPLICAS];
    for shot in during {
        let Outcome::Answered { status, .. } = shot.outcome else { panic!("{shot:?}") };
        let answered = shot.sent + shot.took;
        if status == change.then {
            let first = live[shot.target].get_or_insert(answered);
            *first = answered.min(*first);
        } else {
            assert!([200, 403].contains(&status), "{shot:?}");
            let since = live[shot.target];
            assert!(since.is_none_or(|since| shot.sent < since), "it is back: {shot:?}");
            late[shot.target] = late[shot.target].max(answered - change.made);
        }
    }
    assert!(live.iter().all(Option::is_some), "each replica was asked all the time");
    late
}

/// By `ipctl` and by the API in turn.
async fn block(bed: &Bed, through: &Replica, round: usize, client: Ipv4Addr) {
    if round.is_multiple_of(2) {
        bed.ipctl(&["block", &client.to_string()]).await;
        return;
    }
    let body = json!({ "target": client });
    let status = through.control_status(Method::POST, "/api/v1/blocks", &bed.admin, body).await;
    assert_eq!(status, StatusCode::CREATED);
}

async fn unblock(bed: &Bed, through: &Replica, round: usize, client: Ipv4Addr) {
    if round.is_multiple_of(2) {
        bed.ipctl(&["unblock", &client.to_string()]).await;
        return;
    }
    let path = format!("/api/v1/blocks/{client}");
    let (status, _) = through.control(Method::DELETE, &path, Some(&bed.admin), None).await;
    assert_eq!(status, StatusCode::OK);
}

/// Waits until each replica answers so.
async fn on_each(bed: &Bed, client: Ipv4Addr, goal: Duration, status: StatusCode) {
    let client = client.to_string();
    for replica in &bed.replicas {
        eventually(goal * 10, "the change is live", async || {
            (replica.get(&client, "/").await.status() == status).then_some(())
        })
        .await;
    }
}
