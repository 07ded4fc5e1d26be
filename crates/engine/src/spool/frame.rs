//! The frame around each record: how it is put together, and what a reader makes of bytes.

use super::segment::SegmentId;
use crate::record::{self, MAX_BODY, RecordRef, RecordVerdict};

/// Checksum and length in front of a body, in bytes. A seal is a head without a body.
pub(super) const HEAD: usize = 8;

/// No frame that this version writes is longer, in bytes.
pub(super) const MAX_FRAME: usize = size_of_body(MAX_BODY);

const SEAL: u32 = u32::MAX;

/// What every checksum of a segment starts from, so that bytes of another segment, or of another
/// place in this one, are never taken for a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn of(segment: SegmentId) -> Seed {
        Seed(crc32fast::hash(&segment.to_bytes()))
    }

    fn checksum(self, at: u64, length_and_body: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0 ^ (at ^ (at >> 32)) as u32);
        hasher.update(length_and_body);
        hasher.finalize()
    }
}

/// The bytes that a frame with a body of this length takes.
pub(super) const fn size_of_body(length: usize) -> usize {
    (HEAD + length).next_multiple_of(4)
}

/// A record as the frame that it will be, but for its checksum, which its place decides.
///
/// It holds all that will be kept of a request while that is being decided and answered.
#[derive(Debug)]
pub struct Draft {
    /// Padded to its final size.
    bytes: Vec<u8>,
    /// Of the body.
    length: usize,
}

impl Draft {
    /// Puts a record together.
    pub fn of(record: &RecordRef<'_>) -> Draft {
        let mut bytes = Vec::with_capacity(size_of_body(record.expected_length()));
        bytes.extend([0; HEAD]);
        record.encode(&mut bytes);
        let length = bytes.len() - HEAD;
        bytes.resize(size_of_body(length), 0);
        let word = u32::try_from(length).expect("a record is far below 4 GiB");
        bytes[4..HEAD].copy_from_slice(&word.to_le_bytes());
        Draft { bytes, length }
    }

    /// Says what was answered.
    pub fn set_status(&mut self, status: u16) {
        record::set_status(&mut self.bytes[HEAD..], status);
    }

    /// Says what the guard said.
    pub fn set_verdict(&mut self, verdict: RecordVerdict) {
        record::set_verdict(&mut self.bytes[HEAD..], verdict);
    }

    /// What the guard said.
    pub fn verdict(&self) -> RecordVerdict {
        record::verdict(&self.bytes[HEAD..])
    }

    /// What it will take of a segment, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The whole frame, as it will stand at `at`.
    pub(super) fn close(&mut self, seed: Seed, at: u64) -> &[u8] {
        let checksum = seed.checksum(at, &self.bytes[4..HEAD + self.length]);
        self.bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        &self.bytes
    }
}

/// The frame that ends a segment at `at`.
pub(super) fn seal(seed: Seed, at: u64) -> [u8; HEAD] {
    let mut frame = [0; HEAD];
    frame[4..].copy_from_slice(&SEAL.to_le_bytes());
    frame[..4].copy_from_slice(&seed.checksum(at, &SEAL.to_le_bytes()).to_le_bytes());
    frame
}

/// What stands at a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A whole frame, with its body.
    Body(&'a [u8]),
    /// Nothing was written here yet.
    Blank,
    /// The segment ends here, complete.
    Sealed,
    /// A frame may stand here, but the bytes at hand end within it.
    Short,
    /// Bytes that are no frame (yet).
    Torn,
}

/// Looks at the start of `bytes`, which stand at `at` in a segment that has `room` bytes from there on.
pub(super) fn parse(bytes: &[u8], seed: Seed, at: u64, room: u64) -> Parsed<'_> {
    if room < HEAD as u64 {
        return Parsed::Blank;
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Parsed::Short };
    let [c0, c1, c2, c3, l0, l1, l2, l3] = *head;
    let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length == 0 {
        return Parsed::Blank;
    }
    if length == SEAL {
        return if *head == seal(seed, at) { Parsed::Sealed } else { Parsed::Torn };
    }
    if u64::from(length) > room - HEAD as u64 {
        return Parsed::Torn;
    }
    let Some(body) = rest.get(..length as usize) else { return Parsed::Short };
    if seed.checksum(at, &bytes[4..HEAD + body.len()]) == checksum {
        Parsed::Body(body)
    } else {
        Parsed::Torn
    }
}

/// Where, within `reach` bytes behind the start of `bytes`, which stand at `at`, the next whole frame (or
/// the seal) stands.
pub(super) fn find(bytes: &[u8], seed: Seed, at: u64, reach: usize) -> Option<u64> {
    (4..bytes.len().min(reach)).step_by(4).find_map(|offset| {
        let (rest, at) = (&bytes[offset..], at + offset as u64);
        let room = (rest.len() as u64).min(MAX_FRAME as u64);
        match parse(rest, seed, at, room) {
            Parsed::Body(_) | Parsed::Sealed => Some(at),
            Parsed::Blank | Parsed::Short | Parsed::Torn => None,
        }
    })
}
