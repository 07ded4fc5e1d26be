//! Values of arguments: read once, here, so that commands get what they can use.

use std::net::IpAddr;
use std::str::FromStr;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use ipwarden_core::config::{StoreUrl, StoreUrlError};
use ipwarden_core::{duration, forget, users};
use ipwarden_engine::network::{Network, NetworkError, Parsed, parse_address};

/// An instant as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instant {
    /// So long ago.
    Ago(TimeDelta),
    /// Then.
    At(DateTime<Utc>),
}

impl Instant {
    /// The instant, for a command that was given at `now`.
    pub(crate) fn resolve(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Instant::Ago(span) => now - span,
            Instant::At(at) => at,
        }
    }
}

impl FromStr for Instant {
    type Err = String;

    fn from_str(text: &str) -> Result<Instant, String> {
        if text == "now" {
            return Ok(Instant::Ago(TimeDelta::zero()));
        }
        let ago = duration::parse(text).ok().and_then(|span| TimeDelta::from_std(span).ok());
        ago.map(Instant::Ago).or_else(|| point(text).map(Instant::At)).ok_or_else(|| {
            "no time: write one like 2026-11-22, 2026-11-22T17:00:00Z (UTC unless it says \
             otherwise), or 2h for two hours ago"
                .to_owned()
        })
    }
}

fn point(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return sensible(at.to_utc());
    }
    // As tables show it: RFC 3339 with a space.
    let zoned = ["%Y-%m-%d %H:%M:%S%#z", "%Y-%m-%d %H:%M%#z"];
    if let Some(at) = zoned.iter().find_map(|format| DateTime::parse_from_str(text, format).ok()) {
        return sensible(at.to_utc());
    }
    let formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    let time = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    sensible(time.or_else(date)?.and_utc())
}

/// Within what both databases can store and an hour more.
fn sensible(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let first = DateTime::UNIX_EPOCH;
    let last = DateTime::UNIX_EPOCH.checked_add_days(Days::new(365 * 1_000))?;
    (first..last).contains(&at).then_some(at)
}

pub(super) fn network(text: &str) -> Result<Parsed, NetworkError> {
    Network::parse(text)
}

pub(super) fn bare_network(text: &str) -> Result<Network, NetworkError> {
    text.parse()
}

/// What can be forgotten at once.
pub(super) fn forgettable(text: &str) -> Result<Network, String> {
    let network = bare_network(text).map_err(|error| error.to_string())?;
    forget::check_width(network).map(|()| network).map_err(|error| error.to_string())
}

pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    parse_address(text.as_bytes()).ok_or_else(|| match Network::parse(text) {
        Ok(_) => "a network has no one place; write an address".to_owned(),
        Err(error) => error.to_string(),
    })
}

/// Words that people read later, in a column of a table.
pub(super) fn words(text: &str) -> Result<String, String> {
    const LONGEST: usize = 1_000;
    let words = text.trim();
    if words.chars().any(char::is_control) {
        return Err("must be one line, without control characters".to_owned());
    }
    if words.len() > LONGEST {
        return Err(format!("must be at most {LONGEST} bytes long"));
    }
    Ok(words.to_owned())
}

/// The name of a list, which becomes part of an origin.
pub(super) fn list_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text {
        "" => Err("must not be empty".to_owned()),
        _ if text.len() > 64 => Err("must be at most 64 characters long".to_owned()),
        _ if !text.chars().all(fits) => {
            Err("must be of letters, digits, `-`, `_` and `.`, such as spamhaus-drop".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

/// Where another program's database is.
pub(super) fn store_url(text: &str) -> Result<StoreUrl, StoreUrlError> {
    text.parse()
}

/// The label of a Django application, which becomes part of names of tables.
pub(super) fn label(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match !text.is_empty() && text.len() <= 40 && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("must be of small letters, digits and `_`, such as ip_tracking".to_owned()),
    }
}

/// The number of a finding.
pub(super) fn finding(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| "no number of a finding; `ipctl list-suspicious` shows them".to_owned())
}

pub(super) fn name(text: &str) -> Result<String, String> {
    match words(text)? {
        name if name.is_empty() => Err("must not be empty".to_owned()),
        name if name.len() > 100 => Err("must be at most 100 bytes long".to_owned()),
        name => Ok(name),
    }
}

pub(super) fn person(text: &str) -> Result<String, String> {
    users::fit_name(text).map_err(|error| error.to_string())
}
