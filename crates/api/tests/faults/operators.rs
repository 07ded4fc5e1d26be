//! Two operators who contradict each other: the last committed state wins everywhere.

use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::{audit_log, blocked_ips, list_changes};
use ipwarden_core::keys::Role;
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::common::{Bed, Replica, TEN_TIMES_A_SECOND, eventually, now};
use super::{seed, turn};

const REPLICAS: usize = 4;
const NETWORK: &str = "198.51.100.0/24";
const INSIDE: &str = "198.51.100.7";
/// Blocks of each of the two operators, and as many unblocks.
const EACH: usize = 100;
/// One change of so many is made by `ipctl`.
const BY_IPCTL: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_end_with_the_last_committed_state_and_400_audit_rows() {
    let _turn = turn().await;
    let mut rng = fastrand::Rng::with_seed(seed());
    for _ in 0..short_or_long(1, 10) {
        let bed = Bed::fleet(REPLICAS, |one| one.behind_proxies()).await;
        let keys = [bed.key(Role::Operator).await, bed.key(Role::Admin).await];
        let before = bed.lists_version().await;
        let work = keys.each_ref().map(|_| {
            let mut blocks: Vec<bool> = (0..2 * EACH).map(|number| number < EACH).collect();
            rng.shuffle(&mut blocks);
            blocks
        });
        let began = Instant::now();
        tokio::join!(
            operate(&bed, &bed.replicas[0], &keys[0], &work[0]),
            operate(&bed, &bed.replicas[1], &keys[1], &work[1]),
        );
        let took = began.elapsed();
        contradicted(&bed, before, took).await;
    }
}

/// Makes these changes one after the other; `true` is a block.
async fn operate(bed: &Bed, through: &Replica, key: &str, work: &[bool]) {
    let client = Client::new();
    let url = format!("{}/api/v1/blocks", through.control);
    for (number, block) in work.iter().enumerate() {
        if number % BY_IPCTL == BY_IPCTL / 2 {
            let verb = if *block { "block" } else { "unblock" };
            bed.ipctl(&[verb, NETWORK]).await;
            continue;
        }
        let request = if *block {
            // Some change the reason of a block that there is.
            let reason = format!("case {}", number % 3);
            client.post(&url).json(&json!({ "target": NETWORK, "reason": reason }))
        } else {
            client.delete(format!("{url}/{NETWORK}"))
        };
        let answer = request.bearer_auth(key).send().await.unwrap();
        assert!([StatusCode::OK, StatusCode::CREATED].contains(&answer.status()), "{answer:?}");
    }
}

/// What the store holds is what every replica does, and all of it was audited.
async fn contradicted(bed: &Bed, before: i64, took: Duration) {
    let changes = bed.db.run(|conn| list_changes::since(conn, 0, 100_000).boxed()).await.unwrap();
    let versions: Vec<i64> = changes.iter().map(|change| change.version).collect();
    let newest = bed.lists_version().await;
    assert_eq!(versions, (1..=newest).collect::<Vec<_>>(), "without a gap");
    let last = changes.last().unwrap();
    assert_eq!(last.network.unwrap().to_string(), NETWORK);
    let is_blocked = last.op == "set";
    let rows = bed.db.run(|conn| blocked_ips::page(conn, None, 100, now()).boxed()).await.unwrap();
    assert_eq!(rows.len(), usize::from(is_blocked), "{rows:?}");

    let audit = bed.db.run(|conn| audit_log::page(conn, None, 100_000).boxed()).await.unwrap();
    let of_network: Vec<_> = audit.iter().filter(|row| row.target == NETWORK).collect();
    let count = |verb| of_network.iter().filter(|row| row.action == verb).count();
    assert_eq!((count("block"), count("unblock")), (2 * EACH, 2 * EACH));
    let verb = if is_blocked { "block" } else { "unblock" };
    assert_eq!(of_network[0].action, verb, "the newest row of the audit");

    let is_right = |status| (status == StatusCode::FORBIDDEN) == is_blocked;
    let (_, late) = eventually(TEN_TIMES_A_SECOND, "each has the last state", async || {
        for replica in &bed.replicas {
            if !is_right(replica.get(INSIDE, "/").await.status()) {
                return None;
            }
        }
        Some(())
    })
    .await;
    // Longer than the time between two polls: nothing older comes after it.
    sleep(Duration::from_millis(1_500)).await;
    for replica in &bed.replicas {
        assert!(is_right(replica.get(INSIDE, "/").await.status()), "it did not stay");
    }
    report(
        Part::Lists,
        format!(
            "two operators block and unblock one network {} times each way at once, through two \
             of {REPLICAS} replicas and `ipctl`",
            2 * EACH
        ),
        "the last committed state everywhere, 400 audit rows, versions without a gap",
        format!(
            "{} changes ({} found it so already) in {took:?}; 200 blocks and 200 unblocks audited; \
             every replica at \"{verb}\" {late:?} after the last",
            newest - before,
            4 * EACH - usize::try_from(newest - before).unwrap(),
        ),
    );
}
