//! Reads access logs of other servers, combined or common format, plain or gzip, into records.
//!
//! Promises: no bytes in a file stop it or make it panic; a line that cannot be read says why and
//! the next one follows; a request that is no HTTP at all (a TLS handshake on a plain port) is
//! still a record of its address, with the method `-`. Memory is bounded by the longest line that
//! is kept, 64 KiB.
//!
//! Does not look up host names (a line that begins with one is unreadable), does not keep sizes,
//! referers or queries, and does not know a database: what was read before is a [`Mark`].

mod date;
mod line;
mod lines;

use std::io::{self, Read};

use ipwarden_engine::record::{
    Record, RecordVerdict, Reference, escape_identity, escape_method, escape_path,
    escape_user_agent,
};
use ipwarden_engine::sensitive_path::SensitivePaths;

pub use self::line::Unreadable;
pub use self::lines::Mark;
use self::lines::{Lines, RawLine};

/// A line that is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {reason}: {excerpt}")]
pub struct LineError {
    /// Counted from 1, in the uncompressed file.
    pub line: u64,
    /// What is wrong with it.
    pub reason: Unreadable,
    /// Its beginning, printable ASCII.
    pub excerpt: String,
}

/// A file that is being read.
pub struct AccessLog<'r> {
    lines: Lines<'r>,
    sensitive: &'r SensitivePaths,
}

/// Finds the longest of the `known` marks that a file begins with, so that only its new lines are read.
///
/// Reads the source once, up to the longest known length at most.
pub fn longest_known(source: impl Read + Send, known: Vec<Mark>) -> io::Result<Option<Mark>> {
    lines::longest_known(source, known)
}

impl<'r> AccessLog<'r> {
    /// Starts at the beginning of a file, which may be gzip.
    pub fn new(
        source: impl Read + Send + 'r,
        sensitive: &'r SensitivePaths,
    ) -> io::Result<AccessLog<'r>> {
        Ok(AccessLog { lines: Lines::new(source)?, sensitive })
    }

    /// Passes over lines that are known; false, with the file in an unknown place, if they are not
    /// those of the mark.
    ///
    /// The rest of a line that was torn at the mark is passed over with it: its record is known.
    pub fn skip_to(&mut self, mark: &Mark) -> io::Result<bool> {
        self.lines.skip_to(mark)
    }

    /// How far the file was read.
    ///
    /// A last line without a line break belongs to it if it is a record. If it is none, the server
    /// may still be writing it, and a later look at the file reads it again.
    pub fn mark(&self) -> Mark {
        self.lines.mark()
    }

    /// The next record, or what is wrong with the next line; `None` at the end of the file.
    ///
    /// Empty lines are nothing. An error of the source (a gzip file that was cut off) is its end.
    pub fn next_record(&mut self) -> io::Result<Option<Result<Record, LineError>>> {
        loop {
            let (parsed, torn) = match self.lines.next()? {
                None => return Ok(None),
                // A torn one is a line break of two bytes of which the second is not there yet.
                Some(RawLine::Whole(b"") | RawLine::Torn(b"")) => continue,
                Some(RawLine::TooLong) => (Err((Unreadable::TooLong, String::new())), false),
                Some(RawLine::Whole(bytes)) => (self::read(bytes, self.sensitive), false),
                Some(RawLine::Torn(bytes)) => (self::read(bytes, self.sensitive), true),
            };
            if torn && parsed.is_ok() {
                self.lines.take_torn();
            }
            let line = self.lines.number() + u64::from(torn && parsed.is_err());
            return Ok(Some(parsed.map_err(|(reason, excerpt)| LineError {
                line,
                reason,
                excerpt,
            })));
        }
    }
}

fn read(bytes: &[u8], sensitive: &SensitivePaths) -> Result<Record, (Unreadable, String)> {
    line::parse(bytes)
        .map(|line| record(&line, sensitive))
        .map_err(|reason| (reason, excerpt(bytes)))
}

fn record(line: &line::Line<'_>, sensitive: &SensitivePaths) -> Record {
    let (method, target) =
        line::method_and_target(&line.request).unwrap_or((b"-", garbage(&line.request)));
    let path = line::path_of(target);
    // With 401 the name is what somebody claimed to be.
    let user = line.user.as_deref().filter(|_| line.status != 401);
    Record {
        at: line.at,
        address: line.address,
        method: escape_method(method),
        path: escape_path(path),
        status: line.status,
        verdict: RecordVerdict::Allowed,
        sensitive: sensitive.matches(path),
        identity: user.map(|user| escape_identity(&String::from_utf8_lossy(user))),
        user_agent: line.user_agent.as_deref().map(escape_user_agent),
        reference: Reference::random(),
    }
}

/// Nothing was asked for, or something that is no HTTP.
fn garbage(request: &[u8]) -> &[u8] {
    if request.is_empty() { b"-" } else { request }
}

fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let dots = if bytes.len() > SHOWN { "..." } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}

#[cfg(test)]
mod tests;
