//! Where the store is. The scheme picks the kind; an unknown one is refused, so that a typo cannot
//! create a new, empty store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::secret::mask_url;
use crate::db::check_url;

/// Where everything is remembered. Shows without its password.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// One file, `sqlite://<path>`: `sqlite://data/ipwarden.db` is relative, `sqlite:///var/x.db`
    /// absolute.
    Sqlite(PathBuf),
    /// The whole URL, `postgres://..` or `postgresql://..`, with its password.
    Postgres(String),
}

/// Why a URL is not one of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// No `://` in it.
    #[error("is not a URL: write {STORES}")]
    NoScheme,
    /// Somebody else's scheme.
    #[error("has the unknown scheme `{0}`: write {STORES}")]
    UnknownScheme(String),
    /// Nothing, or not enough, after the scheme.
    #[error("{0}")]
    Incomplete(&'static str),
    /// A server, a port or a parameter that cannot be.
    #[error("{0}")]
    Postgres(String),
}

const STORES: &str = "`sqlite://path` or `postgres://user@host/database`";

impl StoreUrl {
    /// SQLite's file in a `data_dir`: the store of embedded mode.
    pub fn in_directory(data_dir: &Path) -> StoreUrl {
        StoreUrl::Sqlite(data_dir.join("ipwarden.db"))
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(url: &str) -> Result<StoreUrl, StoreUrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(StoreUrlError::NoScheme)?;
        match scheme {
            "sqlite" if rest.is_empty() || rest.ends_with('/') => {
                Err(StoreUrlError::Incomplete("names no file: write `sqlite://data/ipwarden.db`"))
            }
            "sqlite" if rest.contains('?') => Err(StoreUrlError::Incomplete(
                "has parameters, and SQLite's file takes none: write `sqlite://path`",
            )),
            // Every connection would have a database of its own.
            "sqlite" if rest == ":memory:" => Err(StoreUrlError::Incomplete(
                "must name a file, which `ipctl` can open too: write `sqlite://path`",
            )),
            "sqlite" => Ok(StoreUrl::Sqlite(PathBuf::from(rest))),
            "postgres" | "postgresql" if rest.is_empty() => Err(StoreUrlError::Incomplete(
                "names no server: write `postgres://user@host/database`",
            )),
            "postgres" | "postgresql" => match check_url(url) {
                Ok(()) => Ok(StoreUrl::Postgres(url.to_owned())),
                Err(why) => Err(StoreUrlError::Postgres(why)),
            },
            other => Err(StoreUrlError::UnknownScheme(other.to_owned())),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            StoreUrl::Postgres(url) => f.write_str(&mask_url(url)),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_picks_the_store() {
        let sqlite = |path: &str| Ok(StoreUrl::Sqlite(PathBuf::from(path)));
        assert_eq!("sqlite://data/x.db".parse(), sqlite("data/x.db"));
        assert_eq!("sqlite:///var/lib/x.db".parse(), sqlite("/var/lib/x.db"));
        let url = "postgres://me:secret@db/x?sslmode=require";
        assert_eq!(url.parse(), Ok(StoreUrl::Postgres(url.to_owned())));
    }

    #[test]
    fn an_unknown_scheme_is_refused_and_the_known_ones_are_named() {
        for url in ["postgress://db/x", "mysql://db/x", "SQLITE://x", "redis://x", "file:///x"] {
            let error = url.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains("unknown scheme") && error.contains("sqlite://path"), "{error}");
        }
        for url in [
            "",
            "data/ipwarden.db",
            "sqlite:",
            "sqlite://",
            "sqlite://data/",
            "postgres://",
            "sqlite://:memory:",
            "sqlite://x?mode=memory",
        ] {
            url.parse::<StoreUrl>().unwrap_err();
        }
    }

    #[test]
    fn a_server_that_cannot_be_is_refused_with_the_reason_and_without_the_password() {
        for (url, reason) in [
            ("postgres://me:sesame@db:99999/x", "port"),
            ("postgres:///x", "names no server"),
            ("postgres://me:sesame@db/x?sslmode=always", "sslmode always"),
            ("postgres://me:sesame@db/x?colour=red", "colour"),
        ] {
            let error = url.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("sesame"), "{error}");
        }
        "postgres:///x?host=/run/postgresql".parse::<StoreUrl>().unwrap();
    }

    #[test]
    fn no_form_of_output_shows_a_password() {
        let store: StoreUrl = "postgres://me:hunter2@db/x".parse().unwrap();
        let shown = format!("{store} {store:?} {}", serde_json::to_string(&store).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
