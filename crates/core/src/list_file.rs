//! Reads lists of networks as people and programs write them: one a line, CSV, JSON.
//!
//! Promises: whatever the bytes are, an entry that cannot be read is told with its line, and then
//! nothing of the list is taken. A list of any size is read in one piece, up to [`MOST_BYTES`].
//!
//! Does not guess: host names are not looked up, ranges such as `192.0.2.1-192.0.2.9` are not
//! unfolded, and who put an entry on somebody else's list is not believed.

mod csv;
mod json;
mod plain;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read};

use chrono::{DateTime, NaiveDateTime, Utc};
use ipwarden_engine::network::Network;

use crate::lists::Item;

/// The most that a list may have.
pub const MOST_BYTES: u64 = 256 << 20;

/// The most wrong entries that are told one by one.
const TOLD: usize = 10;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One network a line; what stands behind `#` or `;` is a remark.
    Plain,
    /// A header that names a column `network`, `ip`, .., or the network in the first field.
    Csv,
    /// An array, or one value a line, of texts or of objects with such a field.
    Json,
}

/// Why a list was not read.
#[derive(Debug, thiserror::Error)]
pub enum ListFileError {
    /// It cannot be read at all.
    #[error(transparent)]
    Source(#[from] io::Error),
    /// It is too long.
    #[error("it is longer than {} MiB", MOST_BYTES >> 20)]
    TooLong,
    /// These entries are wrong.
    #[error("{0}")]
    Wrong(Wrong),
    /// Its form is wrong.
    #[error("line {line}: {what}")]
    Form {
        /// Counted from 1.
        line: u64,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// Entries that cannot be read.
#[derive(Debug, Default)]
pub struct Wrong {
    told: Vec<String>,
    more: usize,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told.join("\n"))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// Reads a whole list; without a format, the one that it is seen to have.
///
/// # Errors
/// [`ListFileError`] with the lines.
pub fn read(source: impl Read, format: Option<Format>) -> Result<Vec<Item>, ListFileError> {
    let mut bytes = Vec::new();
    source.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(ListFileError::TooLong);
    }
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}');
    let mut reading = Reading::default();
    match format.unwrap_or_else(|| recognise(text)) {
        Format::Plain => plain::read(text, &mut reading),
        Format::Csv => csv::read(text, &mut reading)?,
        Format::Json => json::read(text, &mut reading)?,
    }
    reading.finish()
}

/// By its first line that says something.
fn recognise(text: &str) -> Format {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let Some(first) = first else { return Format::Plain };
    // An IPv6 address in brackets is no entry of any format.
    if first.starts_with(['[', '{']) {
        return Format::Json;
    }
    // A remark may hold commas.
    let entry = first.split(['#', ';']).next().unwrap_or(first);
    match entry.contains(',') || csv::is_header(entry) {
        true => Format::Csv,
        false => Format::Plain,
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    items: Vec<Item>,
    wrong: Wrong,
}

impl Reading {
    /// An entry as it stands there.
    fn take(&mut self, line: u64, network: &str, reason: Option<&str>, ends: Option<&str>) {
        let ends = match ends.map(str::trim).filter(|ends| !ends.is_empty()).map(instant) {
            None => None,
            Some(Ok(ends)) => Some(ends),
            Some(Err(why)) => return self.refuse(line, &why),
        };
        match Network::parse(network.trim()) {
            Ok(target) => {
                let reason = reason.map(words).filter(|reason| !reason.is_empty());
                self.items.push(Item { target, reason, ends });
            }
            Err(error) => self.refuse(line, &error),
        }
    }

    fn refuse(&mut self, line: u64, why: &dyn fmt::Display) {
        match self.wrong.told.len() {
            TOLD => self.wrong.more += 1,
            _ => self.wrong.told.push(format!("line {line}: {why}")),
        }
    }

    fn finish(self) -> Result<Vec<Item>, ListFileError> {
        match self.wrong.told.is_empty() {
            true => Ok(self.items),
            false => Err(ListFileError::Wrong(self.wrong)),
        }
    }
}

/// A reason of strangers in one line, at most as long as one of our own.
fn words(text: &str) -> String {
    const LONGEST: usize = 1_000;
    let mut words: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if words.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
        words.truncate(end);
    }
    words
}

/// RFC 3339, or what databases write for it, which is UTC.
fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|at| at.and_utc())
        .ok_or_else(|| {
            let quoted: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            format!("`{quoted}` is no end; write a time such as 2026-11-22T17:00:00Z")
        })
}
