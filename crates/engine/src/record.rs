//! What is remembered of one request, and the bytes it becomes in the spool.
//!
//! Whatever a client sends becomes text that any database stores: paths, methods and user agents are
//! printable ASCII, identities are UTF-8 without control characters, and every field has a length
//! that it never exceeds. Nothing here knows query strings, bodies, cookies or credentials.

mod body;
mod reference;
mod text;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub use self::body::{MAX_BODY, RecordError};
pub(crate) use self::body::{set_status, set_verdict, verdict};
pub use self::reference::{Reference, ReferenceError};
pub use self::text::{
    MAX_IDENTITY, MAX_METHOD, MAX_PATH, MAX_USER_AGENT, escape_identity, escape_method,
    escape_path, escape_user_agent,
};

/// One answered request, as it is read back from the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the request arrived: microseconds since the Unix epoch, UTC.
    pub at: i64,
    /// The client's address, canonical.
    pub address: IpAddr,
    /// The method, printable ASCII, at most [`MAX_METHOD`] bytes.
    pub method: String,
    /// The path without query, printable ASCII, at most [`MAX_PATH`] bytes.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// What the guard said.
    pub verdict: RecordVerdict,
    /// Whether the whole path, before any cut, was a sensitive one.
    pub sensitive: bool,
    /// Who asked, if that was known; at most [`MAX_IDENTITY`] bytes.
    pub identity: Option<String>,
    /// The user agent as sent, printable ASCII, at most [`MAX_USER_AGENT`] bytes.
    pub user_agent: Option<String>,
    /// The reference that the answer carried.
    pub reference: Reference,
}

/// One answered request as the guard has it at hand: borrowed, and exactly as it was received.
///
/// [`RecordRef::encode`] makes the text safe on the way; no field needs to be prepared.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// When the request arrived: microseconds since the Unix epoch, UTC.
    pub at: i64,
    /// The client's address.
    pub address: IpAddr,
    /// The method as received.
    pub method: &'a [u8],
    /// The request target as received; a query or fragment is left out.
    pub path: &'a [u8],
    /// The status of the answer.
    pub status: u16,
    /// What the guard said.
    pub verdict: RecordVerdict,
    /// Whether the whole path is a sensitive one.
    pub sensitive: bool,
    /// Who asked, if that is known.
    pub identity: Option<&'a str>,
    /// The user agent as received.
    pub user_agent: Option<&'a [u8]>,
    /// The reference that the answer carries.
    pub reference: Reference,
}

impl From<&RecordRef<'_>> for Record {
    /// The record that encoding and decoding gives back.
    fn from(record: &RecordRef<'_>) -> Record {
        Record {
            at: record.at,
            address: record.address.to_canonical(),
            method: escape_method(record.method),
            path: escape_path(record.path),
            status: record.status,
            verdict: record.verdict,
            sensitive: record.sensitive,
            identity: record.identity.map(escape_identity),
            user_agent: record.user_agent.map(escape_user_agent),
            reference: record.reference,
        }
    }
}

/// What the guard said about a recorded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordVerdict {
    /// It reached the handler.
    Allowed,
    /// The blocklist refused it with 403.
    Blocked,
    /// A quota refused it with 429.
    Throttled,
}

impl RecordVerdict {
    /// Every verdict.
    pub const ALL: [RecordVerdict; 3] =
        [RecordVerdict::Allowed, RecordVerdict::Blocked, RecordVerdict::Throttled];

    /// The word that stands in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordVerdict::Allowed => "allowed",
            RecordVerdict::Blocked => "blocked",
            RecordVerdict::Throttled => "throttled",
        }
    }
}

impl fmt::Display for RecordVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RecordVerdict {
    type Err = UnknownVerdict;

    fn from_str(word: &str) -> Result<RecordVerdict, UnknownVerdict> {
        RecordVerdict::ALL
            .into_iter()
            .find(|verdict| verdict.as_str() == word)
            .ok_or_else(|| UnknownVerdict(word.to_owned()))
    }
}

/// A word that is none of the three verdicts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a verdict: it is one of allowed, blocked, throttled")]
pub struct UnknownVerdict(pub String);

#[cfg(test)]
mod tests;
