//! What somebody asks: which whole hours, in which steps, and how many of the busiest. Pure.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::detect::{WINDOW, Window};

/// The most steps of time in one answer: days since 1970, or hours of nearly three years.
const STEPS: i64 = 25_000;

/// Longer spans are told by days, unless somebody wants hours.
const BY_HOUR: TimeDelta = TimeDelta::hours(48);

/// What is asked about, unless somebody says.
const SPAN: TimeDelta = TimeDelta::hours(24);

/// Nothing is older, and neither database reads the year 0.
const FIRST: DateTime<Utc> = DateTime::from_timestamp_secs(-62_135_596_800).expect("0001-01-01");

/// The most rows of one dimension.
pub const MOST: u32 = 1_000;

/// The steps of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Whole hours, UTC.
    Hour,
    /// Whole days, UTC; the first and the last as far as they were asked about.
    Day,
}

impl By {
    pub(super) fn step(self) -> TimeDelta {
        match self {
            By::Hour => WINDOW,
            By::Day => TimeDelta::days(1),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Hour => "hour",
            By::Day => "day",
        })
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(word: &str) -> Result<By, String> {
        match word {
            "hour" => Ok(By::Hour),
            "day" => Ok(By::Day),
            other => Err(format!("`{other}` is not hour or day")),
        }
    }
}

/// What somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub(super) since: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
    pub(super) by: By,
    pub(super) top: u32,
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unanswerable {
    /// `since`, `by` or `top`.
    pub argument: &'static str,
    /// What would be right.
    pub detail: String,
}

impl Question {
    /// A question at `now`: by default about the last 24 hours; by the hour for up to two days, by the day
    /// for more. `since` and `until` are widened to whole hours, and the future is left out.
    ///
    /// # Errors
    /// [`Unanswerable`], which names the argument.
    pub fn new(
        since: Option<DateTime<Utc>>,
        until: Option<DateTime<Utc>>,
        by: Option<By>,
        top: u32,
        now: DateTime<Utc>,
    ) -> Result<Question, Unanswerable> {
        let end = Window::of(now).end();
        let until = until.map_or(end, |until| until.min(end));
        let since = since.unwrap_or(until - SPAN).max(FIRST);
        let refused = |argument, detail| Err(Unanswerable { argument, detail });
        if since >= until {
            return refused("since", format!("{since} is not before {until}"));
        }
        if top > MOST {
            return refused("top", format!("{top} is more than {MOST}"));
        }
        let last = Window::of(until - TimeDelta::microseconds(1));
        let (since, until) = (Window::of(since).start(), last.end());
        let span = until - since;
        let by = by.unwrap_or(if span <= BY_HOUR { By::Hour } else { By::Day });
        let steps = span.num_seconds() / by.step().num_seconds();
        if steps > STEPS {
            return match by {
                By::Hour => refused("by", format!("that are {steps} hours: ask by the day")),
                By::Day => refused("since", format!("that are {steps} days, more than {STEPS}")),
            };
        }
        Ok(Question { since, until, by, top })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-03-{text}Z").parse().expect("a date")
    }

    fn asked(
        since: Option<&str>,
        until: Option<&str>,
        by: Option<By>,
    ) -> Result<String, &'static str> {
        let now = at("10T12:34:56");
        Question::new(since.map(at), until.map(at), by, 10, now)
            .map(|question| {
                let Question { since, until, by, .. } = question;
                format!("{} {} {by}", since.format("%dT%H:%M"), until.format("%dT%H:%M"))
            })
            .map_err(|refused| refused.argument)
    }

    #[test]
    fn a_question_is_about_whole_hours_that_have_begun() {
        assert_eq!(asked(None, None, None).unwrap(), "09T13:00 10T13:00 hour");
        let hours = asked(Some("10T10:59:59"), Some("10T11:00:00"), None).unwrap();
        assert_eq!(hours, "10T10:00 10T11:00 hour", "the end belongs to the next");
        let hours = asked(Some("10T10:00:00"), Some("10T11:00:01"), None).unwrap();
        assert_eq!(hours, "10T10:00 10T12:00 hour");
        assert_eq!(
            asked(Some("01T00:00:00"), Some("20T00:00:00"), None).unwrap(),
            "01T00:00 10T13:00 day"
        );
        let days = asked(Some("10T00:00:00"), None, Some(By::Day)).unwrap();
        assert_eq!(days, "10T00:00 10T13:00 day");
        assert_eq!(asked(None, Some("05T00:00:00"), None).unwrap(), "04T00:00 05T00:00 hour");
    }

    #[test]
    fn what_cannot_be_answered_names_the_argument() {
        assert_eq!(asked(Some("10T12:00:00"), Some("10T12:00:00"), None), Err("since"));
        assert_eq!(asked(Some("10T13:00:00"), None, None), Err("since"), "the future");
        let long_ago = Some(at("10T12:00:00") - TimeDelta::days(1_500));
        let ask = |by, top| {
            Question::new(long_ago, None, by, top, at("10T12:00:00")).map_err(|no| no.argument)
        };
        assert_eq!(ask(Some(By::Hour), 10), Err("by"));
        assert_eq!(ask(None, MOST + 1), Err("top"));
        assert_eq!(ask(None, MOST).map(|question| question.by), Ok(By::Day));
        let since = |days| {
            let since = Some(at("10T12:00:00") - TimeDelta::days(days));
            Question::new(since, None, None, 1, at("10T12:00:00")).map_err(|no| no.argument)
        };
        assert!(since(24_000).is_ok());
        assert_eq!(since(26_000), Err("since"));
    }
}
