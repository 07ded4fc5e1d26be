//! From a raw value to a typed one, with a message that says what is right.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::layers::Raw;
use crate::duration;

/// A text; `None` when it is empty, which stands for "not set".
pub(super) fn optional_text(raw: &Raw) -> Result<Option<String>, String> {
    match raw {
        Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => {
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        }
        Raw::Toml(other) => Err(format!("must be a text in quotes, not {}", kind(other))),
    }
}

/// A text that is not empty.
pub(super) fn text(raw: &Raw) -> Result<String, String> {
    optional_text(raw)?.ok_or_else(|| "must not be empty".to_owned())
}

/// What a text stands for.
pub(super) fn parsed<T: FromStr<Err: Display>>(raw: &Raw) -> Result<T, String> {
    text(raw)?.parse().map_err(|error: T::Err| error.to_string())
}

/// What a text stands for, or `None` when it is empty.
pub(super) fn optional<T: FromStr<Err: Display>>(raw: &Raw) -> Result<Option<T>, String> {
    optional_text(raw)?
        .map(|text| text.parse().map_err(|error: T::Err| error.to_string()))
        .transpose()
}

/// A path; relative ones are relative to the working directory.
pub(super) fn path(raw: &Raw) -> Result<PathBuf, String> {
    text(raw).map(PathBuf::from)
}

/// `address:port`; names are not looked up.
pub(super) fn socket(raw: &Raw) -> Result<std::net::SocketAddr, String> {
    let text = text(raw)?;
    text.parse().map_err(|_| socket_message(&text))
}

/// `address:port`, or `None` when it is empty.
pub(super) fn optional_socket(raw: &Raw) -> Result<Option<std::net::SocketAddr>, String> {
    optional_text(raw)?.map(|text| text.parse().map_err(|_| socket_message(&text))).transpose()
}

fn socket_message(text: &str) -> String {
    format!("`{text}` is not an address with a port: write `127.0.0.1:8080` or `[::]:8080`")
}

/// A whole number from `least` to `most`.
pub(super) fn number(least: u64, most: u64) -> impl Fn(&Raw) -> Result<u64, String> {
    move |raw| {
        let number = match raw {
            Raw::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Toml(_) => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
    }
}

/// `true` or `false`.
pub(super) fn boolean(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Toml(toml::Value::Boolean(value)) => Ok(*value),
        Raw::Text(text) => text.trim().parse().map_err(|_| "must be true or false".to_owned()),
        Raw::Toml(_) => Err("must be true or false".to_owned()),
    }
}

/// A list of texts: an array in the file, separated by commas in a variable.
pub(super) fn list(raw: &Raw) -> Result<Vec<String>, String> {
    let message = "must be a list of texts in quotes, such as `[\"a\", \"b\"]`";
    match raw {
        Raw::Text(text) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|element| !element.is_empty())
            .map(str::to_owned)
            .collect()),
        Raw::Toml(toml::Value::Array(elements)) => elements
            .iter()
            .map(|element| element.as_str().map(str::to_owned).ok_or_else(|| message.to_owned()))
            .collect(),
        Raw::Toml(_) => Err(message.to_owned()),
    }
}

/// A span of time such as `30d`, from `least` to `most`.
pub(super) fn span(least: Duration, most: Duration) -> impl Fn(&Raw) -> Result<Duration, String> {
    move |raw| {
        let span = duration::parse(&text(raw)?).map_err(|error| error.to_string())?;
        if (least..=most).contains(&span) {
            return Ok(span);
        }
        Err(format!("must be from {} to {}", duration::format(least), duration::format(most)))
    }
}

/// A span of time of any length, or `None` when it is empty.
pub(super) fn optional_span(raw: &Raw) -> Result<Option<Duration>, String> {
    optional_text(raw)?
        .map(|text| duration::parse(&text).map_err(|error| error.to_string()))
        .transpose()
}

/// Bytes: a whole number, or a text with a unit such as `256MiB`, at least `least`.
pub(super) fn bytes(least: u64) -> impl Fn(&Raw) -> Result<u64, String> {
    move |raw| {
        let number = match raw {
            Raw::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => parse_bytes(text.trim()),
            Raw::Toml(_) => None,
        };
        let number = number.ok_or("must be bytes: write a whole number or `256MiB`, `1GiB`")?;
        // Positions in the spool and in SQLite are signed 64-bit numbers.
        if number < least || i64::try_from(number).is_err() {
            return Err(format!("must be at least {}", format_bytes(least)));
        }
        Ok(number)
    }
}

const UNITS: [(&str, u64); 4] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

fn parse_bytes(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    number.trim_end().parse::<u64>().ok()?.checked_mul(factor)
}

fn format_bytes(bytes: u64) -> String {
    let unit =
        UNITS.iter().rev().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match unit {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes} bytes"),
    }
}

fn kind(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a text",
        toml::Value::Integer(_) => "a number",
        toml::Value::Float(_) => "a number with a fraction",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}

/// Serialises a span as [`duration::format`] writes it, and none as the empty text.
pub(super) mod show {
    use std::time::Duration;

    use serde::{Serialize, Serializer};

    use crate::duration;

    pub(crate) fn span<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::format(*span))
    }

    pub(crate) fn optional_span<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&span.map(duration::format).unwrap_or_default())
    }

    /// For what shows itself without its secrets.
    pub(crate) fn optional_text<T: std::fmt::Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.as_ref().map(T::to_string).unwrap_or_default())
    }

    pub(crate) fn optional<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }
}
