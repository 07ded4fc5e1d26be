//! Judges the traffic of one window: who asked too often, and who tried sensitive paths.
//!
//! Pure: what the store counted goes in, findings come out. Knows no clock and no database, and
//! blocks nobody; what becomes of a finding is [`decide`](crate::decide)'s.
//!
//! A volume finding means exactly this: some `max_requests + 1` counted requests of one address
//! (IPv6: of its /64) lie less than the rule's span apart, first to last, and the last of them
//! falls in the window. Records with the verdict `blocked` were never counted.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use ipwarden_engine::network::Network;
use serde::{Deserialize, Serialize};

/// The length of every window.
pub const WINDOW: TimeDelta = TimeDelta::hours(1);

/// The most requests that stand as evidence in one finding.
pub const SAMPLE_SIZE: usize = 5;

/// One hour, UTC, half-open: its start belongs to it, its end to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    start: DateTime<Utc>,
}

impl Window {
    /// The window that an instant falls in.
    pub fn of(at: DateTime<Utc>) -> Window {
        let hour = at.timestamp().div_euclid(3_600) * 3_600;
        // Only the very first hour that chrono knows is not whole.
        Window { start: DateTime::from_timestamp(hour, 0).unwrap_or(at) }
    }

    /// Its first instant, a whole hour.
    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }

    /// The first instant that is no longer in it.
    pub fn end(&self) -> DateTime<Utc> {
        self.start + WINDOW
    }

    /// The window after it.
    pub fn next(&self) -> Window {
        Window { start: self.end() }
    }

    /// The last window that had ended at `now`.
    pub fn last_ended(now: DateTime<Utc>) -> Window {
        Window { start: Window::of(now).start - WINDOW }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start.format("%Y-%m-%dT%H:00Z"))
    }
}

/// What makes an address suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Too many requests within the span.
    Volume,
    /// A sensitive path.
    SensitivePath,
}

impl Rule {
    /// The word that stands in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Volume => "volume",
            Rule::SensitivePath => "sensitive_path",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(word: &str) -> Result<Rule, UnknownRule> {
        [Rule::Volume, Rule::SensitivePath]
            .into_iter()
            .find(|rule| rule.as_str() == word)
            .ok_or_else(|| UnknownRule(word.to_owned()))
    }
}

/// A word that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rule: it is one of volume, sensitive_path")]
pub struct UnknownRule(pub String);

/// The numbers of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// This many requests within the span are fine, one more is not.
    pub max_requests: u32,
    /// Requests count together that are less than this apart, first to last.
    pub span: TimeDelta,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { max_requests: 100, span: TimeDelta::hours(1) }
    }
}

/// A request that stands as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// When it arrived.
    pub at: DateTime<Utc>,
    /// Who sent it; within the /64 of an IPv6 volume finding the addresses differ.
    pub address: std::net::IpAddr,
    /// Its method.
    pub method: String,
    /// Its path, without query.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// What the guard said.
    pub verdict: String,
    /// Where it came from, if that is known.
    pub country: Option<String>,
    /// Where it came from, if that is known.
    pub city: Option<String>,
}

/// Why a row of `suspicious_ips` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The newest requests that counted, at most [`SAMPLE_SIZE`], newest first.
    pub requests: Vec<Sampled>,
    /// Why a person should think twice before blocking the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the store counted of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// An address, or the /64 of IPv6 requests that are counted together.
    pub network: Network,
    /// How many requests count.
    pub requests: u64,
    /// The first of them.
    pub first: DateTime<Utc>,
    /// The last of them.
    pub last: DateTime<Utc>,
    /// The newest of them, at most [`SAMPLE_SIZE`], newest first.
    pub sample: Vec<Sampled>,
}

/// What the store counted for one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By network: the largest count within one span that ends in the window, with the first and
    /// the last request of all such spans that hold more than the rule admits.
    pub volume: Vec<Counted>,
    /// By address: the requests for sensitive paths within the window.
    pub sensitive: Vec<Counted>,
}

/// An address that came under suspicion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// An exact address, or the /64 of an IPv6 volume finding.
    pub network: Network,
    /// Which rule it broke.
    pub rule: Rule,
    /// The first request that counted.
    pub first_seen: DateTime<Utc>,
    /// The last request that counted.
    pub last_seen: DateTime<Utc>,
    /// For volume the largest count within one span, for sensitive paths the matches.
    pub hits: u64,
    /// The newest requests, at most [`SAMPLE_SIZE`].
    pub evidence: Vec<Sampled>,
}

/// Finds who broke a rule, in the order of networks.
///
/// # Security
/// A trusted proxy is never found: it speaks for many, and an answer that could not be resolved
/// any further carries its address.
pub fn detect(traffic: Traffic, rules: &Rules, trusted: &[Network]) -> Vec<Finding> {
    let too_many = traffic
        .volume
        .into_iter()
        .filter(|counted| counted.requests > u64::from(rules.max_requests))
        .map(|counted| finding(Rule::Volume, counted));
    let sensitive =
        traffic.sensitive.into_iter().map(|counted| finding(Rule::SensitivePath, counted));
    let mut findings: Vec<Finding> = too_many
        .chain(sensitive)
        .filter(|finding| !trusted.iter().any(|proxy| proxy.covers(&finding.network)))
        .collect();
    findings.sort_unstable_by_key(|finding| (finding.network, finding.rule));
    findings
}

fn finding(rule: Rule, counted: Counted) -> Finding {
    Finding {
        network: counted.network,
        rule,
        first_seen: counted.first,
        last_seen: counted.last,
        hits: counted.requests,
        evidence: counted.sample,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a date")
    }

    fn counted(network: &str, requests: u64) -> Counted {
        Counted {
            network: network.parse().expect("a network"),
            requests,
            first: at("2026-03-01T10:00:00Z"),
            last: at("2026-03-01T10:59:59Z"),
            sample: Vec::new(),
        }
    }

    #[test]
    fn a_window_begins_with_its_hour_and_ends_before_the_next() {
        let window = Window::of(at("2026-03-01T10:59:59.999999Z"));
        assert_eq!(window, Window::of(at("2026-03-01T10:00:00Z")));
        assert_eq!(window.end(), at("2026-03-01T11:00:00Z"));
        assert_eq!(window.next(), Window::of(at("2026-03-01T11:00:00Z")));
        assert_eq!(Window::last_ended(at("2026-03-01T11:00:00Z")), window);
        assert_eq!(Window::last_ended(at("2026-03-01T11:59:59Z")), window);
        assert_eq!(window.to_string(), "2026-03-01T10:00Z");
        assert_eq!(Window::of(at("1969-12-31T23:30:00Z")).start(), at("1969-12-31T23:00:00Z"));
    }

    #[test]
    fn a_hundred_requests_are_fine_and_one_more_is_not() {
        let traffic = Traffic {
            volume: vec![counted("192.0.2.1", 100), counted("192.0.2.2", 101)],
            sensitive: vec![],
        };
        let findings = detect(traffic, &Rules::default(), &[]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].network.to_string(), "192.0.2.2");
        assert_eq!((findings[0].rule, findings[0].hits), (Rule::Volume, 101));
    }

    #[test]
    fn one_sensitive_path_is_a_finding() {
        let traffic = Traffic { volume: vec![], sensitive: vec![counted("2001:db8::1", 1)] };
        let findings = detect(traffic, &Rules::default(), &[]);
        assert_eq!((findings[0].rule, findings[0].hits), (Rule::SensitivePath, 1));
    }

    #[test]
    fn a_trusted_proxy_is_never_found() {
        let traffic = Traffic {
            volume: vec![counted("10.0.0.1", 5_000), counted("2001:db8:0:1::/64", 5_000)],
            sensitive: vec![counted("10.0.0.1", 3), counted("192.0.2.1", 1)],
        };
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().expect("a network"));
        let findings = detect(traffic, &Rules::default(), &trusted);
        let found: Vec<String> =
            findings.iter().map(|finding| finding.network.to_string()).collect();
        assert_eq!(found, ["192.0.2.1"]);
    }
}
