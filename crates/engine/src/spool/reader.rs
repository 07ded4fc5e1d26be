//! The side of the spool that the recorder stands on: it comes and looks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::SpoolError;
use super::catalog::{Inner, State};
use super::frame::{self, HEAD, MAX_FRAME, Parsed, Seed};
use super::segment::{FIRST, Segment, SegmentId};
use crate::record::{Record, RecordError};

/// How much is read from a file at once, in bytes.
const CHUNK: usize = 256 << 10;

/// How far a reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The position behind the last record that was read.
    pub next: u64,
    /// Why it stopped there.
    pub end: ReadEnd,
}

/// Why a reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// It has as many records as were asked for; there may be more.
    More,
    /// There is nothing more yet; a writer may still append.
    Open,
    /// The segment will never have another record behind this position. That is also the answer
    /// behind its end, where a former copy of it, which got more records, may have been read to.
    Sealed,
    /// What follows cannot be read.
    Damaged {
        /// The position of what cannot be read.
        at: u64,
        /// What is wrong with it.
        why: Damage,
        /// Where the next readable frame stands, if there is one.
        resume: Option<u64>,
    },
}

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The bytes are not what was written.
    #[error("the checksum does not match")]
    Checksum,
    /// The segment ends without a seal.
    #[error("the segment ends without a seal")]
    Unsealed,
    /// Somebody has added to the file.
    #[error("there are bytes behind the seal")]
    Behind,
    /// The bytes are what was written, but no record that this program knows.
    #[error("{0}")]
    Record(#[from] RecordError),
}

/// The file of a segment, and whether it may still grow.
enum Source {
    Open(Arc<Segment>),
    /// Complete, and its file still open.
    Held(Arc<Segment>),
    Sealed(Arc<File>),
}

impl Source {
    fn file(&self) -> &File {
        match self {
            Source::Open(segment) | Source::Held(segment) => &segment.file,
            Source::Sealed(file) => file,
        }
    }
}

impl Inner {
    pub(super) fn read(
        &self,
        id: SegmentId,
        from: u64,
        max: usize,
        records: &mut Vec<Record>,
    ) -> Result<Read, SpoolError> {
        let source = self.source(id, from)?;
        let mut chunk = self.chunk.lock();
        let mut reading = Reading { file: source.file(), seed: Seed::of(id), chunk: &mut chunk };
        let open = matches!(source, Source::Open(_));
        let (next, stop) = reading
            .run(from.max(FIRST), max, records)
            .and_then(
                |(next, stop)| if open { Ok((next, stop)) } else { reading.judge(next, stop) },
            )
            .map_err(SpoolError::io("read", &super::segment::path_of(&self.dir, id)))?;
        let damaged = |why, resume| ReadEnd::Damaged { at: next, why, resume };
        let end = match stop {
            Stop::Max => ReadEnd::More,
            Stop::Sealed => ReadEnd::Sealed,
            // A frame that is being written looks like this, too.
            Stop::Blank | Stop::Torn(_) | Stop::Beyond if open => ReadEnd::Open,
            Stop::Beyond => ReadEnd::Sealed,
            Stop::Blank => damaged(Damage::Unsealed, None),
            Stop::Behind => {
                let at = next + HEAD as u64;
                ReadEnd::Damaged { at, why: Damage::Behind, resume: None }
            }
            Stop::Torn(resume) => damaged(Damage::Checksum, resume),
            Stop::Undecodable(error, resume) => damaged(Damage::Record(error), Some(resume)),
        };
        Ok(Read { next, end })
    }

    /// Finds the file, and whether it was complete *before* anything is read from it.
    fn source(&self, id: SegmentId, from: u64) -> Result<Source, SpoolError> {
        let mut catalog = self.catalog.lock();
        let index = catalog.position(id).ok_or(SpoolError::Gone(id))?;
        let entry = &mut catalog.entries[index];
        entry.passed = entry.passed.max(from);
        match &entry.state {
            State::Open(segment) => return Ok(Source::Open(Arc::clone(segment))),
            State::Sealed(Some(segment)) => return Ok(Source::Held(Arc::clone(segment))),
            State::Sealed(None) => {}
        }
        let path = entry.path.clone();
        if let Some((reading, file)) = &catalog.reading
            && *reading == id
        {
            return Ok(Source::Sealed(Arc::clone(file)));
        }
        let file = Arc::new(File::open(&path).map_err(SpoolError::io("open", &path))?);
        catalog.reading = Some((id, Arc::clone(&file)));
        Ok(Source::Sealed(file))
    }
}

/// Why a walk along the frames stopped.
enum Stop {
    Max,
    Sealed,
    Blank,
    Beyond,
    Behind,
    Torn(Option<u64>),
    Undecodable(RecordError, u64),
}

struct Reading<'a> {
    file: &'a File,
    seed: Seed,
    chunk: &'a mut Vec<u8>,
}

impl Reading<'_> {
    fn run(&mut self, from: u64, max: usize, records: &mut Vec<Record>) -> io::Result<(u64, Stop)> {
        if self.is_blank(from)? {
            return Ok((from, Stop::Blank));
        }
        let size = self.file.metadata()?.len();
        if from > size {
            return Ok((from, Stop::Beyond));
        }
        let (mut at, mut start, mut whole) = (from, from, false);
        let step = CHUNK.min(max.saturating_mul(MAX_FRAME)).max(MAX_FRAME);
        fill(self.file, start, step, self.chunk)?;
        let mut left = max;
        loop {
            let rest = self.chunk.get((at - start) as usize..).unwrap_or_default();
            match frame::parse(rest, self.seed, at, size.saturating_sub(at)) {
                Parsed::Body(_) if left == 0 => return Ok((at, Stop::Max)),
                Parsed::Body(body) => {
                    let next = at + frame::size_of_body(body.len()) as u64;
                    match Record::decode(body) {
                        Ok(record) => records.push(record),
                        Err(error) => return Ok((at, Stop::Undecodable(error, next))),
                    }
                    (at, left) = (next, left - 1);
                }
                Parsed::Short if whole => return Ok((at, Stop::Torn(None))),
                Parsed::Short => {
                    // Every frame lies within a step, unless a later version writes longer ones.
                    whole = start == at;
                    start = at;
                    let wanted = if whole { (size - at) as usize } else { step };
                    fill(self.file, start, wanted, self.chunk)?;
                }
                Parsed::Blank => return Ok((at, Stop::Blank)),
                Parsed::Sealed => return Ok((at, Stop::Sealed)),
                Parsed::Torn => {
                    let resume = next_frame(self.file, self.seed, at, size)?;
                    return Ok((at, Stop::Torn(resume)));
                }
            }
        }
    }

    /// What a stop means in a segment that is complete: no place in it is blank, and nothing is behind
    /// its seal.
    fn judge(&self, at: u64, stop: Stop) -> io::Result<(u64, Stop)> {
        let size = self.file.metadata()?.len();
        Ok(match stop {
            Stop::Blank => match next_frame(self.file, self.seed, at, size)? {
                Some(resume) => (at, Stop::Torn(Some(resume))),
                None => (at, Stop::Blank),
            },
            Stop::Sealed if size > at + HEAD as u64 => {
                let mut rest = Vec::new();
                let behind = at + HEAD as u64;
                fill(self.file, behind, usize::try_from(size - behind).unwrap_or(0), &mut rest)?;
                // What a segment did not need is zero, if it could not be given back.
                let added = rest.iter().any(|&byte| byte != 0);
                (at, if added { Stop::Behind } else { Stop::Sealed })
            }
            stop => (at, stop),
        })
    }

    /// The cheap look at a place where nothing was written yet.
    fn is_blank(&self, at: u64) -> io::Result<bool> {
        let mut head = [0; HEAD];
        let read = self.file.read_at(&mut head, at)?;
        Ok(read == HEAD && frame::parse(&head, self.seed, at, HEAD as u64) == Parsed::Blank)
    }
}

/// Reads up to `wanted` bytes from a position on; fewer only at the end of the file.
fn fill(file: &File, at: u64, wanted: usize, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.resize(wanted, 0);
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut chunk[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.truncate(filled);
    Ok(())
}

/// Where, behind damage, the next frame of a plausible size (or the seal) stands.
fn next_frame(file: &File, seed: Seed, damaged: u64, size: u64) -> io::Result<Option<u64>> {
    let mut rest = Vec::new();
    let length = usize::try_from(size.saturating_sub(damaged)).unwrap_or(0);
    fill(file, damaged, length, &mut rest)?;
    Ok(frame::find(&rest, seed, damaged, rest.len()))
}
