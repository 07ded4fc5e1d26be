//! One line of a log that is written as JSON: nginx, Caddy, Traefik, and what `ipctl logs -o jsonl` writes.
//!
//! nginx has no format of its own here, people name the fields; so each fact is looked for under all
//! the names that it commonly has. Promises nothing else than the text formats do: what a client could
//! write into a field stays in it, because JSON is parsed and not searched.

use std::borrow::Cow;
use std::net::IpAddr;

use chrono::{DateTime, NaiveDateTime};
use serde_json::{Map, Value};

use super::date;
use super::line::{Line, Unreadable};
use crate::geo::{CountryCode, MAX_CITY_CHARS, Place};

const ADDRESS: [&str; 10] = [
    "client_ip",
    "remote_ip",
    "remote_addr",
    "ClientHost",
    "ClientAddr",
    "address",
    "clientip",
    "client",
    "ip",
    "remoteIp",
];
const TIME: [&str; 11] = [
    "at",
    "ts",
    "StartUTC",
    "time_iso8601",
    "msec",
    "time_local",
    "@timestamp",
    "timestamp",
    "StartLocal",
    "time",
    "date",
];
const METHOD: [&str; 3] = ["method", "request_method", "RequestMethod"];
const TARGET: [&str; 5] = ["uri", "request_uri", "RequestPath", "path", "url"];
const STATUS: [&str; 4] = ["status", "DownstreamStatus", "status_code", "OriginStatus"];
const AGENT: [&str; 5] =
    ["user_agent", "http_user_agent", "request_User-Agent", "agent", "userAgent"];
const USER: [&str; 5] = ["identity", "user_id", "remote_user", "ClientUsername", "user"];

type Fields = Map<String, Value>;

/// Takes an object apart; the place, if it tells one.
pub(super) fn parse(line: &[u8]) -> Result<(Line<'static>, Option<Place>), Unreadable> {
    // nginx writes bytes beyond ASCII as they came.
    let text = String::from_utf8_lossy(line);
    let Ok(Value::Object(fields)) = serde_json::from_str(&text) else {
        return Err(Unreadable::Json);
    };
    let none = Fields::new();
    // Caddy has an object for what the client sent.
    let request = fields.get("request").and_then(Value::as_object).unwrap_or(&none);
    let either = |names: &[&str]| text_of(request, names).or_else(|| text_of(&fields, names));
    let address = either(&ADDRESS).as_deref().and_then(address).ok_or(Unreadable::JsonAddress)?;
    let at = TIME.iter().find_map(|name| instant(fields.get(*name)?));
    let at = at.ok_or(Unreadable::JsonTime)?;
    let status = match either(&STATUS).as_deref() {
        None | Some("" | "-") => 0,
        Some(status) => {
            status.parse().ok().filter(|status| *status < 1_000).ok_or(Unreadable::Status)?
        }
    };
    let agent = either(&AGENT).or_else(|| {
        let sent = request.get("headers")?.get("User-Agent")?;
        Some(Cow::Borrowed(sent.get(0)?.as_str()?))
    });
    let present = |text: Cow<'_, str>| {
        let said = !matches!(&*text, "" | "-");
        said.then(|| Cow::Owned(text.into_owned().into_bytes()))
    };
    let line = Line {
        at,
        address,
        user: either(&USER).and_then(present),
        request: Cow::Owned(asked_for(&fields, request).into_bytes()),
        status,
        user_agent: agent.and_then(present),
    };
    Ok((line, place(&fields)))
}

/// The request line, or what there is of it.
fn asked_for(fields: &Fields, request: &Fields) -> String {
    if let Some(line) = fields.get("request").and_then(Value::as_str) {
        return line.to_owned();
    }
    let either = |names: &[&str]| text_of(request, names).or_else(|| text_of(fields, names));
    match (either(&METHOD), either(&TARGET)) {
        (Some(method), Some(target)) => format!("{method} {target} HTTP/1.1"),
        (None, Some(target)) => target.into_owned(),
        _ => String::new(),
    }
}

/// A text, or a number as one.
fn text_of<'v>(fields: &'v Fields, names: &[&str]) -> Option<Cow<'v, str>> {
    names.iter().find_map(|name| match fields.get(*name)? {
        Value::String(text) => Some(Cow::Borrowed(&**text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    })
}

/// An address, with its port or without.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let bare = |text: &str| {
        let address = ipwarden_engine::network::parse_address(text.as_bytes())?;
        // 0.0.0.0 and :: are nobody's address.
        (!address.is_unspecified()).then_some(address)
    };
    bare(text).or_else(|| {
        let (host, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        bare(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host))
    })
}

/// Seconds or milliseconds since the epoch, RFC 3339, or the date of the text formats; microseconds.
pub(super) fn instant(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => since_epoch(number.as_f64()?),
        Value::String(text) => {
            let zoned = DateTime::parse_from_rfc3339(text)
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"));
            let at = zoned.map(|at| at.to_utc()).ok().or_else(|| {
                // Caddy's `wall` is UTC and says no zone.
                ["%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
                    .iter()
                    .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
                    .map(|at| at.and_utc())
            });
            at.map(|at| at.timestamp_micros())
                .filter(|at| date::is_in_range(*at))
                .or_else(|| date::parse(text.as_bytes()))
                .or_else(|| since_epoch(text.parse().ok()?))
        }
        _ => None,
    }
}

fn since_epoch(number: f64) -> Option<i64> {
    // No log is of before 1973 in milliseconds, or of after 5138 in seconds.
    const MILLISECONDS: f64 = 1e11;
    let seconds = if number >= MILLISECONDS { number / 1_000.0 } else { number };
    let micros = (seconds * 1e6).round();
    #[expect(clippy::cast_possible_truncation, reason = "what is out of range is no date")]
    let at = micros as i64;
    (number.is_finite() && date::is_in_range(at)).then_some(at)
}

fn place(fields: &Fields) -> Option<Place> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let place = Place {
        country: text("country").and_then(CountryCode::parse),
        city: text("city").and_then(|city| {
            let city: String =
                city.trim().chars().filter(|c| !c.is_control()).take(MAX_CITY_CHARS).collect();
            (!city.is_empty()).then(|| city.into())
        }),
        asn: fields.get("asn").and_then(Value::as_u64).and_then(|asn| u32::try_from(asn).ok()),
    };
    (!place.is_unknown()).then_some(place)
}
