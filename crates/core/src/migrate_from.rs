//! Moving in: takes over what the programs that stood here before remember.
//!
//! Promises: the other program's files are only read; what cannot be taken is counted with its reason;
//! taking it over twice adds nothing. Blocks come under an origin of their own (`list:django`,
//! `list:fail2ban`, `list:crowdsec`), so that they can be told apart, and ended, as what they are.

pub mod crowdsec;
pub mod django;
pub mod fail2ban;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::Network;
use serde_json::json;

use crate::db::suspicious_ips::{self, NewSuspiciousIp};
use crate::db::{Db, DbError, audit_log};
use crate::lists::{Actor, Item};

/// Blocks of another program, and what of them cannot be taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocks {
    /// To be blocked here.
    pub items: Vec<Item>,
    /// How many cannot, by the reason.
    pub left_out: LeftOut,
}

/// Why something was not taken, and how often.
pub type LeftOut = BTreeMap<String, usize>;

impl Blocks {
    fn leave_out(&mut self, why: impl Into<String>) {
        *self.left_out.entry(why.into()).or_default() += 1;
    }

    fn take(&mut self, network: &str, reason: Option<String>, ends: Option<DateTime<Utc>>) {
        match Network::parse(network.trim()) {
            Ok(target) => self.items.push(Item { target, reason, ends }),
            Err(error) => self.leave_out(error.to_string()),
        }
    }
}

/// Puts findings up for review, but none of an address and rule that there is one of already, whatever
/// became of that. Returns how many were put up, and how many there were.
///
/// # Errors
/// As any statement.
pub async fn put_findings(
    db: &Db,
    findings: Vec<NewSuspiciousIp>,
    actor: &Actor,
    now: DateTime<Utc>,
) -> Result<(usize, usize), DbError> {
    if findings.is_empty() {
        return Ok((0, 0));
    }
    let by = actor.name.clone();
    db.transaction(move |conn| {
        async move {
            let at = conn.clock(now).await?;
            let networks: Vec<Network> = findings.iter().map(|finding| finding.address).collect();
            let there = suspicious_ips::of(conn, &networks).await?;
            let is_known = |new: &NewSuspiciousIp| {
                there.iter().any(|row| (row.address, row.rule) == (new.address, new.rule))
            };
            let (known, new): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_known);
            let (taken, known) = (new.len(), known.len());
            suspicious_ips::insert(conn, new).await?;
            let details = json!({ "taken": taken, "known": known });
            audit_log::insert(conn, at, &by, "import", "suspicious", details).await?;
            Ok((taken, known))
        }
        .boxed()
    })
    .await
}

/// A time as databases write it, which is UTC where it does not say otherwise.
fn instant(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|at| at.and_utc())
}
