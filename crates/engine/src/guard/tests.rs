use std::net::IpAddr;

use super::*;
use crate::blocklist::ListEntry;
use crate::quota::Policy;
use crate::rate_limit::LocalOptions;
use crate::spool::SpoolOptions;

struct Bed {
    guard: Arc<Guard>,
    worker: Worker,
    _dir: tempfile::TempDir,
}

fn bed(policies: Vec<Policy>) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let parts = Parts {
        resolver: ClientIpResolver::new("X-Forwarded-For", &trusted, false).unwrap(),
        policies: Policies::new(policies).unwrap(),
        limiter: Limiter::local(LocalOptions::default()),
        sensitive_paths: SensitivePaths::new(&["/admin".to_owned()]),
        spool: Spool::open(dir.path(), SpoolOptions::default()).unwrap(),
        ipv6_prefix: 64,
    };
    let guard = Guard::new(parts, at(0));
    Bed { worker: guard.worker(), guard, _dir: dir }
}

fn at(seconds: u64) -> Moment {
    Moment { wall: 1_790_000_000_000_000, steady: seconds * 1_000_000 }
}

fn head(peer: &str) -> RequestHead<'static> {
    let peer: IpAddr = peer.parse().unwrap();
    RequestHead { peer, forwarded: &[], method: "GET", path: "/", identity: None }
}

impl Bed {
    fn lists(&self, version: i64, blocked: &[(&str, Option<i64>)], allowed: &[&str]) {
        let entry = |network: &str, ends| ListEntry {
            network: network.parse().unwrap(),
            ends,
            by_scan: false,
        };
        self.guard.set_lists(Lists::build(
            version,
            blocked.iter().map(|(network, ends)| entry(network, *ends)),
            allowed.iter().map(|network| entry(network, None)),
        ));
    }

    async fn count(&self, request: &RequestHead<'_>, times: usize, now: Moment) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..times {
            let admission = self.worker.admit(request, now).await;
            self.worker.record(self.worker.draft(&admission, request, None), 200);
            let slot = match admission.verdict {
                Verdict::Allowed => 0,
                Verdict::Blocked(_) => 1,
                Verdict::Throttled => 2,
            };
            counts[slot] += 1;
        }
        counts
    }
}

#[tokio::test]
async fn allowed_beats_blocked_beats_throttled() {
    let bed = bed(vec![]);
    let client = head("192.0.2.1");
    assert_eq!(bed.count(&client, 7, at(0)).await, [5, 0, 2]);
    bed.lists(1, &[("192.0.2.0/24", None)], &[]);
    assert_eq!(bed.count(&client, 7, at(0)).await, [0, 7, 0]);
    bed.lists(2, &[("192.0.2.0/24", None)], &["192.0.2.1"]);
    assert_eq!(bed.count(&client, 20, at(0)).await, [20, 0, 0], "an allowed client has no quota");
    let admission = bed.worker.admit(&client, at(0)).await;
    assert_eq!(admission.quota, None);
    let counts = bed.guard.counts();
    assert_eq!((counts.allowed, counts.blocked, counts.throttled), (25, 7, 2));
}

#[tokio::test]
async fn a_blocked_client_takes_nothing_from_its_quota() {
    let bed = bed(vec![]);
    bed.lists(1, &[("192.0.2.1", None)], &[]);
    assert_eq!(bed.count(&head("192.0.2.1"), 100, at(0)).await, [0, 100, 0]);
    assert_eq!(bed.guard.limiter().state().keys, 0);
    bed.lists(2, &[], &[]);
    assert_eq!(bed.count(&head("192.0.2.1"), 6, at(0)).await, [5, 0, 1]);
}

#[tokio::test]
async fn an_identity_has_a_quota_of_its_own_and_takes_none_of_its_address() {
    let bed = bed(vec![]);
    let (ada, bob) = (Identity::new("ada"), Identity::new("bob"));
    let mut admitted = [0; 2];
    for round in 0..11 {
        for (who, identity) in [&ada, &bob].into_iter().enumerate() {
            // The user is the key, not the address: three of them, and one shared by both.
            let peer = ["192.0.2.1", "192.0.2.2", "192.0.2.3"][round % 3];
            let request = RequestHead { identity: Some(identity), ..head(peer) };
            admitted[who] += bed.count(&request, 1, at(0)).await[0];
        }
    }
    assert_eq!(admitted, [10, 10]);
    assert_eq!(bed.count(&head("192.0.2.1"), 6, at(0)).await, [5, 0, 1]);
}

#[tokio::test]
async fn ipv6_clients_are_counted_by_their_64() {
    let bed = bed(vec![]);
    let mut admitted = 0;
    for host in 1..=1_000 {
        let request = head(&format!("2001:db8:0:1::{host:x}"));
        admitted += bed.count(&request, 1, at(0)).await[0];
    }
    assert_eq!(admitted, 5);
    assert_eq!(bed.count(&head("2001:db8:0:2::1"), 6, at(0)).await, [5, 0, 1]);
    assert_eq!(bed.count(&head("2001:db8:0:3::1"), 6, at(0)).await, [5, 0, 1]);
}

#[tokio::test]
async fn a_proxy_itself_and_a_degraded_answer_fall_under_the_policy_proxy() {
    let bed = bed(vec![]);
    let probe = head("10.0.0.1");
    let admission = bed.worker.admit(&probe, at(0)).await;
    assert_eq!(admission.quota.unwrap().policy, "proxy");
    let degraded = RequestHead { forwarded: &[b"junk"], ..probe };
    assert_eq!(bed.count(&degraded, 600, at(0)).await, [599, 0, 1]);
    let counts = bed.guard.counts();
    assert_eq!((counts.of_proxies, counts.unresolved), (1, 600));
    let client = RequestHead { forwarded: &[b"192.0.2.1"], ..probe };
    assert_eq!(bed.count(&client, 6, at(0)).await, [5, 0, 1]);
}

#[tokio::test]
async fn a_dry_run_serves_and_counts_what_it_would_have_refused() {
    let dry = Policy {
        name: "all".to_owned(),
        paths: vec![],
        methods: vec![],
        anonymous: "5/1m".parse().unwrap(),
        authenticated: "5/1m".parse().unwrap(),
        dry_run: true,
    };
    let bed = bed(vec![dry]);
    assert_eq!(bed.count(&head("192.0.2.1"), 20, at(0)).await, [20, 0, 0]);
    assert_eq!(bed.guard.counts().would_limit, 15);
}

#[tokio::test]
async fn a_block_ends_by_the_clock_of_the_store() {
    let bed = bed(vec![]);
    // The store is an hour ahead of this machine.
    let store = at(0).wall + 3_600_000_000;
    bed.guard.set_store_clock(store, at(0));
    bed.lists(1, &[("192.0.2.1", Some(store + 10_000_000))], &[]);
    assert_eq!(bed.count(&head("192.0.2.1"), 1, at(9)).await, [0, 1, 0]);
    assert_eq!(bed.count(&head("192.0.2.1"), 1, at(10)).await, [1, 0, 0]);
    // A step of the wall clock changes nothing.
    let stepped = Moment { wall: 0, ..at(9) };
    assert_eq!(bed.count(&head("192.0.2.1"), 1, stepped).await, [0, 1, 0]);
}

#[tokio::test]
async fn what_was_answered_is_in_the_spool() {
    let bed = bed(vec![]);
    let head = RequestHead { path: "/x/../admin?token=secret", ..head("192.0.2.1") };
    let admission = bed.worker.admit(&head, at(0)).await;
    let draft = bed.worker.draft(&admission, &head, Some(b"curl\x00"));
    assert_eq!(bed.guard.counts().allowed, 0);
    bed.worker.record(draft, 404);
    assert_eq!(bed.guard.counts().allowed, 1);
    let mut records = Vec::new();
    for segment in bed.guard.spool().segments() {
        bed.guard.spool().read(segment.id, 0, 10, &mut records).unwrap();
    }
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.path.as_str(), record.status, record.sensitive), ("/x/../admin", 404, true));
    assert_eq!(record.reference, admission.reference);
    assert_eq!(record.at, at(0).wall);
}

#[test]
fn the_readme_shows_the_decision_as_it_is() {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let readme = include_str!("../../../../README.md");
    let (_, shown) = readme.split_once("```rust\n").unwrap();
    let shown = lines(shown.split_once("```").unwrap().0);
    let source = lines(include_str!("../guard.rs"));
    assert!(shown.len() > 5 && source.windows(shown.len()).any(|some| some == shown), "{shown:?}");
}
