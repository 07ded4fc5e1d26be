//! A fleet behind a real HAProxy, whose replicas are replaced one by one: nobody notices.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipwarden_testbed::haproxy::{Backend, Haproxy};
use ipwarden_testbed::report::{Part, report, short_or_long};
use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use super::check::{Tally, each_is_logged_once, percentile};
use super::common::{Bed, Launch, PATIENCE, Replica, TEN_TIMES_A_SECOND, eventually};
use super::load::{Load, Outcome, Shot, Who};
use super::{seed, turn};

const REPLICAS: usize = 4;
/// Clients that ask all the time, together a fifth of all requests.
const LIMITED: u32 = 20;
const LIMIT: usize = 5;
const PERIOD: Duration = Duration::from_secs(60);

/// What a next release may do while this one runs: columns, with a default and without, in the table
/// that is written all the time and in one that is read for every block; a table; an index.
const NEXT: &str = "
    set lock_timeout = '5s';
    alter table request_logs add column next_release text;
    alter table request_logs add column next_number integer not null default 7;
    alter table blocked_ips add column next_release text;
    create table next_release (id bigint primary key, text text not null);
    create index next_release_text on next_release (text);
    insert into __diesel_schema_migrations (version) values ('99991231000001');
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_replaced_behind_haproxy_and_no_request_fails() {
    let _turn = turn().await;
    let seed = seed();
    let per_second = short_or_long(200, 500);
    let rounds = short_or_long(1, 8);
    let mut fleet = Fleet::start(per_second, seed).await;
    for _ in 0..rounds {
        fleet.replace_all().await;
    }
    let outcome = fleet.end().await;
    report(
        Part::Stops,
        format!(
            "{rounds} rolling restart(s) of {REPLICAS} replicas behind HAProxy at {per_second} \
             requests a second"
        ),
        "no request fails, none is repeated, no record is lost, quotas are exact throughout",
        outcome,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_of_the_next_version_comes_first_and_then_its_replicas() {
    let _turn = turn().await;
    let per_second = short_or_long(200, 500);
    let mut fleet = Fleet::start(per_second, seed()).await;
    // The release that runs finds nothing to do.
    fleet.bed.ipctl(&["migrate"]).await;
    fleet.bed.database().execute(NEXT).unwrap();
    sleep(Duration::from_secs(1)).await;
    fleet.bed.ipctl(&["migrate"]).await;
    fleet.replace_all().await;
    let outcome = fleet.end().await;
    report(
        Part::Stops,
        format!(
            "a migration of the next version, and then a rolling restart of {REPLICAS} replicas, at \
             {per_second} requests a second"
        ),
        "no request fails, none is repeated, no record is lost, quotas are exact throughout",
        outcome,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_does_not_start_on_the_schema_of_the_version_before() {
    let _turn = turn().await;
    let bed = Bed::fleet(1, |one| one.behind_proxies()).await;
    // As if the last migration of this release were yet to come.
    let before = "delete from __diesel_schema_migrations where version = \
        (select max(version) from __diesel_schema_migrations)";
    bed.database().execute(before).unwrap();
    let launch = Launch::default().with("DATABASE_URL", bed.database().url());
    let (status, said) = launch.fail().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("ipctl migrate"), "{said}");
    // The one that runs goes on: it compared when it started.
    assert_eq!(bed.first().get("198.18.0.1", "/").await.status(), StatusCode::OK);
    report(
        Part::Stops,
        "a replica is started on a schema that lacks a migration of its own",
        "it ends at once and says what to do; those that run are not touched",
        "exit 1, \"ipctl migrate\"",
    );
}

/// Replicas behind HAProxy, and traffic through it.
struct Fleet {
    bed: Bed,
    proxy: Arc<Haproxy>,
    load: Load,
    /// Decisions made without Redis by replicas that are gone: each may be one admission more.
    strays: i64,
    /// How long each took from SIGTERM to its end.
    ends: Vec<Duration>,
}

impl Fleet {
    async fn start(per_second: u32, seed: u64) -> Fleet {
        let bed = Bed::fleet(REPLICAS, |one| one.behind_proxies().on_lasting_ports()).await;
        let backend = |replica: &Replica| Backend {
            public: replica.public_address(),
            control: replica.control_address(),
        };
        let backends: Vec<_> = bed.replicas.iter().map(backend).collect();
        let started = tokio::task::spawn_blocking(move || Haproxy::start(&backends));
        let proxy = Arc::new(started.await.unwrap().unwrap());
        let load = Load::start(&[proxy.address()], per_second, 32, seed, some_limited());
        let fleet = Fleet { bed, proxy, load, strays: 0, ends: Vec::new() };
        for number in 0..REPLICAS {
            fleet.is_up(number).await;
        }
        sleep(Duration::from_secs(1)).await;
        fleet
    }

    /// Ends and starts each in its turn, as whoever deploys does.
    async fn replace_all(&mut self) {
        for number in 0..REPLICAS {
            let replica = &mut self.bed.replicas[number];
            replica.terminate();
            let asked = Instant::now();
            let mut strays = 0;
            let (status, _) = eventually(PATIENCE, "it ends", async || {
                strays = fallbacks(replica).await.unwrap_or(strays);
                replica.has_ended()
            })
            .await;
            assert_eq!(status.code(), Some(0), "{}", replica.said());
            self.ends.push(asked.elapsed());
            self.strays += strays;
            replica.start_again().await;
            self.is_up(number).await;
        }
    }

    async fn is_up(&self, number: usize) {
        eventually(PATIENCE, "HAProxy sends it requests", async || {
            let proxy = self.proxy.clone();
            let counted = tokio::task::spawn_blocking(move || proxy.counted()).await.unwrap();
            counted.unwrap()[number].up.then_some(())
        })
        .await;
    }

    /// Ends the traffic and looks at all that came of it.
    async fn end(self) -> String {
        let Fleet { bed, proxy, load, mut strays, ends } = self;
        sleep(Duration::from_secs(1)).await;
        let shots = load.stop().await;
        for replica in &bed.replicas {
            strays += fallbacks(replica).await.unwrap();
        }
        let tally = Tally::of(&shots);
        tally.assert_none_failed();
        let counted = tokio::task::spawn_blocking(move || proxy.counted()).await.unwrap().unwrap();
        let (broken, retried) = counted
            .iter()
            .fold((0, 0), |(broken, retried), one| (broken + one.broken, retried + one.retried));
        assert_eq!((broken, retried), (0, 0), "HAProxy had to help: {counted:?}");

        let (clients, beyond) = beyond_the_limit(&shots);
        assert_eq!(clients, LIMITED as usize, "each of them was admitted");
        assert!(beyond <= strays.try_into().unwrap(), "{beyond} too many, {strays} fallbacks");
        let (late, unanswered) =
            each_is_logged_once(&bed.db, &tally.references, TEN_TIMES_A_SECOND).await;
        assert_eq!(unanswered, 0, "records of nobody's requests");
        let longest = ends.iter().max().unwrap();
        assert!(*longest <= Duration::from_secs(50), "{ends:?}");
        format!(
            "{} requests, 0 failed, 0 repeated by HAProxy, p99 {:?}; {LIMITED} clients that asked \
             all the time: {beyond} admissions beyond {LIMIT} in any {} s ({strays} decisions \
             without Redis); every record in the log once after {late:?}; longest end of a replica \
             {longest:?}",
            shots.len(),
            percentile(&shots, 99),
            PERIOD.as_secs(),
        )
    }
}

async fn fallbacks(replica: &Replica) -> Option<i64> {
    replica.last_metric("ipwarden_limiter_fallbacks_total").await
}

/// A few clients far beyond their quota, among many that are within it.
fn some_limited() -> Who {
    let (few, many) = (Ipv4Addr::new(198, 51, 100, 0), Ipv4Addr::new(198, 18, 0, 0));
    Arc::new(move |rng| match rng.u32(0..5) {
        0 => Ipv4Addr::from_bits(few.to_bits() | rng.u32(0..LIMITED)),
        _ => Ipv4Addr::from_bits(many.to_bits() | rng.u32(0..1 << 17)),
    })
}

/// How many clients were admitted at all among those that ask all the time, and how many admissions
/// of anybody's were certainly too many: one that was answered less than a period after the request
/// was sent that is as many admissions before as the limit has.
fn beyond_the_limit(shots: &[Shot]) -> (usize, usize) {
    let mut admitted: HashMap<Ipv4Addr, Vec<&Shot>> = HashMap::new();
    for shot in shots {
        if matches!(shot.outcome, Outcome::Answered { status: 200, .. }) {
            admitted.entry(shot.client).or_default().push(shot);
        }
    }
    let beyond = admitted.values().map(|admitted| {
        let pairs = admitted.iter().zip(admitted.iter().skip(LIMIT));
        pairs.filter(|(first, next)| next.sent + next.took < first.sent + PERIOD).count()
    });
    let limited =
        admitted.keys().filter(|client| client.octets()[0] == 198 && client.octets()[1] == 51);
    (limited.count(), beyond.sum())
}
