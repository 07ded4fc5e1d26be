//! What `stats` tells, against a count of the records one by one.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_core::db::request_logs::NewLogged;
use ipwarden_core::db::scan_runs::ScanRun;
use ipwarden_core::db::{
    leases, partitions, request_hours, request_tops, scan_runs, touched_hours,
};
use ipwarden_core::scan;
use ipwarden_core::stats::{self, By, MOST, Question, Stats, Top, Verdicts};
use ipwarden_engine::network::Network;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::common::Store;
use crate::{at, every_store, log, log_late, request, run, set_clock, terms};

/// Requests of a few clients at odd moments of `[from, to)`.
fn requests(
    runner: &mut TestRunner,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    count: usize,
) -> Vec<NewLogged> {
    let span = (to - from).num_microseconds().unwrap();
    let one = (0..span, 0..7_usize, 0..4_usize, 0..5_usize, 0..3_usize);
    let all = proptest::collection::vec(one, count).new_tree(runner).unwrap().current();
    let row = |(offset, client, path, answer, place): (i64, usize, usize, usize, usize)| {
        let address = [
            "192.0.2.1",
            "192.0.2.2",
            "192.0.3.1",
            "2001:db8::1",
            "2001:db8:0:1::1",
            "2001:db8:1::1",
            "::2",
        ][client];
        let path = ["/", "/login", "/a%20b", "/it's"][path];
        let mut row = request(address, from + TimeDelta::microseconds(offset), path);
        (row.verdict, row.status) = [
            ("allowed", 200),
            ("allowed", 404),
            ("blocked", 403),
            ("throttled", 429),
            ("allowed", 200),
        ][answer];
        row.country = [Some("NL"), Some("SE"), None][place].map(str::to_owned);
        row.asn = [Some(64_500), None, Some(4_200_000_000)][place];
        row
    };
    all.into_iter().map(row).collect()
}

fn count_in(counts: &mut Verdicts, row: &NewLogged) {
    counts.requests += 1;
    match row.verdict {
        "blocked" => counts.blocked += 1,
        "throttled" => counts.throttled += 1,
        _ => counts.allowed += 1,
    }
}

type Counted = BTreeMap<String, Verdicts>;

fn naive(rows: &[&NewLogged], key: impl Fn(&NewLogged) -> Option<String>) -> Counted {
    let mut all = Counted::new();
    for row in rows {
        if let Some(key) = key(row) {
            count_in(all.entry(key).or_default(), row);
        }
    }
    all
}

/// What is told must be just that; where nothing is left away, `at_most` is no more.
fn told(tops: &[Top]) -> Counted {
    assert!(tops.is_sorted_by(|one, next| one.verdicts.requests >= next.verdicts.requests));
    let exact = |top: &Top| {
        assert_eq!(top.at_most, top.verdicts.requests, "{top:?}");
        (top.key.clone(), top.verdicts)
    };
    tops.iter().map(exact).collect()
}

async fn ask(store: &Store, since: DateTime<Utc>, by: By, now: DateTime<Utc>) -> Stats {
    set_clock(store, now);
    let question = Question::new(Some(since), None, Some(by), MOST, now).unwrap();
    stats::of(&store.db, question, now).await.unwrap()
}

/// Compares an answer with all that was logged.
fn check(stats: &Stats, logged: &[NewLogged]) {
    let asked: Vec<&NewLogged> =
        logged.iter().filter(|row| stats.since <= row.at && row.at < stats.until).collect();
    let network = |row: &NewLogged| {
        let prefix = if row.address.is_ipv4() { 24 } else { 48 };
        Network::new(row.address, prefix).unwrap()
    };
    let all = naive(&asked, |_| Some(String::new()));
    assert_eq!(stats.total, all.get("").copied().unwrap_or_default());
    assert_eq!(told(&stats.addresses), naive(&asked, |row| Some(row.address.to_string())));
    assert_eq!(told(&stats.networks), naive(&asked, |row| Some(network(row).to_string())));
    assert_eq!(told(&stats.paths), naive(&asked, |row| Some(row.path.clone())));
    assert_eq!(told(&stats.countries), naive(&asked, |row| row.country.clone()));
    assert_eq!(told(&stats.asns), naive(&asked, |row| row.asn.map(|asn| asn.to_string())));
    assert_eq!(told(&stats.statuses), naive(&asked, |row| Some(row.status.to_string())));
    let step = match stats.by {
        By::Hour => TimeDelta::hours(1),
        By::Day => TimeDelta::days(1),
    };
    let start = |row: &NewLogged| Some(row.at.duration_trunc(step).unwrap().to_rfc3339());
    let by_step = naive(&asked, start);
    let told: Counted = stats
        .times
        .iter()
        .filter(|step| step.verdicts.requests > 0)
        .map(|step| (step.start.to_rfc3339(), step.verdicts))
        .collect();
    assert_eq!(told, by_step);
    assert!(stats.times.is_sorted_by(|one, next| one.start + step == next.start), "no gaps");
    assert!(stats.times.first().is_none_or(|first| first.verdicts.requests > 0));
}

/// Scans and counts what is due, as the job does.
async fn scan_and_count(store: &Store, now: DateTime<Utc>) {
    run(store, &terms(), now).await;
    assert!(scan::count_due(&store.db, "one", || now).await.unwrap());
}

#[tokio::test]
async fn numbers_are_those_of_a_count_by_hand_at_every_stage() {
    every_store(async |store: Store| {
        let mut runner = TestRunner::deterministic();
        let mut logged = requests(&mut runner, at("07:30:00"), at("12:20:00"), 700);
        // On the edges.
        logged.extend(
            ["08:00:00", "09:00:00", "12:00:00"].map(|time| request("192.0.2.1", at(time), "/")),
        );
        log(&store, logged.clone()).await;
        let both_by = async |since, now: DateTime<Utc>, pending, logged: &[NewLogged]| {
            for by in [By::Hour, By::Day] {
                let stats = ask(&store, since, by, now).await;
                assert_eq!(stats.pending_hours, pending, "at {now} since {since}");
                if pending == 0 {
                    check(&stats, logged);
                }
            }
        };

        // Before anything is counted: the hour that goes on and the one before, from the log.
        both_by(at("11:00:00"), at("12:20:00"), 0, &logged).await;
        both_by(at("08:00:00"), at("12:20:00"), 3, &logged).await;

        scan_and_count(&store, at("12:20:00")).await;
        for since in ["07:00:00", "08:00:00", "09:30:00", "12:00:00"] {
            both_by(at(since), at("12:20:00"), 0, &logged).await;
        }

        // The hour is half counted. What comes now is behind that, late or not.
        let mut more = requests(&mut runner, at("12:00:00"), at("12:24:00"), 150);
        more.extend(requests(&mut runner, at("12:24:00"), at("12:25:00"), 50));
        log_late(&store, more.clone(), at("12:25:00")).await;
        logged.extend(more);
        both_by(at("07:00:00"), at("12:25:00"), 0, &logged).await;
        scan_and_count(&store, at("12:27:00")).await;
        both_by(at("07:00:00"), at("12:27:00"), 0, &logged).await;

        // Records of two hours come late.
        let counted_before = logged.clone();
        let mut late = requests(&mut runner, at("08:30:00"), at("09:30:00"), 60);
        log_late(&store, late.clone(), at("12:28:00")).await;
        logged.append(&mut late);
        let stats = ask(&store, at("07:00:00"), By::Hour, at("12:28:00")).await;
        assert_eq!(stats.pending_hours, 2);
        check(&stats, &counted_before);
        scan_and_count(&store, at("12:30:00")).await;
        both_by(at("07:00:00"), at("12:30:00"), 0, &logged).await;
        for _ in 0..2 {
            scan_and_count(&store, at("12:35:00")).await;
        }
        both_by(at("07:00:00"), at("12:35:00"), 0, &logged).await;

        // The hour ended and has not been judged yet.
        let more = requests(&mut runner, at("12:35:00"), at("13:00:04"), 200);
        log_late(&store, more.clone(), at("13:00:04")).await;
        logged.extend(more);
        both_by(at("07:00:00"), at("13:00:05"), 0, &logged).await;
        scan_and_count(&store, at("13:00:10")).await;
        both_by(at("07:00:00"), at("13:00:10"), 0, &logged).await;

        // Nobody scanned for half a day: the answer says what is missing, and is whole afterwards.
        let more = requests(&mut runner, at("13:01:00"), at("23:30:00"), 300);
        log(&store, more.clone()).await;
        logged.extend(more);
        both_by(at("07:00:00"), at("23:30:00"), 9, &logged).await;
        scan_and_count(&store, at("23:30:00")).await;
        both_by(at("07:00:00"), at("23:30:00"), 0, &logged).await;
        // Across midnight, asked by a day that begins in the middle.
        let more = requests(&mut runner, at("23:30:00"), at("23:30:00") + TimeDelta::hours(2), 300);
        log_late(&store, more.clone(), at("23:30:00") + TimeDelta::hours(2)).await;
        logged.extend(more);
        let next_day = at("00:00:00") + TimeDelta::hours(25) + TimeDelta::minutes(30);
        scan_and_count(&store, next_day).await;
        both_by(at("09:17:00"), next_day, 0, &logged).await;
    })
    .await;
}

#[tokio::test]
async fn what_an_hour_leaves_away_is_within_what_is_told() {
    every_store(async |store: Store| {
        let mut logged = Vec::new();
        let mut add = |hour: &str, client: usize, times: usize| {
            let address = format!("10.0.{}.{}", client / 256, client % 256);
            let path = format!("/{client}");
            (0..times).for_each(|_| logged.push(request(&address, at(hour), &path)));
        };
        for client in 0..1_100 {
            add("08:00:00", client, 1 + client % 3);
            add("09:00:00", 1_099 - client, 1 + usize::from(client % 4 == 0));
        }
        add("10:00:00", 5_000, 4);
        log(&store, logged.clone()).await;
        scan_and_count(&store, at("11:00:10")).await;
        let stats = ask(&store, at("08:00:00"), By::Hour, at("11:00:10")).await;
        let all: Vec<&NewLogged> = logged.iter().collect();
        let by_hand = naive(&all, |row| Some(row.address.to_string()));
        assert_eq!(stats.addresses.len(), 1_000);
        let mut inexact = 0;
        for top in &stats.addresses {
            let truth = by_hand[&top.key].requests;
            assert!((top.verdicts.requests..=top.at_most).contains(&truth), "{top:?}: {truth}");
            inexact += i32::from(truth != top.verdicts.requests);
        }
        assert!(inexact > 0, "something was left away");
        assert_eq!(stats.total.requests, logged.len() as i64);
        let networks = naive(&all, |row| Some(Network::new(row.address, 24).unwrap().to_string()));
        assert_eq!(told(&stats.networks), networks, "of these there are few");

        // Nothing is left away of an hour that has less.
        let stats = ask(&store, at("10:00:00"), By::Hour, at("11:00:10")).await;
        assert_eq!(told(&stats.addresses).len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_log_from_before_is_counted_newest_first() {
    every_store(async |store: Store| {
        let mut runner = TestRunner::deterministic();
        let now = at("12:30:00");
        let logged = requests(&mut runner, now - TimeDelta::days(3), now, 2_000);
        log(&store, logged.clone()).await;
        set_clock(&store, now);
        let pending = async || {
            let stats = ask(&store, now - TimeDelta::days(4), By::Day, now).await;
            (stats.pending_hours, stats)
        };
        // A store from before: everything was judged, nothing was counted.
        let judged = store.db.run(move |conn| {
            async move {
                for row in touched_hours::before(conn, now).await? {
                    touched_hours::forget(conn, &row).await?;
                    let (start, end) = (row.hour, row.hour + TimeDelta::hours(1));
                    let run = ScanRun {
                        window_start: start,
                        window_end: end,
                        scheduler: "one".to_owned(),
                        started_at: end,
                        finished_at: end,
                        findings: 0,
                    };
                    scan_runs::put(conn, run).await?;
                }
                Ok(())
            }
            .boxed()
        });
        judged.await.unwrap();
        let (mut before, _) = pending().await;
        assert!(before > 70, "{before}");
        let mut times = 0;
        while before > 0 {
            assert!(scan::count_due(&store.db, "one", || now).await.unwrap());
            check(&ask(&store, now - TimeDelta::hours(20), By::Hour, now).await, &logged);
            let (after, _) = pending().await;
            assert!(after < before);
            (before, times) = (after, times + 1);
        }
        assert!(times > 2, "in {times} runs");
        let (pending, stats) = pending().await;
        assert_eq!(pending, 0);
        check(&stats, &logged);
    })
    .await;
}

#[tokio::test]
async fn one_scheduler_at_a_time_counts() {
    every_store(async |store: Store| {
        let now = at("12:00:00");
        set_clock(&store, now);
        log(&store, vec![request("192.0.2.1", at("11:00:00"), "/")]).await;
        let lease = store.db.transaction(move |conn| {
            leases::acquire(conn, scan::LEASE, "two", TimeDelta::minutes(2), now).boxed()
        });
        lease.await.unwrap().unwrap();
        assert!(!scan::count_due(&store.db, "one", || now).await.unwrap());
        let counted = store
            .db
            .run(move |conn| request_hours::between(conn, DateTime::UNIX_EPOCH, now).boxed());
        assert_eq!(counted.await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn an_address_is_forgotten_and_hours_go_with_the_log() {
    every_store(async |store: Store| {
        let now = at("12:30:00");
        for address in ["192.0.2.1", "2001:db8::1", "192.0.2.2"] {
            let times = ["10:00:00", "11:00:00"];
            log(&store, times.map(|time| request(address, at(time), "/")).to_vec()).await;
        }
        scan_and_count(&store, now).await;
        for (address, others) in
            [("192.0.2.1", vec!["192.0.2.2", "2001:db8::1"]), ("2001:db8::1", vec!["192.0.2.2"])]
        {
            let gone: Network = address.parse().unwrap();
            let forgotten =
                store.db.run(move |conn| request_tops::forget(conn, gone).boxed()).await.unwrap();
            assert_eq!(forgotten, 2, "hours");
            let stats = ask(&store, at("10:00:00"), By::Hour, now).await;
            assert_eq!(told(&stats.addresses).into_keys().collect::<Vec<_>>(), others);
            assert_eq!(stats.total.requests, 6, "numbers stay");
        }

        let from_11 = at("11:00:00");
        let cut = store.db.run(move |conn| request_tops::anonymise(conn, from_11).boxed());
        assert_eq!(cut.await.unwrap(), 1);
        let stats = ask(&store, at("10:00:00"), By::Hour, now).await;
        assert_eq!(stats.addresses[0].verdicts.requests, 1, "of the hour after it");
        assert_eq!(stats.networks[0].verdicts.requests, 4);

        let kept = TimeDelta::days(30);
        let later = now + TimeDelta::days(40);
        set_clock(&store, later);
        // What is still in the log stays, however old.
        assert_eq!(scan::forget_old(&store.db, kept, later).await.unwrap(), 0);
        assert!(partitions::drop_old(&store.db, kept, later).await.unwrap() > 0);
        let hours = scan::forget_old(&store.db, kept, later).await.unwrap();
        assert!(hours >= 2, "{hours}");
        let stats = ask(&store, at("10:00:00"), By::Day, later).await;
        assert_eq!((stats.total.requests, stats.networks.len()), (0, 0), "{stats:?}");
    })
    .await;
}
