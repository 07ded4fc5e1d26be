//! What `cscli decisions list` writes: with `-o json` alerts and the decisions in them, with `-o raw`
//! CSV.
//!
//! Both tell how long a decision lasts from when they were written, not when it ends; so the time at
//! which the file was written is an argument.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::Blocks;

/// Why a file is none of these.
#[derive(Debug, thiserror::Error)]
pub enum CrowdsecError {
    /// It begins as JSON does.
    #[error("it is not what `cscli decisions list -o json` writes: {0}")]
    Json(#[from] serde_json::Error),
    /// It is neither JSON nor CSV with the columns.
    #[error("it is not what `cscli decisions list -o raw` writes: line {line}: {why}")]
    Csv {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
}

/// Every decision that blocks an address or a range.
///
/// # Errors
/// When it is no such list.
pub fn blocks(text: &str, written_at: DateTime<Utc>) -> Result<Blocks, CrowdsecError> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let decisions = match text.as_bytes().first() {
        None => Vec::new(),
        Some(b'[' | b'{' | b'n') => json(text)?,
        Some(_) => csv(text)?,
    };
    let mut blocks = Blocks::default();
    for decision in decisions {
        take(&mut blocks, decision, written_at);
    }
    Ok(blocks)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Decision {
    duration: String,
    origin: String,
    scenario: String,
    scope: String,
    #[serde(rename = "type")]
    kind: String,
    value: String,
    simulated: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Alert { decisions: Option<Vec<Decision>> },
    Decision(Decision),
}

fn json(text: &str) -> Result<Vec<Decision>, serde_json::Error> {
    // No decisions at all are `null`.
    let listed: Option<Vec<serde_json::Value>> = serde_json::from_str(text)?;
    let mut all = Vec::new();
    for one in listed.unwrap_or_default() {
        match one.get("decisions").is_some() {
            true => match serde_json::from_value(one)? {
                Listed::Alert { decisions } => all.extend(decisions.unwrap_or_default()),
                Listed::Decision(decision) => all.push(decision),
            },
            false => all.push(serde_json::from_value(one)?),
        }
    }
    Ok(all)
}

/// `id,source,ip,reason,action,country,as,events_count,expiration,simulated,alert_id`, the address with
/// its scope before it: `Ip:192.0.2.1`.
fn csv(text: &str) -> Result<Vec<Decision>, CrowdsecError> {
    let mut rows = ::csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let wrong = |error: ::csv::Error| CrowdsecError::Csv {
        line: error.position().map_or(1, ::csv::Position::line),
        why: error.to_string(),
    };
    let headers = rows.headers().map_err(wrong)?.clone();
    let column = |name: &str| headers.iter().position(|header| header == name);
    let (Some(ip), Some(action), Some(expiration)) =
        (column("ip"), column("action"), column("expiration"))
    else {
        let why = "the columns ip, action and expiration are missing".to_owned();
        return Err(CrowdsecError::Csv { line: 1, why });
    };
    let (source, reason, simulated) = (column("source"), column("reason"), column("simulated"));
    let mut all = Vec::new();
    for row in rows.records() {
        let row = row.map_err(wrong)?;
        let field = |column: Option<usize>| {
            column.and_then(|column| row.get(column)).unwrap_or_default().to_owned()
        };
        let named = field(Some(ip));
        let (scope, value) = match named.split_once(':') {
            // An IPv6 address has colons of its own.
            Some((scope, value)) if scope.chars().all(char::is_alphabetic) && scope.len() > 1 => {
                (scope.to_owned(), value.to_owned())
            }
            _ => ("Ip".to_owned(), named.clone()),
        };
        all.push(Decision {
            duration: field(Some(expiration)),
            origin: field(source),
            scenario: field(reason),
            scope,
            kind: field(Some(action)),
            value,
            simulated: field(simulated) == "true",
        });
    }
    Ok(all)
}

fn take(blocks: &mut Blocks, decision: Decision, written_at: DateTime<Utc>) {
    let Decision { duration, origin, scenario, scope, kind, value, simulated } = decision;
    if simulated {
        return blocks.leave_out("it was only simulated");
    }
    if kind != "ban" {
        return blocks.leave_out(format!("its type is `{}`, and not `ban`", shown(&kind)));
    }
    if !scope.eq_ignore_ascii_case("ip") && !scope.eq_ignore_ascii_case("range") {
        return blocks.leave_out(format!("its scope is `{}`, and not an address", shown(&scope)));
    }
    let Some(left) = span(&duration) else {
        return blocks.leave_out("it does not say when it ends");
    };
    if left <= TimeDelta::zero() {
        return blocks.leave_out("it had ended");
    }
    let reason = match (&*scenario, &*origin) {
        ("", _) => "crowdsec".to_owned(),
        (scenario, "") => format!("crowdsec: {}", shown(scenario)),
        (scenario, origin) => format!("crowdsec: {} ({})", shown(scenario), shown(origin)),
    };
    blocks.take(&value, Some(reason), written_at.checked_add_signed(left));
}

/// A span as Go writes it: `3h51m57.123s`, `-1m2s`, `500ms`.
fn span(text: &str) -> Option<TimeDelta> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let units = [
            ("ms", 1e-3),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("ns", 1e-9),
            ("h", 3_600.0),
            ("m", 60.0),
            ("s", 1.0),
        ];
        let (unit, worth) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        seconds += number.parse::<f64>().ok()? * worth;
        rest = &after[unit.len()..];
    }
    // Two hundred years; no decision lasts longer.
    const MOST: f64 = 6.4e9;
    #[expect(clippy::cast_possible_truncation, reason = "it is bounded")]
    let whole = seconds.min(MOST).ceil() as i64;
    TimeDelta::try_seconds(if negative { -whole } else { whole })
}

/// Words of strangers in one line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
