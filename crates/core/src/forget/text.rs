//! Addresses in text: found, and taken out. Pure.

use std::net::{IpAddr, SocketAddr};

use ipwarden_engine::network::Network;
use serde_json::Value;

/// What stands in the place of an address.
const FORGOTTEN: &str = "forgotten";

/// What every text contains that names an address of `network`, as this program writes addresses: all of
/// one address, or how those of a network begin.
pub(super) fn common(network: Network) -> String {
    match network.address() {
        address if network.is_address() => address.to_string(),
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.")
        }
        IpAddr::V6(address) => format!("{:x}:", address.segments()[0]),
    }
}

/// Whether a text names anything within `network`.
pub(super) fn mentions(text: &str, network: Network) -> bool {
    words(text).any(|(_, word)| is_within(word, network))
}

/// The text without what lies within `network`.
pub(super) fn redacted(text: &str, network: Network) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut from = 0;
    for (at, word) in words(text).filter(|(_, word)| is_within(word, network)) {
        redacted.push_str(&text[from..at]);
        redacted.push_str(FORGOTTEN);
        from = at + word.len();
    }
    redacted.push_str(&text[from..]);
    redacted
}

/// The same of all texts in a JSON value.
pub(super) fn redact(value: &mut Value, network: Network) {
    match value {
        Value::String(text) => *text = redacted(text, network),
        Value::Array(values) => values.iter_mut().for_each(|value| redact(value, network)),
        Value::Object(fields) => fields.values_mut().for_each(|value| redact(value, network)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether any text in a JSON value names anything within `network`.
pub(super) fn is_about(value: &Value, network: Network) -> bool {
    match value {
        Value::String(text) => mentions(text, network),
        Value::Array(values) => values.iter().any(|value| is_about(value, network)),
        Value::Object(fields) => fields.values().any(|value| is_about(value, network)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The parts of a text that may be addresses, and where they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let fits = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '/');
    text.split(move |c| !fits(c)).map(move |word| {
        let at = word.as_ptr().addr() - text.as_ptr().addr();
        // The end of a sentence is no part of an address.
        (at, word.trim_end_matches(['.', ':', '/']))
    })
}

fn is_within(word: &str, network: Network) -> bool {
    let of_socket = |word: &str| word.parse::<SocketAddr>().ok().map(|it| Network::from(it.ip()));
    let named = word.parse::<Network>().ok().or_else(|| of_socket(word));
    named.is_some_and(|named| network.covers(&named))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_found_wherever_they_stand_and_no_others() {
        let one = network("203.0.113.9");
        for (text, redacted_text) in [
            ("203.0.113.9", "forgotten"),
            ("blocked 203.0.113.9.", "blocked forgotten."),
            ("203.0.113.9:8080, [203.0.113.9]", "forgotten, [forgotten]"),
            ("::ffff:203.0.113.9 or 203.0.113.9/32", "forgotten or forgotten"),
            ("203.0.113.90 1203.0.113.9 203.0.113.0/24", ""),
            ("beef: 1.2", ""),
            ("Zürich 203.0.113.9 ü", "Zürich forgotten ü"),
        ] {
            let expected = if redacted_text.is_empty() { text } else { redacted_text };
            assert_eq!(redacted(text, one), expected);
            assert_eq!(mentions(text, one), !redacted_text.is_empty(), "{text}");
        }
        assert_eq!(redacted("2001:db8::7:", network("2001:db8::/64")), "forgotten:");
    }

    #[test]
    fn json_keeps_its_shape() {
        let mut value = json!({"a": ["203.0.113.9", 1, null], "b": {"c": "x 203.0.113.8"}});
        assert!(is_about(&value, network("203.0.113.9")));
        redact(&mut value, network("203.0.113.9"));
        assert_eq!(value, json!({"a": ["forgotten", 1, null], "b": {"c": "x 203.0.113.8"}}));
        assert!(!is_about(&value, network("203.0.113.9")));
    }

    #[test]
    fn what_all_texts_have_in_common_is_in_each() {
        for (of, texts) in [
            ("203.0.113.9", &["203.0.113.9"][..]),
            ("203.0.113.128/25", &["203.0.113.129", "203.0.113.255", "203.0.113.128/26"]),
            ("2001:db8::/64", &["2001:db8::", "2001:db8::1", "2001:db8:0:0:1::/80"]),
        ] {
            for text in texts {
                let named: Network = text.parse().unwrap();
                assert!(named.to_string().contains(&common(network(of))), "{of}: {text}");
            }
        }
    }
}
