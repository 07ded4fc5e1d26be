//! What is known about where an address is.
//!
//! Text here comes from files and from Redis, so it is cleaned at the door: no control characters,
//! nothing that turns a terminal's text around, bounded in length.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The most characters of a city's name that are kept.
pub const MAX_CITY_CHARS: usize = 100;

/// Where an address is, as far as the files know it. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// The country.
    pub country: Option<CountryCode>,
    /// The city's English name, at most [`MAX_CITY_CHARS`] characters.
    pub city: Option<Arc<str>>,
    /// The number of the autonomous system that announces the address.
    pub asn: Option<u32>,
}

impl Place {
    /// Whether nothing at all is known.
    pub fn is_unknown(&self) -> bool {
        *self == Place::default()
    }
}

/// An ISO 3166-1 alpha-2 country code: two capital ASCII letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountryCode([u8; 2]);

impl CountryCode {
    /// Reads two ASCII letters of either case; anything else, and `ZZ` (unknown), is `None`.
    pub fn parse(text: &str) -> Option<CountryCode> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        let code = letters.map(|letter| letter.to_ascii_uppercase());
        (code.iter().all(u8::is_ascii_uppercase) && &code != b"ZZ").then_some(CountryCode(code))
    }

    /// The two letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("two ASCII letters")
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for CountryCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A city's name fit to be stored and shown, or `None` if nothing is left of it.
pub(super) fn clean_city(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    // `-` is how some vendors write "unknown".
    if text.is_empty() || text == "-" {
        return None;
    }
    if text.len() <= MAX_CITY_CHARS && !text.chars().any(is_unfit) {
        return Some(text.into());
    }
    let kept: String = text.chars().filter(|&c| !is_unfit(c)).take(MAX_CITY_CHARS).collect();
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.into())
}

/// Control characters, and the invisible ones that reorder or hide text.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_code_is_two_letters_of_either_case() {
        assert_eq!(CountryCode::parse("de").expect("letters").as_str(), "DE");
        for bad in ["", "D", "DEU", "D1", "-", "ZZ", "ß", "\0\0"] {
            assert_eq!(CountryCode::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_city_loses_what_a_terminal_would_obey_and_is_bounded() {
        assert_eq!(clean_city(" Zürich ").as_deref(), Some("Zürich"));
        assert_eq!(clean_city("Ber\0lin\u{1b}[31m\n").as_deref(), Some("Berlin[31m"));
        assert_eq!(clean_city("\u{202e}nilreB").as_deref(), Some("nilreB"));
        for nothing in ["", "  ", "-", "\0", "\u{feff}"] {
            assert_eq!(clean_city(nothing), None, "{nothing:?}");
        }
        let long = "é".repeat(MAX_CITY_CHARS + 1);
        assert_eq!(clean_city(&long).expect("text").chars().count(), MAX_CITY_CHARS);
    }
}
