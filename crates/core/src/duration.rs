//! Spans of time as people write them: `90s`, `15m`, `4h`, `30d`, `2w`, `1h30m`, `permanent`.
//!
//! The one parser for configuration and command line. It knows no months and no years, whose
//! length depends on the calendar.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// Units and their seconds, the longest first.
const UNITS: [(&str, u64); 5] =
    [("w", 7 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// The longest span: a hundred years. Every date that is computed from it stays a date.
const LONGEST_SECONDS: u64 = 36_500 * 86_400;

/// Why a text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not a sequence of whole numbers with units.
    #[error(
        "`{0}` is not a duration: write whole numbers with s, m, h, d or w, such as `90s`, `4h` or `30d`"
    )]
    Malformed(String),
    /// It is zero.
    #[error("`{0}` is no time at all: the shortest is `1s`")]
    Zero(String),
    /// It is beyond a hundred years, after which no date is sure to be one.
    #[error("`{0}` is longer than a hundred years: write `permanent` for what shall not end")]
    TooLong(String),
}

/// Parses a span of at least a second and at most a hundred years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let too_long = || DurationError::TooLong(text.to_owned());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(malformed());
        }
        let (unit, unit_seconds) =
            UNITS.iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(malformed)?;
        // All digits: the only failure is its size.
        let number: u64 = number.parse().map_err(|_| too_long())?;
        seconds = number
            .checked_mul(*unit_seconds)
            .and_then(|part| seconds.checked_add(part))
            .ok_or_else(too_long)?;
        rest = &after[unit.len()..];
    }
    match seconds {
        0 => Err(DurationError::Zero(text.to_owned())),
        1..=LONGEST_SECONDS => Ok(Duration::from_secs(seconds)),
        _ => Err(too_long()),
    }
}

/// Writes whole seconds as [`parse`] reads them, in the largest unit that divides them: `30d`, `90s`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit, unit_seconds) = UNITS
        .iter()
        // A retention of 28 days is not thought of as four weeks.
        .filter(|(unit, _)| *unit != "w")
        .find(|(_, unit_seconds)| seconds.is_multiple_of(*unit_seconds))
        .unwrap_or(&("s", 1));
    format!("{}{unit}", seconds / unit_seconds)
}

/// How long something lasts that may last for ever, such as a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Until somebody ends it.
    Permanent,
    /// This long, from when it begins.
    For(Duration),
}

impl Term {
    /// When it ends, if it begins at `now`; `None` for never.
    pub fn ends(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Term::Permanent => None,
            Term::For(duration) => TimeDelta::from_std(duration)
                .ok()
                .and_then(|delta| now.checked_add_signed(delta))
                .or(Some(DateTime::<Utc>::MAX_UTC)),
        }
    }
}

impl FromStr for Term {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Term, DurationError> {
        match text.trim() {
            "permanent" => Ok(Term::Permanent),
            span => parse(span).map(Term::For),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Permanent => f.write_str("permanent"),
            Term::For(duration) => f.write_str(&format(*duration)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_in_every_unit_and_in_parts() {
        for (text, seconds) in [
            ("1s", 1),
            ("90s", 90),
            ("15m", 900),
            ("4h", 14_400),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
            ("1h30m", 5_400),
            (" 1h ", 3_600),
            ("36500d", LONGEST_SECONDS),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused_with_its_reason() {
        for text in ["", " ", "h", "4", "4 h", "-4h", "1.5h", "4x", "h4", "4h-", "٤h", "permanent"]
        {
            assert!(matches!(parse(text), Err(DurationError::Malformed(_))), "{text:?}");
        }
        for text in ["0s", "0h0m"] {
            assert!(matches!(parse(text), Err(DurationError::Zero(_))), "{text:?}");
        }
        for text in ["36501d", "99999999999999999999d", "18446744073709551615w", "36500d1s"] {
            assert!(matches!(parse(text), Err(DurationError::TooLong(_))), "{text:?}");
        }
    }

    #[test]
    fn a_span_is_written_as_it_is_read() {
        for text in ["1s", "61s", "90m", "1h", "25h", "30d", "28d"] {
            let span = parse(text).unwrap();
            assert_eq!(format(span), text);
        }
    }

    #[test]
    fn a_term_ends_or_does_not() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        assert_eq!("permanent".parse::<Term>().unwrap().ends(now), None);
        let later = DateTime::from_timestamp(1_060, 0).unwrap();
        assert_eq!("1m".parse::<Term>().unwrap().ends(now), Some(later));
        assert_eq!("4h".parse::<Term>().unwrap().to_string(), "4h");
        let last = "36500d".parse::<Term>().unwrap();
        assert_eq!(last.ends(DateTime::<Utc>::MAX_UTC), Some(DateTime::<Utc>::MAX_UTC));
    }
}
