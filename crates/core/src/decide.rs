//! Decides what becomes of findings: shown to a person, or, where the configuration says so, blocked.
//!
//! Pure. Promises that nothing is blocked without a person unless `scan.auto_block` is on, and then
//! only for volume: who logs in asks for a sensitive path twice. No block is made that the guard
//! rails would refuse a person without `--force`. It writes nothing; [`scan`](crate::scan) does.

use chrono::{DateTime, TimeDelta, Utc};
use ipwarden_engine::target::{self, Rails};

use crate::detect::{Finding, Rule};

/// How long a block that nobody asked for lasts, from the last request that counted.
pub const AUTO_BLOCK: TimeDelta = TimeDelta::hours(24);

/// A finding and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// As it was found.
    pub finding: Finding,
    /// What becomes of it.
    pub decision: Decision,
    /// Why a person should think twice before blocking it: it is allowed, or the machine's own.
    pub note: Option<String>,
}

/// What becomes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A person reviews it.
    Review,
    /// It is blocked at once, until then.
    Block {
        /// By the clock that the records are dated by.
        until: DateTime<Utc>,
    },
}

/// Decides about each finding, in their order.
pub fn decide(
    findings: Vec<Finding>,
    auto_block: bool,
    rails: &Rails<'_>,
    now: DateTime<Utc>,
) -> Vec<Decided> {
    findings
        .into_iter()
        .map(|finding| {
            let refused = target::check(&finding.network, rails).err();
            let decision = if auto_block && refused.is_none() {
                without_a_person(&finding, now)
            } else {
                Decision::Review
            };
            let note = refused.map(|refused| refused.reason().to_string());
            Decided { finding, decision, note }
        })
        .collect()
}

fn without_a_person(finding: &Finding, now: DateTime<Utc>) -> Decision {
    let until = finding.last_seen + AUTO_BLOCK;
    // An old log that is imported blocks nobody today.
    let is_over = until <= now;
    match finding.rule {
        Rule::Volume if !is_over => Decision::Block { until },
        Rule::Volume | Rule::SensitivePath => Decision::Review,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipwarden_engine::network::Network;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a date")
    }

    fn finding(address: &str, rule: Rule, hits: u64) -> Finding {
        Finding {
            network: network(address),
            rule,
            first_seen: at("2026-03-01T10:00:00Z"),
            last_seen: at("2026-03-01T10:30:00Z"),
            hits,
            evidence: Vec::new(),
        }
    }

    fn decision(finding: Finding, auto_block: bool, now: &str) -> Decided {
        let (trusted, allowed) = ([network("10.0.0.0/8")], [network("192.0.2.0/24")]);
        let own = ["198.51.100.1".parse().expect("an address")];
        let rails = Rails { trusted: &trusted, allowed: &allowed, own: &own, operator: None };
        decide(vec![finding], auto_block, &rails, at(now)).remove(0)
    }

    const NOW: &str = "2026-03-01T11:00:10Z";

    #[test]
    fn nothing_is_blocked_without_a_person_by_default() {
        let decided = decision(finding("203.0.113.9", Rule::Volume, 100_000), false, NOW);
        assert_eq!((decided.decision, decided.note), (Decision::Review, None));
    }

    #[test]
    fn with_auto_block_it_is_blocked_for_a_day() {
        let decided = decision(finding("203.0.113.9", Rule::Volume, 101), true, NOW);
        let until = at("2026-03-02T10:30:00Z");
        assert_eq!(decided.decision, Decision::Block { until });
    }

    #[test]
    fn a_sensitive_path_is_never_blocked_without_a_person() {
        for hits in [1, 2, 5_000] {
            let decided = decision(finding("203.0.113.9", Rule::SensitivePath, hits), true, NOW);
            assert_eq!(decided.decision, Decision::Review);
        }
    }

    #[test]
    fn who_must_not_be_blocked_is_shown_and_says_why() {
        for (address, note) in [
            (
                "192.0.2.7",
                "192.0.2.7 touches 192.0.2.0/24 on the allowlist, which beats every block",
            ),
            ("198.51.100.1", "198.51.100.1 holds 198.51.100.1, an address of this machine"),
            ("127.0.0.1", "127.0.0.1 touches 127.0.0.0/8, the loopback of this machine"),
        ] {
            let decided = decision(finding(address, Rule::Volume, 100_000), true, NOW);
            assert_eq!(decided.decision, Decision::Review, "{address}");
            assert_eq!(decided.note.as_deref(), Some(note));
        }
    }

    #[test]
    fn what_is_long_past_is_not_blocked_today() {
        let old = finding("203.0.113.9", Rule::Volume, 100_000);
        assert_eq!(decision(old, true, "2026-03-02T10:30:00Z").decision, Decision::Review);
    }
}
