//! Values as people read them.

use chrono::{DateTime, Local, Offset, TimeDelta, Utc};

/// An instant to the second where the operator is, with its zone, such as `2026-11-22 18:12:58+01:00`; it can be
/// given back as the value of an option.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    local(at, "%Y-%m-%d %H:%M:%S")
}

/// The same to the minute.
pub(crate) fn minute(at: DateTime<Utc>) -> String {
    local(at, "%Y-%m-%d %H:%M")
}

fn local(at: DateTime<Utc>, format: &str) -> String {
    let at = at.with_timezone(&Local);
    let zone = match at.offset().fix().local_minus_utc() {
        0 => "Z".to_owned(),
        _ => at.format("%:z").to_string(),
    };
    format!("{}{zone}", at.format(format))
}

/// When something ends: `never`, or the instant and how far away it is.
pub(crate) fn ends(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    match at {
        None => "never".to_owned(),
        Some(at) => format!("in {}", span(at - now)),
    }
}

/// An instant in a sentence.
pub(crate) fn until(at: Option<DateTime<Utc>>) -> String {
    match at {
        None => "permanently".to_owned(),
        Some(at) => format!("until {}", time(at)),
    }
}

/// A span in its two largest units, such as `3h59m`.
fn span(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    let coarse = match seconds {
        ..60 => seconds,
        60..3_600 => seconds / 60 * 60,
        3_600..86_400 => seconds / 60 * 60,
        _ => seconds / 3_600 * 3_600,
    };
    let (days, rest) = (coarse / 86_400, coarse % 86_400);
    let (hours, minutes, seconds) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")];
    let text: String = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .take(2)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// `Berlin, DE`, `DE`, or `-` for what is not known.
pub(crate) fn place(city: Option<&str>, country: Option<&str>) -> String {
    match (city, country) {
        (Some(city), Some(country)) => format!("{}, {}", clean(city), clean(country)),
        (None, Some(one)) | (Some(one), None) => clean(one),
        (None, None) => "-".to_owned(),
    }
}

/// Without what steers a terminal or hides text in it: those characters are shown escaped.
pub(crate) fn clean(text: &str) -> String {
    let unfit = |c: char| {
        c.is_control()
            || matches!(c,
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if unfit(c) { cleaned.extend(c.escape_unicode()) } else { cleaned.push(c) }
    }
    cleaned
}

/// At most `most` characters, and a sign that there are more.
pub(crate) fn bounded(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// `1 record`, `10,000 records`.
pub(crate) fn count(number: u64, singular: &str, plural: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {}", if number == 1 { singular } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let all = [(0, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m"), (14_399, "3h59m")];
        for (seconds, text) in all.into_iter().chain([(86_400, "1d"), (2_591_999, "29d23h")]) {
            assert_eq!(span(TimeDelta::seconds(seconds)), text);
        }
        assert_eq!(span(TimeDelta::seconds(-5)), "0s", "what has just ended");
    }

    #[test]
    fn text_of_strangers_cannot_steer_a_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r\n"), "a\\u{1b}[31mb\\u{d}\\u{a}");
        assert_eq!(clean("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(clean("Zürich"), "Zürich");
    }

    #[test]
    fn numbers_are_grouped_and_words_agree() {
        assert_eq!(count(1, "record", "records"), "1 record");
        assert_eq!(count(0, "record", "records"), "0 records");
        assert_eq!(count(1_234_567, "record", "records"), "1,234,567 records");
        assert_eq!(bounded("abc", 3), "abc");
        assert_eq!(bounded("äbcd", 3), "äbc…");
    }
}
