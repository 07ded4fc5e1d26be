//! The lines of a file, plain or gzip, with a running digest of the bytes behind them.
//!
//! Memory is bounded whatever the file holds: a line longer than [`MAX_LINE_BYTES`] is passed over.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Longer lines are reported and not kept.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;

const BUFFER_BYTES: usize = 256 * 1024;

/// How far a file was read: its uncompressed bytes up to there, and the lines they hold.
///
/// Two files with the same mark are the same up to that mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Uncompressed bytes.
    pub length: u64,
    /// SHA-256 of those bytes.
    pub digest: [u8; 32],
    /// Lines within those bytes; the last may lack its line break.
    pub lines: u64,
}

/// A line without its line break.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RawLine<'a> {
    Whole(&'a [u8]),
    /// The file ended before the line did.
    Torn(&'a [u8]),
    TooLong,
}

/// Reads lines one by one into a buffer of its own.
pub(super) struct Lines<'r> {
    source: BufReader<Box<dyn Read + Send + 'r>>,
    line: Vec<u8>,
    length: u64,
    digest: Sha256,
    number: u64,
    /// Whether the file may still grow.
    growing: bool,
    /// The buffer holds the beginning of a line whose rest is to come.
    begun: bool,
}

impl<'r> Lines<'r> {
    /// Starts at the beginning of a source and tells from its first bytes whether it is gzip.
    pub(super) fn new(source: impl Read + Send + 'r) -> io::Result<Lines<'r>> {
        let source = BufReader::with_capacity(BUFFER_BYTES, uncompressed(source)?);
        let digest = Sha256::new();
        let line = Vec::new();
        Ok(Lines { source, line, length: 0, digest, number: 0, growing: false, begun: false })
    }

    /// From here on a line without its line break is kept until the rest of it is there.
    pub(super) fn grow(&mut self) {
        self.growing = true;
    }

    /// The number of the line that [`Lines::next`] gave last, counted from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Everything that was read so far, except a torn line that was not [taken](Lines::take_torn).
    pub(super) fn mark(&self) -> Mark {
        let digest = self.digest.clone().finalize().into();
        Mark { length: self.length, digest, lines: self.number }
    }

    /// Reads the next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        if !std::mem::take(&mut self.begun) {
            self.line.clear();
        }
        let begun = self.line.len();
        if self.read_piece()? == 0 {
            self.begun = begun > 0;
            return Ok(None);
        }
        if self.growing && self.line.last() != Some(&b'\n') && self.line.len() <= MAX_LINE_BYTES {
            self.begun = true;
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') {
            if self.line.len() <= MAX_LINE_BYTES {
                return Ok(Some(RawLine::Torn(trim(&self.line))));
            }
            self.pass_over()?;
            self.number += 1;
            return Ok(Some(RawLine::TooLong));
        }
        self.count();
        self.number += 1;
        Ok(Some(RawLine::Whole(trim(&self.line))))
    }

    /// Counts the torn line that [`Lines::next`] gave as read.
    pub(super) fn take_torn(&mut self) {
        self.count();
        self.number += 1;
        self.line.clear();
    }

    /// Passes over what is known to be read already, and over the rest of a line that was torn then.
    ///
    /// Returns whether the bytes up to the mark are those of the mark.
    pub(super) fn skip_to(&mut self, mark: &Mark) -> io::Result<bool> {
        if !self.advance(mark.length)? || self.mark().digest != mark.digest {
            return Ok(false);
        }
        self.number = mark.lines;
        let was_torn = self.line.last().is_some_and(|byte| *byte != b'\n');
        self.line.clear();
        if was_torn {
            self.pass_over()?;
        }
        Ok(true)
    }

    /// Reads without looking at lines, up to `length` bytes from the beginning; false if there are
    /// fewer.
    fn advance(&mut self, length: u64) -> io::Result<bool> {
        while self.length < length {
            self.line.clear();
            let wanted = (length - self.length).min(BUFFER_BYTES as u64);
            if (&mut self.source).take(wanted).read_to_end(&mut self.line)? == 0 {
                return Ok(false);
            }
            self.count();
        }
        Ok(true)
    }

    /// Reads up to the end of the line or to one byte past the bound, whichever comes first.
    fn read_piece(&mut self) -> io::Result<usize> {
        (&mut self.source).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut self.line)
    }

    /// Counts what the buffer holds and everything up to the end of its line, keeping nothing.
    fn pass_over(&mut self) -> io::Result<()> {
        loop {
            self.count();
            let ended = self.line.last() == Some(&b'\n');
            self.line.clear();
            if ended || self.read_piece()? == 0 {
                return Ok(());
            }
        }
    }

    fn count(&mut self) {
        self.digest.update(&self.line);
        self.length += self.line.len() as u64;
    }
}

/// Finds the longest of the `known` marks that a source agrees with, reading no further than needed.
///
/// A source that cannot be read to its end agrees with marks before that place only.
pub(super) fn longest_known(
    source: impl Read + Send,
    mut known: Vec<Mark>,
) -> io::Result<Option<Mark>> {
    known.sort_unstable_by_key(|mark| mark.length);
    let mut lines = Lines::new(source)?;
    let mut longest = None;
    for mark in known {
        match lines.advance(mark.length) {
            Ok(true) if lines.mark().digest == mark.digest => longest = Some(mark),
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    Ok(longest)
}

fn uncompressed<'r>(mut source: impl Read + Send + 'r) -> io::Result<Box<dyn Read + Send + 'r>> {
    let mut magic = Vec::with_capacity(2);
    (&mut source).take(2).read_to_end(&mut magic)?;
    let is_gzip = magic == [0x1f, 0x8b];
    let whole = Cursor::new(magic).chain(source);
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

fn trim(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
