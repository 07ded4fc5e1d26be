//! The request log's way to the disk: a record is here before its answer leaves, whatever happens next.
//!
//! Every worker appends to a segment of its own, mapped into memory, and nobody is woken for it; the
//! recorder comes and looks. What was appended is in the kernel's hands, so a killed process loses nothing; with
//! [`Durability::Power`] it is on the disk a few milliseconds later.
//!
//! A request is never stopped, and never waits for the disk: what cannot be kept is counted. The
//! spool is bounded, and past its bound the oldest segment goes first.
//!
//! # On disk
//!
//! `spool/` in the data directory holds `lock`, a file per segment named by the segment's random id, and
//! `damaged/` for those that could not be read to their end. A segment is a header of 64 bytes and then
//! frames; a position is the offset of a frame in its file, and stays true for as long as the segment
//! exists. Who reads keeps the positions; the spool knows no database.
//!
//! A frame is checksum, length, body, padded to four bytes. The checksum and the body are written
//! before the length, so a length is a promise that the frame is whole. Length 0 is where the next
//! frame will be; [`u32::MAX`] seals the segment.

mod aside;
mod care;
mod catalog;
mod eviction;
mod frame;
mod leftover;
mod map;
mod reader;
mod segment;
mod upkeep;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::catalog::Inner;
pub use self::catalog::SegmentView;
pub use self::frame::Draft;
pub use self::reader::{Damage, Read, ReadEnd};
pub use self::segment::{SegmentId, SegmentIdError};
pub use self::writer::SpoolWriter;

/// How much the spool may hold, and what it survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// The bytes on disk past which the oldest segment goes. The segments being written, and one
    /// that is kept ready, have their place even if this is less.
    pub max_bytes: u64,
    /// The bytes of a segment, at least [`SpoolOptions::MIN_SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// What a record survives once it was appended.
    pub durability: Durability,
    /// How long a damaged segment that was set aside stays: there are records in it, too.
    pub keep_damaged: Duration,
}

impl SpoolOptions {
    /// A smaller segment would not hold the longest record.
    pub const MIN_SEGMENT_BYTES: u64 = 8 << 10;
    const MAX_SEGMENT_BYTES: u64 = 1 << 30;
}

impl Default for SpoolOptions {
    /// 1 GiB (an hour at a thousand requests a second) in segments of 4 MiB, damaged ones for 30 days.
    fn default() -> SpoolOptions {
        SpoolOptions {
            max_bytes: 1 << 30,
            segment_bytes: 4 << 20,
            durability: Durability::Process,
            keep_damaged: Duration::from_hours(30 * 24),
        }
    }
}

/// What an appended record survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, however sudden.
    Process,
    /// The end of the power as well. Appends are synced in batches by a thread of the spool's, every
    /// 10 ms: the answers of the last such batch may have left before their records were safe.
    Power,
}

/// The request log's segments on the disk of this machine. Clones share them.
///
/// The directory stays locked until the last clone and the last writer are gone.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
}

/// Ends the upkeep thread, and then the lock, when nobody is left who could append or read.
#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
    upkeep: Option<JoinHandle<()>>,
}

/// The file in the directory that says whose it is.
const LOCK: &str = "lock";

/// Why the spool could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process works in this directory.
    #[error(
        "{} is in use by {}: every process needs a data directory of its own",
        path.display(),
        owner.as_ref().map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Taken {
        /// The locked directory.
        path: PathBuf,
        /// The process that holds it, if it said so.
        owner: Option<u32>,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The segment is not there (any more): removed, or evicted because the spool was full.
    #[error("the spool has no segment {0}")]
    Gone(SegmentId),
    /// The segment is still being written.
    #[error("segment {0} is still being written")]
    StillOpen(SegmentId),
}

impl SpoolError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
        move |source| SpoolError::Io { action, path: path.to_owned(), source }
    }
}

/// How the spool is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStatus {
    /// Bytes on disk, damaged segments and those made ahead included.
    pub bytes: u64,
    /// Segments that the reader has not removed.
    pub segments: usize,
    /// Records that were never written, because the disk was full or failed, since the start.
    pub dropped: u64,
    /// Records that went with the oldest segment because the spool was full, since the start. Those
    /// that were being shipped in that very moment count, too.
    pub evicted: u64,
    /// Segments that were set aside since the start.
    pub damaged: u64,
    /// Segments that somebody removed before they were read, since the start.
    pub missing: u64,
    /// Why the disk refuses new segments right now, if it does.
    pub stalled: Option<io::ErrorKind>,
    /// When the oldest record was made that the reader has not passed: microseconds since the Unix epoch.
    pub oldest: Option<i64>,
}

impl Spool {
    /// Opens the spool in `spool/` of a data directory, both made if need be, and locks it.
    ///
    /// What a former process left there is ready to be read, complete.
    pub fn open(data_dir: &Path, options: SpoolOptions) -> Result<Spool, SpoolError> {
        let dir = data_dir.join("spool");
        make_private_dir(&dir).map_err(SpoolError::io("create", &dir))?;
        let lock = lock(&dir)?;
        let segment_bytes = options
            .segment_bytes
            .clamp(SpoolOptions::MIN_SEGMENT_BYTES, SpoolOptions::MAX_SEGMENT_BYTES);
        let inner = Arc::new(Inner::open(dir, lock, SpoolOptions { segment_bytes, ..options })?);
        let upkeep = upkeep::start(Arc::clone(&inner))
            .map_err(SpoolError::io("start the upkeep thread of", &inner.dir))?;
        Ok(Spool { shared: Arc::new(Shared { inner, upkeep: Some(upkeep) }) })
    }

    /// A writer with a segment of its own; each worker thread has one.
    pub fn writer(&self) -> SpoolWriter {
        SpoolWriter::new(Arc::clone(&self.shared))
    }

    /// The segments that there are, oldest first.
    pub fn segments(&self) -> Vec<SegmentView> {
        self.shared.inner.segments()
    }

    /// Appends to `records` at most `max` records of a segment, from a position on; position 0 is its start.
    ///
    /// Reading from a position tells the spool that what lies before it is needed no more. An open
    /// segment with nothing new costs one look at eight bytes.
    pub fn read(
        &self,
        segment: SegmentId,
        from: u64,
        max: usize,
        records: &mut Vec<crate::record::Record>,
    ) -> Result<Read, SpoolError> {
        self.shared.inner.read(segment, from, max, records)
    }

    /// Removes a segment that was read to its end. One that is gone already is no error.
    pub fn remove(&self, segment: SegmentId) -> Result<(), SpoolError> {
        self.shared.inner.remove(segment)
    }

    /// Moves a damaged segment out of the way, to `damaged/`, under a name that tells the position of
    /// the damage; answers where it is now.
    pub fn set_aside(&self, segment: SegmentId, at: u64) -> Result<PathBuf, SpoolError> {
        self.shared.inner.set_aside(segment, at)
    }

    /// Has every writer go on in another segment. Returns the segments that hold what was appended before:
    /// once each of them was read and removed, it is not on this disk any more.
    ///
    /// `None` while the disk has no room for other segments: then nothing was done.
    pub fn turn_over(&self) -> Option<Vec<SegmentId>> {
        self.shared.inner.turn_over_all()
    }

    /// Removes the segments that were set aside, whose records nobody can tell.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; what could not be removed is still there.
    pub fn remove_damaged(&self) -> Result<(), SpoolError> {
        self.shared.inner.remove_damaged()
    }

    /// How the spool is doing. Reads a record of each segment that has moved since the last time.
    pub fn status(&self) -> SpoolStatus {
        self.shared.inner.status()
    }

    /// The directory of the segments.
    pub fn dir(&self) -> &Path {
        &self.shared.inner.dir
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.stop();
        if let Some(upkeep) = self.upkeep.take() {
            // It can only have panicked, and then it has said so.
            let _ = upkeep.join();
        }
    }
}

/// Records are personal data: nobody else on the machine may read them.
fn make_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn lock(dir: &Path) -> Result<std::fs::File, SpoolError> {
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::OpenOptionsExt;

    let path = dir.join(LOCK);
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(SpoolError::io("open", &path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let owner = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(SpoolError::Taken { path: dir.to_owned(), owner });
        }
        Err(error) => return Err(SpoolError::io("lock", &path)(error.into())),
    }
    // The number only makes a later refusal more helpful; a full disk must not keep us from starting.
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

#[cfg(test)]
mod tests;
