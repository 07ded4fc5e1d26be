//! Reads access logs of other servers, plain or gzip, into records: common and combined format, JSON as
//! nginx, Caddy and Traefik write it, and those of AWS's load balancers.
//!
//! Promises: no bytes in a file stop it or make it panic; a line that cannot be read says why and
//! the next one follows; a request that is no HTTP at all (a TLS handshake on a plain port) is
//! still a record of its address, with the method `-`. Memory is bounded by the longest line that
//! is kept, 64 KiB.
//!
//! Does not look up host names (a line that begins with one is unreadable), does not keep sizes,
//! referers or queries, and does not know a database: what was read before is a [`Mark`].

mod alb;
mod date;
mod json;
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
use crate::geo::Place;

/// How a server writes its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Common or combined: Apache, nginx, Traefik, and most others.
    Combined,
    /// One JSON object a line: nginx, Caddy, Traefik.
    Json,
    /// AWS's Application Load Balancer.
    Alb,
}

/// A request as a line tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The request.
    pub record: Record,
    /// Where it came from, if the line says so.
    pub place: Option<Place>,
}

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
    format: Option<Format>,
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
        Ok(AccessLog { lines: Lines::new(source)?, sensitive, format: None })
    }

    /// Has every line read in one format, whatever it looks like.
    #[must_use]
    pub fn written_as(self, format: Option<Format>) -> AccessLog<'r> {
        AccessLog { format, ..self }
    }

    /// Reads a file that still grows: a line without its line break is one that is being written, and
    /// after the end there may be more.
    #[must_use]
    pub fn growing(mut self) -> AccessLog<'r> {
        self.lines.grow();
        self
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
        Ok(self.next_told()?.map(|told| told.map(|told| told.record)))
    }

    /// As [`AccessLog::next_record`], with what the line says beyond that.
    pub fn next_told(&mut self) -> io::Result<Option<Result<Told, LineError>>> {
        let format = self.format;
        loop {
            let (parsed, torn) = match self.lines.next()? {
                None => return Ok(None),
                // A torn one is a line break of two bytes of which the second is not there yet.
                Some(RawLine::Whole(b"") | RawLine::Torn(b"")) => continue,
                Some(RawLine::TooLong) => (Err((Unreadable::TooLong, String::new())), false),
                Some(RawLine::Whole(bytes)) => (self::read(bytes, format, self.sensitive), false),
                Some(RawLine::Torn(bytes)) => (self::read(bytes, format, self.sensitive), true),
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

fn read(
    bytes: &[u8],
    format: Option<Format>,
    sensitive: &SensitivePaths,
) -> Result<Told, (Unreadable, String)> {
    let parsed = match format.unwrap_or_else(|| recognise(bytes)) {
        Format::Combined => line::parse(bytes).map(|line| (line, None)),
        Format::Json => json::parse(bytes),
        Format::Alb => alb::parse(bytes).map(|line| (line, None)),
    };
    parsed
        .map(|(line, place)| Told { record: record(&line, sensitive), place })
        .map_err(|reason| (reason, excerpt(bytes)))
}

/// Line by line: no line of one format is one of another.
fn recognise(line: &[u8]) -> Format {
    match line.trim_ascii_start().first() {
        Some(b'{') => Format::Json,
        _ if alb::is_one(line) => Format::Alb,
        _ => Format::Combined,
    }
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
