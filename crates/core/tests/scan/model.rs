//! The volume rule against its own words, on requests that nobody thought of.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_core::db::request_logs::NewLogged;
use ipwarden_core::db::traffic;
use ipwarden_core::detect::{Rule, Rules, Window, detect};
use ipwarden_engine::network::Network;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::common::Store;
use crate::{at, every_store, log, request};

/// What the rule says, word for word, in quadratic time.
fn naive(requests: &[NewLogged], window: Window, rules: &Rules) -> Vec<(Network, u64)> {
    let mut networks: Vec<Network> =
        requests.iter().map(|row| Network::of_client(row.address, 64)).collect();
    networks.sort();
    networks.dedup();
    networks
        .into_iter()
        .filter_map(|network| {
            let times: Vec<DateTime<Utc>> = requests
                .iter()
                .filter(|row| network.contains(row.address) && row.verdict != "blocked")
                .map(|row| row.at)
                .collect();
            let most = times
                .iter()
                .filter(|last| window.start() <= **last && **last < window.end())
                .map(|last| {
                    times.iter().filter(|at| *at <= last && *last - **at < rules.span).count()
                })
                .max()?;
            (most > rules.max_requests as usize).then_some((network, most as u64))
        })
        .collect()
}

#[tokio::test]
async fn volume_is_what_the_rule_says_word_for_word() {
    every_store(async |store: Store| {
        let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
        // Minutes and microseconds apart, so that ties and exact hours are frequent.
        let one = (0..addresses.len(), -130..70_i64, -1..=1_i64, proptest::bool::weighted(0.1));
        let many = (proptest::collection::vec(one, 0..120), 1..6_u32, 1..130_i64);
        let mut runner = TestRunner::deterministic();
        let mut found = 0;
        for case in 0..40 {
            let (requests, max_requests, span) = many.new_tree(&mut runner).unwrap().current();
            let rules = Rules { max_requests, span: TimeDelta::minutes(span) };
            // Each case has a week of its own.
            let start = at("10:00:00") + TimeDelta::days(7 * case);
            let requests: Vec<NewLogged> = requests
                .into_iter()
                .map(|(address, minutes, microseconds, blocked)| {
                    let offset =
                        TimeDelta::minutes(minutes) + TimeDelta::microseconds(microseconds);
                    let mut row = request(addresses[address], start + offset, "/");
                    row.verdict = if blocked { "blocked" } else { "allowed" };
                    row
                })
                .collect();
            log(&store, requests.clone()).await;
            let window = Window::of(start);
            let traffic = store
                .db
                .run(move |conn| {
                    async move { traffic::of_window(conn, window, &rules, &[]).await }.boxed()
                })
                .await
                .unwrap();
            let findings: Vec<(Network, u64)> = detect(traffic, &rules, &[])
                .into_iter()
                .filter(|finding| finding.rule == Rule::Volume)
                .map(|finding| (finding.network, finding.hits))
                .collect();
            assert_eq!(findings, naive(&requests, window, &rules), "case {case}, {rules:?}");
            found += findings.len();
        }
        assert!(found > 40, "the cases find something: {found}");
    })
    .await;
}
