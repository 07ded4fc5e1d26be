//! What every list says about an address or a network.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::network::Network;
use serde::Serialize;

use crate::db::entries::Entry;
use crate::db::suspicious_ips::{self, SuspiciousIp};
use crate::db::{Db, DbError, allowed_ips, blocked_ips};

/// The most entries inside a network that are shown.
const INSIDE: i64 = 100;

/// The most findings that are shown.
const FINDINGS: i64 = 10;

/// Every list that speaks about a network, and what comes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// What was asked about.
    pub network: Network,
    /// What becomes of a request from there.
    pub verdict: Standing,
    /// Why.
    pub because: Because,
    /// Entries of the allowlist that hold it, the widest first, then up to a hundred inside it.
    pub allowed: Vec<Entry>,
    /// Blocks, likewise.
    pub blocked: Vec<Entry>,
    /// The entry of the trusted proxies that it touches.
    pub trusted_proxy: Option<Network>,
    /// What the scan found of it, reviewed or not, newest first; at most ten.
    pub suspicious: Vec<SuspiciousIp>,
}

/// What becomes of requests from a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// They are admitted, as far as the lists go.
    Allowed,
    /// They are refused with 403.
    Blocked,
    /// It depends on the address in the network.
    Mixed,
}

impl Standing {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Allowed => "allowed",
            Standing::Blocked => "blocked",
            Standing::Mixed => "mixed",
        }
    }
}

/// Why requests from a network have this standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// It is on the allowlist, and has no quota.
    Allowlisted,
    /// It is on the blocklist, and nothing allows it.
    Blocklisted,
    /// It is a trusted proxy: what cannot be told apart behind it shares the quota `proxy`.
    TrustedProxy,
    /// No list speaks about it: it is admitted within its quota.
    Unlisted,
    /// Lists speak about parts of it.
    PartlyListed,
}

impl Because {
    /// A sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Because::Allowlisted => "on the allowlist: no quota, whatever blocks say",
            Because::Blocklisted => "on the blocklist: every request is refused with 403",
            Because::TrustedProxy => "a trusted proxy: clients behind it are judged by themselves",
            Because::Unlisted => "on no list: admitted within its quota",
            Because::PartlyListed => "lists speak about parts of it",
        }
    }
}

/// Asks every list about `network`, in the order in which the guard asks them.
///
/// # Errors
/// As any statement.
pub async fn check(
    db: &Db,
    network: Network,
    trusted: &[Network],
    now: DateTime<Utc>,
) -> Result<Checked, DbError> {
    let trusted_proxy = trusted.iter().copied().find(|entry| entry.overlaps(&network));
    let (allowed, blocked, suspicious) = db
        .run(move |conn| {
            async move {
                let at = conn.clock(now).await?;
                let mut allowed = allowed_ips::covering(conn, network, at).await?;
                let mut blocked = blocked_ips::covering(conn, network, at).await?;
                if !network.is_address() {
                    let narrower = |entry: &Entry| entry.network != network;
                    let inside = allowed_ips::inside(conn, network, at, INSIDE).await?;
                    allowed.extend(inside.into_iter().filter(narrower));
                    let inside = blocked_ips::inside(conn, network, at, INSIDE).await?;
                    blocked.extend(inside.into_iter().filter(narrower));
                }
                let suspicious = suspicious_ips::about(conn, network, FINDINGS).await?;
                Ok((allowed, blocked, suspicious))
            }
            .boxed()
        })
        .await?;
    let (verdict, because) = judge(&network, &allowed, &blocked, trusted_proxy);
    Ok(Checked { network, verdict, because, allowed, blocked, trusted_proxy, suspicious })
}

fn judge(
    network: &Network,
    allowed: &[Entry],
    blocked: &[Entry],
    trusted_proxy: Option<Network>,
) -> (Standing, Because) {
    let holds = |entries: &[Entry]| entries.iter().any(|entry| entry.network.covers(network));
    if holds(allowed) {
        return (Standing::Allowed, Because::Allowlisted);
    }
    if holds(blocked) && allowed.is_empty() {
        return (Standing::Blocked, Because::Blocklisted);
    }
    if !blocked.is_empty() {
        return (Standing::Mixed, Because::PartlyListed);
    }
    match (trusted_proxy, allowed.is_empty()) {
        (_, false) => (Standing::Allowed, Because::PartlyListed),
        (Some(_), true) => (Standing::Allowed, Because::TrustedProxy),
        (None, true) => (Standing::Allowed, Because::Unlisted),
    }
}
