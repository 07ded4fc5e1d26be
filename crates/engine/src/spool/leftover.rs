//! What a former process left behind: every segment of it is complete, one way or the other.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::frame::{self, HEAD, MAX_FRAME, Parsed, Seed};
use super::segment::{FIRST, Header, seal_file};

/// A file of a former process.
#[derive(Debug)]
pub(super) enum Leftover {
    /// A segment with something to read, or with damage that the reader will find.
    Segment(Header, u64 /* bytes */),
    /// A segment that never got a record.
    Empty,
    /// A file that does not begin like a segment of its name.
    Foreign,
}

/// Looks at a file named like a segment, and seals it if its writer could not.
pub(super) fn take_over(path: &Path) -> io::Result<Leftover> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let mut header = [0; FIRST as usize];
    if size < FIRST {
        return Ok(Leftover::Foreign);
    }
    file.read_exact_at(&mut header, 0)?;
    let Some(header) = Header::from_bytes(&header) else { return Ok(Leftover::Foreign) };
    if path.file_stem().and_then(|stem| stem.to_str()) != Some(&header.id.to_string()) {
        return Ok(Leftover::Foreign);
    }
    let seed = Seed::of(header.id);
    if size == FIRST + HEAD as u64 && is_sealed(&file, seed, size)? {
        return Ok(Leftover::Empty);
    }
    if is_sealed(&file, seed, size)? {
        return Ok(Leftover::Segment(header, size));
    }
    match end_of_frames(&fs::read(path)?, seed) {
        Some(FIRST) => Ok(Leftover::Empty),
        Some(end) => Ok(Leftover::Segment(header, seal_file(&file, seed, end)?)),
        None => Ok(Leftover::Segment(header, size)),
    }
}

fn is_sealed(file: &File, seed: Seed, size: u64) -> io::Result<bool> {
    let Some(at) = size.checked_sub(HEAD as u64).filter(|&at| at >= FIRST) else {
        return Ok(false);
    };
    let mut last = [0; HEAD];
    file.read_exact_at(&mut last, at)?;
    Ok(last == frame::seal(seed, at))
}

/// Where the frames of an unsealed segment end. `None` if they do not end, as every killed writer
/// leaves them, before a length of zero with at most one unfinished frame behind it and room for a
/// seal, or before a seal with nothing behind it.
fn end_of_frames(bytes: &[u8], seed: Seed) -> Option<u64> {
    let mut at = FIRST as usize;
    loop {
        let rest = bytes.get(at..)?;
        match frame::parse(rest, seed, at as u64, rest.len() as u64) {
            Parsed::Body(body) => at += frame::size_of_body(body.len()),
            Parsed::Sealed => return is_zero(&rest[HEAD..]).then_some(at as u64),
            Parsed::Blank => {
                let whole = rest.len() >= HEAD
                    && is_zero(rest.get(MAX_FRAME..).unwrap_or_default())
                    && frame::find(rest, seed, at as u64, MAX_FRAME).is_none();
                return whole.then_some(at as u64);
            }
            Parsed::Short | Parsed::Torn => return None,
        }
    }
}

/// Most of a segment is, so all bits of a piece are put together before they are looked at.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|piece| piece.iter().fold(0, |bits, byte| bits | byte) == 0)
}
