//! One file of the spool, from the moment it is made until it is sealed. How a frame reaches the file
//! is known only here and in `map.rs`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::frame::{self, HEAD, Seed};
use super::map::Map;

/// The first frame's position, in bytes.
pub(super) const FIRST: u64 = 64;

const MAGIC: &[u8; 8] = b"IPWSPOOL";
const VERSION: u32 = 1;

/// The unit in which the kernel copies a write: within one, a killed process leaves all or nothing.
const PAGE: u64 = 4096;

/// Names a segment for good: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId([u8; 16]);

impl SegmentId {
    fn random() -> io::Result<SegmentId> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(SegmentId(bytes))
    }

    /// The id with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> SegmentId {
        SegmentId(bytes)
    }

    /// The 16 bytes of this id.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentId({self})")
    }
}

impl FromStr for SegmentId {
    type Err = SegmentIdError;

    fn from_str(text: &str) -> Result<SegmentId, SegmentIdError> {
        let hexadecimal = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(|bits| SegmentId(bits.to_be_bytes()))
            .ok_or(SegmentIdError)
    }
}

/// A text that is no segment's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a segment's id is 32 hexadecimal digits")]
pub struct SegmentIdError;

/// A segment that this process writes.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Its bytes in memory, where its file system can do that.
    map: Option<Map>,
    pub(super) seed: Seed,
    /// Its bytes on disk until it is sealed.
    pub(super) size: u64,
    /// The position behind the last frame; what is before it was handed to the kernel.
    written: AtomicU64,
    hold: AtomicU8,
}

/// Nobody writes to it in this moment.
const IDLE: u8 = 0;
/// Its writer does.
const CLAIMED: u8 = 1;
/// Nobody will any more.
const RETIRED: u8 = 2;

impl Segment {
    /// Makes a segment with its space reserved, so that no later write finds the disk full.
    pub(super) fn create(dir: &Path, size: u64) -> io::Result<Segment> {
        let id = SegmentId::random()?;
        let unfinished = dir.join(format!("{id}.tmp"));
        let path = path_of(dir, id);
        let made = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|file| {
                allocate(&file, size)?;
                file.write_all_at(&Header { id, created: 0 }.to_bytes(), 0)?;
                fs::rename(&unfinished, &path)?;
                Ok(file)
            });
        match made {
            Ok(file) => Ok(Segment {
                id,
                path,
                map: mapped(&file),
                file,
                seed: Seed::of(id),
                size,
                written: AtomicU64::new(FIRST),
                hold: AtomicU8::new(IDLE),
            }),
            Err(error) => {
                // There may be nothing to remove; the error that counts is the first.
                let _ = fs::remove_file(&unfinished);
                Err(error)
            }
        }
    }

    /// As on a file system that maps no files.
    #[cfg(test)]
    pub(super) fn unmapped(self) -> Segment {
        Segment { map: None, ..self }
    }

    /// Says anew when the segment was made; only before its first record.
    pub(super) fn date(&self, created: i64) -> io::Result<()> {
        self.file.write_all_at(&Header { id: self.id, created }.to_bytes(), 0)
    }

    /// The position behind the last frame.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Takes it for one frame of this size, until [`Segment::release`]. `false` if the frame and a seal
    /// behind it do not fit, or if the segment was retired.
    pub(super) fn claim(&self, size: usize) -> bool {
        let taken = self.hold.compare_exchange(IDLE, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_err() {
            return false;
        }
        let fits = self.written() + size as u64 + HEAD as u64 <= self.size;
        if !fits {
            self.release();
        }
        fits
    }

    /// Lets it go after a frame.
    pub(super) fn release(&self) {
        self.hold.store(IDLE, Ordering::Release);
    }

    /// Takes it for good: nobody writes to it afterwards, and whoever succeeds with this seals it.
    /// `false` while it is being written to, and if somebody else was first.
    pub(super) fn retire(&self) -> bool {
        self.hold.compare_exchange(IDLE, RETIRED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether its name still leads to it; its records can be read without, but not by a later process.
    pub(super) fn is_named(&self) -> bool {
        is_named(&self.file, &self.path)
    }

    /// Puts a closed frame at `at`, its length last; only between [`Segment::claim`] and
    /// [`Segment::release`].
    pub(super) fn put(&self, at: u64, frame: &[u8]) -> io::Result<()> {
        let end = at + frame.len() as u64;
        match self.map.as_ref().filter(|map| map.reaches(end)) {
            Some(map) => map.put(at, frame),
            None => write(&self.file, at, frame)?,
        }
        self.written.store(end, Ordering::Release);
        Ok(())
    }

    /// Ends the segment behind its last frame and gives back the space that it did not need.
    pub(super) fn seal(&self) -> io::Result<u64> {
        seal_file(&self.file, self.seed, self.written())
    }
}

/// Maps a new segment, and makes the part of it present that is used first, since whoever makes segments
/// has more time than whoever writes to them.
fn mapped(file: &File) -> Option<Map> {
    let map = Map::of(file).ok()?;
    map.reaches(FIRST);
    Some(map)
}

/// Puts a closed frame into a file that is not mapped.
///
/// A write within a page is done or not done when the process is killed, so one call is enough for it;
/// a frame that crosses into the next page takes two.
fn write(file: &File, at: u64, frame: &[u8]) -> io::Result<()> {
    let end = at + frame.len() as u64;
    if at / PAGE == (end - 1) / PAGE {
        return file.write_all_at(frame, at);
    }
    file.write_all_at(&frame[HEAD..], at + HEAD as u64)?;
    file.write_all_at(&frame[..HEAD], at)
}

/// Writes the seal at `at` and makes it the last bytes of the file, whose new size is the answer.
pub(super) fn seal_file(file: &File, seed: Seed, at: u64) -> io::Result<u64> {
    let end = at + HEAD as u64;
    file.write_all_at(&frame::seal(seed, at), at)?;
    file.set_len(end)?;
    Ok(end)
}

/// Whether this name leads to this open file.
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
        (Err(_), _) => true,
    }
}

/// Where a segment lies.
pub(super) fn path_of(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.segment"))
}

/// What a segment says of itself in its first bytes: magic, version, id, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: SegmentId,
    /// When it was taken into use: microseconds since the Unix epoch, UTC, but later than every
    /// segment that was there before.
    pub(super) created: i64,
}

impl Header {
    fn to_bytes(self) -> [u8; FIRST as usize] {
        let mut bytes = [0; FIRST as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.id.to_bytes());
        bytes[32..40].copy_from_slice(&self.created.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header in these bytes; `None` if they are none, or of a version that is not known here.
    pub(super) fn from_bytes(bytes: &[u8; FIRST as usize]) -> Option<Header> {
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..32]);
        let mut created = [0; 8];
        created.copy_from_slice(&bytes[32..40]);
        let header = Header { id: SegmentId(id), created: i64::from_le_bytes(created) };
        (header.to_bytes() == *bytes).then_some(header)
    }
}

/// Reserves the blocks of a file. Where the file system cannot, zeros are written, which reserves
/// them as well.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            let zeros = vec![0; 64 << 10];
            let mut at = 0;
            while at < size {
                let step = zeros.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
                file.write_all_at(&zeros[..step], at)?;
                at += step as u64;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
