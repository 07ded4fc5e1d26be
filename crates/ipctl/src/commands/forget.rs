//! `ipctl forget`.

use std::time::Duration;

use ipwarden_core::db::Db;
use ipwarden_core::forget::{self, Begun, ForgetError, Found, OnLists, Receipt, State};
use ipwarden_engine::network::Network;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::key::confirmed;
use super::rows::{plain, prose};
use crate::cli::Forget;
use crate::failure::Failure;
use crate::invocation::{Invocation, Opened, actor};
use crate::now;
use crate::output::{Column, Object, Row, Tint, count, time};
use crate::progress;

/// How often it is looked who has confirmed.
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(given: Invocation, args: Forget) -> Result<(), Failure> {
    let opened = given.open().await?.rehearsing(&args.rehearsal);
    match (args.target, args.status) {
        (Some(network), _) => forget(&given, &opened, network, &args).await,
        (None, status) => show(&given, &opened, status.flatten()).await,
    }
}

async fn forget(
    given: &Invocation,
    opened: &Opened,
    network: Network,
    args: &Forget,
) -> Result<(), Failure> {
    let on_lists = args.lists.map_or(OnLists::Refuse, OnLists::from);
    if args.rehearsal.dry_run || !args.yes {
        let found = forget::found(&opened.db, network).await?;
        let entries = found.blocked_ips + found.allowed_ips;
        if on_lists == OnLists::Refuse && entries > 0 {
            return Err(is_listed(network, &count(entries as u64, "entry", "entries")));
        }
        if args.rehearsal.dry_run {
            let found = Rehearsed { network, found };
            return Ok(given.out.one(&found, || format!("{network}: {}", told(&found.found)))?);
        }
        let question = format!("forget {network} for good: {}?", told(&found));
        if !confirmed(&question)? {
            return Err(Failure::other("not confirmed, and nothing was forgotten"));
        }
    }
    let begun = forget::begin(&opened.db, network, on_lists, actor(), given.now).await;
    let Begun { id, version } = begun.map_err(|error| failure(network, error))?;
    opened.announce(Some(version)).await;
    erase(&opened.db, id, network).await?;
    let receipt = confirmed_by_nodes(&opened.db, id, args.wait).await?;
    given.out.one(&Shown(&receipt), || sentences(network, &receipt))?;
    let waiting: Vec<&str> = receipt.in_state(State::Waiting).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    Err(Failure::other(format!(
        "the store holds nothing of it any more, but these have not confirmed yet: {}; they go on trying, \
         and `ipctl forget --status {id}` shows when they have",
        waiting.join(", ")
    )))
}

async fn erase(db: &Db, id: i64, network: Network) -> Result<(), Failure> {
    let bar = progress::of_erased();
    let erased = forget::erase(db, id, network, now(), |records| {
        bar.set_position(records as u64);
    });
    let erased = erased.await;
    bar.finish_and_clear();
    erased.map_err(|error| {
        Failure::other(format!(
            "not everything is forgotten yet: {error}; `ipctl forget {network}` goes on with it"
        ))
    })
}

/// The receipt, as soon as no node has to be waited for, or when there was enough waiting.
async fn confirmed_by_nodes(db: &Db, id: i64, wait: Duration) -> Result<Receipt, Failure> {
    let (began, bar) = (Instant::now(), progress::of_waiting("waiting for the nodes to confirm"));
    loop {
        let receipts = forget::receipts(db, now()).await?;
        let receipt = receipts.into_iter().find(|receipt| receipt.row.id == id);
        let receipt = receipt.ok_or_else(|| is_missing(id))?;
        if receipt.is_complete() || began.elapsed() >= wait {
            bar.finish_and_clear();
            return Ok(receipt);
        }
        sleep(LOOK).await;
    }
}

async fn show(given: &Invocation, opened: &Opened, id: Option<i64>) -> Result<(), Failure> {
    let mut receipts = forget::receipts(&opened.db, given.now).await?;
    if let Some(id) = id {
        receipts.retain(|receipt| receipt.row.id == id);
        if receipts.is_empty() {
            return Err(is_missing(id));
        }
    }
    let shown: Vec<Shown<'_>> = receipts.iter().map(Shown).collect();
    Ok(given.out.rows(&shown, "nothing was forgotten of late")?)
}

fn is_missing(id: i64) -> Failure {
    Failure::other(format!("there is no receipt {id}; `ipctl forget --status` shows all"))
}

fn is_listed(network: Network, what: &str) -> Failure {
    Failure::Refused(format!(
        "{what} of the lists is about {network}, and nothing was forgotten: `--lists keep` leaves it there, \
         `--lists remove` takes it off as well; `ipctl check {network}` shows it"
    ))
}

fn failure(network: Network, error: ForgetError) -> Failure {
    match error {
        ForgetError::TooWide(_) => Failure::Usage(error.to_string()),
        ForgetError::Listed(_) => is_listed(network, &error.to_string()),
        ForgetError::Store(error) => Failure::Store(error),
    }
}

fn told(found: &Found) -> String {
    let findings = (found.suspicious_ips + found.evidence) as u64;
    let entries = (found.blocked_ips + found.allowed_ips) as u64;
    [
        count(found.request_logs.unsigned_abs(), "record", "records"),
        count(findings, "finding", "findings"),
        count(entries, "entry of the lists", "entries of the lists"),
        count(
            found.audit_log as u64,
            "row of the audit log to be redacted",
            "rows of the audit log to be redacted",
        ),
        count(found.bouncers as u64, "bouncer", "bouncers"),
    ]
    .join(", ")
}

fn sentences(network: Network, receipt: &Receipt) -> String {
    let mut lines = vec![format!("forgot {network}: receipt {}", receipt.row.id)];
    let named = |state| receipt.in_state(state).collect::<Vec<_>>().join(", ");
    if receipt.nodes.is_empty() {
        lines.push("no node is running; what one left on its disk goes when it starts".to_owned());
    }
    for (state, words) in [
        (State::Confirmed, "confirmed by"),
        (
            State::Silent,
            "not heard of for a while (what one of them left on its disk goes when it starts)",
        ),
    ] {
        if receipt.in_state(state).next().is_some() {
            lines.push(format!("{words}: {}", named(state)));
        }
    }
    lines.join("\n")
}

#[derive(Serialize)]
struct Rehearsed {
    network: Network,
    #[serde(flatten)]
    found: Found,
}

impl Object for Rehearsed {
    const FIELDS: &'static [&'static str] = &[
        "network",
        "request_logs",
        "suspicious_ips",
        "evidence",
        "blocked_ips",
        "allowed_ips",
        "bouncers",
        "audit_log",
    ];
}

#[derive(Serialize)]
#[serde(transparent)]
struct Shown<'a>(&'a Receipt);

impl Object for Shown<'_> {
    const FIELDS: &'static [&'static str] =
        &["id", "network", "at", "created_by", "erased_at", "settled_at", "nodes"];
}

impl Row for Shown<'_> {
    const COLUMNS: &'static [Column] = &[
        plain("ID"),
        plain("NETWORK"),
        plain("TIME"),
        plain("BY"),
        plain("TABLES"),
        prose("NODES"),
    ];

    fn cells(&self, _now: chrono::DateTime<chrono::Utc>) -> Vec<(String, Tint)> {
        let Shown(Receipt { row, nodes }) = self;
        let network = row.network.map_or("forgotten".to_owned(), |network| network.to_string());
        let tables = match row.erased_at {
            Some(_) => ("done".to_owned(), Tint::Good),
            None => ("unfinished".to_owned(), Tint::Bad),
        };
        let state = |state| match state {
            State::Confirmed => "confirmed",
            State::Waiting => "waiting",
            State::Silent => "silent",
        };
        let lines = nodes.iter().map(|one| format!("{} {}", one.node, state(one.state)));
        let tint = match nodes.iter().any(|one| one.state == State::Waiting) {
            true => Tint::Odd,
            false => Tint::None,
        };
        vec![
            (row.id.to_string(), Tint::None),
            (network, Tint::None),
            (time(row.at), Tint::None),
            (row.created_by.clone(), Tint::None),
            tables,
            (lines.collect::<Vec<_>>().join("\n"), tint),
        ]
    }
}
