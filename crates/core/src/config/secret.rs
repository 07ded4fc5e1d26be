//! Values that must not reach a log or a terminal.

use std::fmt;

use serde::{Serialize, Serializer};

const MASK: &str = "***";

/// A text that shows as `***` wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// The URL with `***` for its password, in the authority or as a parameter `password`.
///
/// Everything between the first `:` after the scheme and the last `@` of the authority counts as the password,
/// so that one with unescaped `@` or `/` in it is not shown in part.
pub(super) fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Not a URL: who knows what it holds.
        return MASK.to_owned();
    };
    let (rest, query) =
        rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let rest = match rest.rsplit_once('@') {
        Some((credentials, place)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:{MASK}@{place}"),
            None => format!("{credentials}@{place}"),
        },
        None => rest.to_owned(),
    };
    let query =
        query.map(|query| query.split('&').map(mask_parameter).collect::<Vec<_>>().join("&"));
    match query {
        Some(query) => format!("{scheme}://{rest}?{query}"),
        None => format!("{scheme}://{rest}"),
    }
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}={MASK}"),
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_masked_wherever_it_stands() {
        for (url, shown) in [
            ("postgres://me:hunter2@db/x", "postgres://me:***@db/x"),
            ("postgres://me:hun@t/er2@db/x", "postgres://me:***@db/x"),
            (
                "postgres://db/x?user=me&password=hunter2&sslmode=require",
                "postgres://db/x?user=me&password=***&sslmode=require",
            ),
            ("redis://:hunter2@cache:6379/1", "redis://:***@cache:6379/1"),
            ("redis://cache", "redis://cache"),
            ("postgres://me@db/x", "postgres://me@db/x"),
            ("hunter2", "***"),
        ] {
            assert_eq!(mask_url(url), shown);
        }
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(
            format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap()),
            "*** *** \"***\""
        );
        assert_eq!(secret.reveal(), "hunter2");
    }
}
