//! One line of an access log of AWS's Application Load Balancer:
//! `type time elb client:port target:port t t t status status received sent "request" "agent" ..`.

use std::borrow::Cow;

use serde_json::Value;

use super::json;
use super::line::{Line, Unreadable};

/// What a line may begin with.
const TYPES: [&str; 6] = ["http", "https", "h2", "grpcs", "ws", "wss"];

/// Whether a line is one of these: its type, and a date as none of the other formats has it.
pub(super) fn is_one(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let is_type = words.next().is_some_and(|word| TYPES.iter().any(|one| one.as_bytes() == word));
    is_type && words.next().is_some_and(|time| time.len() >= 20 && time[10] == b'T')
}

/// Takes a line apart.
pub(super) fn parse(line: &[u8]) -> Result<Line<'static>, Unreadable> {
    let text = String::from_utf8_lossy(line);
    let mut rest = &*text;
    let mut field = || next(&mut rest);
    let _type = field();
    let time = field().unwrap_or_default().to_owned();
    let at = json::instant(&Value::String(time)).ok_or(Unreadable::JsonTime)?;
    let _elb = field();
    let address = field().and_then(json::address).ok_or(Unreadable::JsonAddress)?;
    let _target_and_times = (field(), field(), field(), field());
    let status = match field().ok_or(Unreadable::Status)? {
        "-" => 0,
        status => status.parse().ok().filter(|status| *status < 1_000).ok_or(Unreadable::Status)?,
    };
    let _target_status_and_sizes = (field(), field(), field());
    // "- http://host:port- " is a request that was none.
    let request = field().ok_or(Unreadable::Request)?.trim().to_owned();
    let agent = field().filter(|agent| !matches!(*agent, "" | "-"));
    Ok(Line {
        at,
        address,
        user: None,
        request: Cow::Owned(request.into_bytes()),
        status,
        user_agent: agent.map(|agent| Cow::Owned(agent.as_bytes().to_vec())),
    })
}

/// The next field, in quotes or not; quotes inside are escaped as `\x22`.
fn next<'t>(rest: &mut &'t str) -> Option<&'t str> {
    let text = rest.trim_start_matches(' ');
    if text.is_empty() {
        return None;
    }
    let (field, after) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => text.split_once(' ').unwrap_or((text, "")),
    };
    *rest = after;
    Some(field)
}
