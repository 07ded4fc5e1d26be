//! The hourly scan over a log of 30 days.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use chrono::{Days, TimeDelta};
use ipwarden_core::db::{Db, partitions};
use ipwarden_core::detect::Window;
use ipwarden_core::scan::{Outcome, Terms, run_between};
use ipwarden_engine::clock::Moment;

use super::process::sql;
use super::store::now;
use crate::document::Findings;
use crate::{contestants, cores};

/// Records of the judged hour, and of the one before.
const OF_AN_HOUR: u64 = 10_000_000;
/// Records of each other day.
const OF_A_DAY: u64 = 100_000;
const DAYS: u64 = 30;

pub(super) async fn measure(findings: &mut Findings) -> anyhow::Result<()> {
    // Nobody else is at work: this PostgreSQL has both cores.
    let _both = cores::both()?;
    let postgres = contestants::postgres()?;
    let database = postgres.database()?;
    let db = Db::postgres(database.url(), 2)?;
    db.migrate().await?;
    let judged = Window::last_ended(now());
    let today = judged.start().date_naive();
    let days: BTreeSet<_> =
        (0..DAYS).filter_map(|back| today.checked_sub_days(Days::new(back))).collect();
    let yesterday = (judged.start() - TimeDelta::hours(1)).date_naive();
    partitions::ensure(&db, &days.iter().copied().chain([yesterday]).collect()).await?;

    let earlier = days.iter().filter(|day| **day < yesterday);
    let mut statements: Vec<String> =
        earlier.map(|day| rows(OF_A_DAY, &format!("{day}"), 86_400)).collect();
    for hour in [judged.start() - TimeDelta::hours(1), judged.start()] {
        statements.push(rows(OF_AN_HOUR, &hour.to_rfc3339(), 3_600));
    }
    statements.push("vacuum analyze request_logs".to_owned());
    sql(database.url(), &statements.iter().map(String::as_str).collect::<Vec<_>>())?;

    let began = Moment::now().steady;
    let terms = Arc::new(Terms::default());
    let outcome = run_between(&db, &terms, (judged.start(), judged.end()), now).await?;
    let took = (Moment::now().steady - began) as f64 / 1e6;
    let Outcome::Done(windows) = outcome else { bail!("somebody else scans") };
    let window = windows.first().context("no window was judged")?;
    let what = format!(
        "scan of an hour of 10 million records among 30 days, both rules, {} findings",
        window.findings
    );
    findings.note("scan", took, what, "s");
    Ok(())
}

/// So many records at even distances, from a million clients; a few of them ask more than they should,
/// and one request in 100,000 is for a sensitive path.
fn rows(count: u64, from: &str, seconds: u64) -> String {
    format!(
        "insert into request_logs (at, address, method, path, status, verdict, sensitive, node, recorded_at)
         select timestamptz '{from}' + number * interval '{seconds} s' / {count},
             inet '20.0.0.0' + case when number % 1000 = 0 then number / 1000 % 20
                 else number::bigint * 7919 % 1000000 end,
             'GET', '/articles/' || number % 1000, 200, 'allowed', number % 100000 = 77, 'bench',
             timestamptz '{from}' + interval '{seconds} s'
         from generate_series(0, {count} - 1) as number"
    )
}
