//! What segments there are, and who may do what with them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::aside::{Aside, list_aside, move_aside};
use super::frame::HEAD;
use super::leftover::{Leftover, take_over};
use super::segment::{FIRST, Header, Segment, SegmentId};
use super::{Durability, SpoolError, SpoolOptions, SpoolStatus};
use crate::clock::Moment;

/// Everything that writers, the reader and the upkeep thread share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dir: PathBuf,
    pub(super) options: SpoolOptions,
    pub(super) catalog: Mutex<Catalog>,
    /// Wakes the upkeep thread.
    pub(super) wake: Condvar,
    /// The disk refused a segment; only the upkeep thread tries again.
    pub(super) stalled: AtomicBool,
    pub(super) dropped: AtomicU64,
    pub(super) evicted: AtomicU64,
    damaged: AtomicU64,
    /// Segments whose files somebody removed.
    pub(super) missing: AtomicU64,
    /// Holds the directory for this process.
    pub(super) lock: Mutex<File>,
    /// What the reader reads into.
    pub(super) chunk: Mutex<Vec<u8>>,
}

/// The list of segments. Its lock is never held while a file is made, read or removed by name.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Oldest first.
    pub(super) entries: Vec<Entry>,
    /// Damaged segments that were set aside, oldest first.
    pub(super) aside: VecDeque<Aside>,
    pub(super) spare: Option<Arc<Segment>>,
    /// Bytes of the segments that are being made in this moment.
    pub(super) making: u64,
    /// When the youngest segment was taken into use; the next one is younger, even if the clock
    /// went back.
    pub(super) youngest: i64,
    /// The sealed file that is being read.
    pub(super) reading: Option<(SegmentId, Arc<File>)>,
    pub(super) stop: bool,
    /// What the disk said when it last refused a segment.
    refusal: Option<io::ErrorKind>,
    /// Space may have become free.
    pub(super) retry: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: SegmentId,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) state: State,
    /// The reader needs nothing before this position.
    pub(super) passed: u64,
    /// What is before this position is on the disk for good ([`Durability::Power`] only).
    pub(super) synced: u64,
    /// When it was taken into use, on the steady clock in microseconds.
    pub(super) since: u64,
    /// When the record at the first position was made, if there is a readable one.
    oldest: Option<(u64, Option<i64>)>,
}

impl Entry {
    /// The position that the reader has to go on from, if something is to be read there.
    pub(super) fn unread(&self) -> Option<u64> {
        let end = match &self.state {
            State::Open(segment) => segment.written(),
            State::Sealed(_) => self.bytes.saturating_sub(HEAD as u64),
        };
        let from = self.passed.max(FIRST);
        (from < end).then_some(from)
    }

    /// When its first unread record was made, as far as is known.
    fn oldest(&self) -> Option<i64> {
        let (at, oldest) = self.oldest?;
        (self.unread() == Some(at)).then_some(oldest)?
    }
}

#[derive(Debug)]
pub(super) enum State {
    /// A writer appends to it.
    Open(Arc<Segment>),
    /// It is complete; if it was not synced yet, or has lost its name, its file is still open here.
    Sealed(Option<Arc<Segment>>),
}

/// A segment as the reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentView {
    /// Its name for good.
    pub id: SegmentId,
    /// Whether a writer of this process still appends to it.
    pub open: bool,
    /// Its bytes on disk.
    pub bytes: u64,
}

impl Catalog {
    pub(super) fn bytes(&self) -> u64 {
        let entries: u64 = self.entries.iter().map(|entry| entry.bytes).sum();
        let aside: u64 = self.aside.iter().map(|aside| aside.bytes).sum();
        entries + aside + self.making + self.spare.as_ref().map_or(0, |spare| spare.size)
    }

    pub(super) fn position(&self, id: SegmentId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id)
    }

    /// Strikes a sealed segment off the list.
    pub(super) fn strike(&mut self, id: SegmentId) -> Result<Entry, SpoolError> {
        let index = self.position(id).ok_or(SpoolError::Gone(id))?;
        if matches!(self.entries[index].state, State::Open(_)) {
            return Err(SpoolError::StillOpen(id));
        }
        self.reading.take_if(|(reading, _)| *reading == id);
        Ok(self.entries.remove(index))
    }

    /// Takes a segment into use.
    fn open_entry(&mut self, segment: &Arc<Segment>) {
        // Only orders the segments; nothing is decided by it.
        let now = Moment::now();
        self.youngest = now.wall.max(self.youngest.saturating_add(1));
        if let Err(error) = segment.date(self.youngest) {
            tracing::warn!(segment = %segment.id, %error, "cannot date a segment");
        }
        self.entries.push(Entry {
            id: segment.id,
            path: segment.path.clone(),
            bytes: segment.size,
            state: State::Open(Arc::clone(segment)),
            passed: 0,
            synced: 0,
            since: now.steady,
            oldest: None,
        });
    }
}

impl Inner {
    pub(super) fn open(
        dir: PathBuf,
        lock: File,
        options: SpoolOptions,
    ) -> Result<Inner, SpoolError> {
        let mut catalog = Catalog { aside: list_aside(&dir), ..Catalog::default() };
        let (mut found, mut damaged) = (Vec::new(), 0);
        for file in fs::read_dir(&dir).map_err(SpoolError::io("list", &dir))? {
            let path = file.map_err(SpoolError::io("list", &dir))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("segment") => match take_over(&path) {
                    Ok(Leftover::Segment(header, bytes)) => found.push((header, path, bytes)),
                    Ok(Leftover::Empty) => clear_away(&path),
                    Ok(Leftover::Foreign) => {
                        damaged += 1;
                        catalog.put_aside(&dir, &path, "it is no segment of this name");
                    }
                    Err(error) => {
                        damaged += 1;
                        catalog.put_aside(&dir, &path, &error.to_string());
                    }
                },
                Some("tmp") => clear_away(&path),
                _ => {}
            }
        }
        found.sort_by_key(|(header, ..)| (header.created, header.id));
        catalog.youngest = found.last().map_or(i64::MIN, |(header, ..)| header.created);
        catalog.entries = found.into_iter().map(sealed_entry).collect();
        Ok(Inner {
            dir,
            options,
            catalog: Mutex::new(catalog),
            wake: Condvar::new(),
            stalled: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            damaged: AtomicU64::new(damaged),
            missing: AtomicU64::new(0),
            lock: Mutex::new(lock),
            chunk: Mutex::new(Vec::new()),
        })
    }

    /// A segment for a writer: the one made ahead, or one made now. `None` while the disk refuses.
    pub(super) fn take_segment(&self) -> Option<Arc<Segment>> {
        if self.stalled.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(segment) = self.take_spare() {
            return Some(segment);
        }
        match self.make_segment() {
            Ok(segment) => {
                self.catalog.lock().open_entry(&segment);
                Some(segment)
            }
            Err(error) => {
                self.stall(&error);
                None
            }
        }
    }

    fn take_spare(&self) -> Option<Arc<Segment>> {
        let mut catalog = self.catalog.lock();
        let segment = catalog.spare.take()?;
        catalog.open_entry(&segment);
        self.wake.notify_one();
        Some(segment)
    }

    /// Seals a segment that its writer is done with; one without records goes at once.
    pub(super) fn finish(&self, segment: &Arc<Segment>) {
        let sealed = segment.seal();
        let empty = segment.written() == FIRST;
        let unsynced = self.options.durability == Durability::Power;
        let held = !empty && (unsynced || !segment.is_named());
        {
            let mut catalog = self.catalog.lock();
            let Some(index) = catalog.position(segment.id) else { return };
            let entry = &mut catalog.entries[index];
            entry.state = State::Sealed(held.then(|| Arc::clone(segment)));
            match sealed {
                Ok(bytes) => entry.bytes = bytes,
                Err(error) => {
                    tracing::error!(segment = %segment.id, %error, "cannot seal a segment");
                }
            }
        }
        if empty && let Err(error) = self.remove(segment.id) {
            tracing::warn!(segment = %segment.id, %error, "cannot remove an empty segment");
        }
    }

    pub(super) fn segments(&self) -> Vec<SegmentView> {
        let view = |entry: &Entry| SegmentView {
            id: entry.id,
            open: matches!(entry.state, State::Open(_)),
            bytes: entry.bytes,
        };
        self.catalog.lock().entries.iter().map(view).collect()
    }

    pub(super) fn remove(&self, id: SegmentId) -> Result<(), SpoolError> {
        let entry = match self.catalog.lock().strike(id) {
            Ok(entry) => entry,
            Err(SpoolError::Gone(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        remove_file(&entry.path)?;
        self.retry();
        Ok(())
    }

    pub(super) fn set_aside(&self, id: SegmentId, at: u64) -> Result<PathBuf, SpoolError> {
        let entry = self.catalog.lock().strike(id)?;
        let path = move_aside(&self.dir, &entry.path, at)?;
        self.damaged.fetch_add(1, Ordering::Relaxed);
        let aside = Aside::at(path.clone());
        self.catalog.lock().aside.push_back(aside);
        Ok(path)
    }

    pub(super) fn status(&self) -> SpoolStatus {
        self.look_at_oldest();
        let catalog = self.catalog.lock();
        SpoolStatus {
            bytes: catalog.bytes(),
            segments: catalog.entries.len(),
            dropped: self.dropped.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
            missing: self.missing.load(Ordering::Relaxed),
            stalled: catalog.refusal.filter(|_| self.stalled.load(Ordering::Relaxed)),
            oldest: catalog.entries.iter().filter_map(Entry::oldest).min(),
        }
    }

    /// Notes of each segment when its first unread record was made. What is noted stays true until the
    /// reader moves on, so a backlog is read once only.
    fn look_at_oldest(&self) {
        let unknown: Vec<(SegmentId, u64)> = {
            let catalog = self.catalog.lock();
            let unknown = catalog.entries.iter().filter_map(|entry| {
                let from = entry.unread()?;
                (entry.oldest.map(|(at, _)| at) != Some(from)).then_some((entry.id, from))
            });
            unknown.collect()
        };
        for (id, from) in unknown {
            let mut records = Vec::new();
            // What cannot be read has no age; the recorder is the one to complain about it.
            let _ = self.read(id, from, 1, &mut records);
            let mut catalog = self.catalog.lock();
            if let Some(index) = catalog.position(id) {
                let oldest = records.first().map(|record| record.at);
                catalog.entries[index].oldest = Some((from, oldest));
            }
        }
    }

    /// Stops handing out segments until the upkeep thread could make one.
    pub(super) fn stall(&self, error: &io::Error) {
        self.catalog.lock().refusal = Some(error.kind());
        if !self.stalled.swap(true, Ordering::Relaxed) {
            tracing::error!(
                dir = %self.dir.display(), %error,
                "cannot make room for the request log: records are dropped until this is over",
            );
        }
        // Under the lock, so that the upkeep thread cannot miss it between its look and its wait.
        let _catalog = self.catalog.lock();
        self.wake.notify_one();
    }

    /// Lets the upkeep thread try again at once.
    pub(super) fn retry(&self) {
        self.catalog.lock().retry = true;
        self.wake.notify_one();
    }

    /// Ends the upkeep thread.
    pub(super) fn stop(&self) {
        let spare = {
            let mut catalog = self.catalog.lock();
            catalog.stop = true;
            catalog.spare.take()
        };
        self.wake.notify_one();
        if let Some(spare) = spare {
            // If it stays, the next start removes it.
            let _ = fs::remove_file(&spare.path);
        }
    }
}

fn sealed_entry((header, path, bytes): (Header, PathBuf, u64)) -> Entry {
    Entry {
        id: header.id,
        path,
        bytes,
        state: State::Sealed(None),
        passed: 0,
        synced: bytes,
        since: 0,
        oldest: None,
    }
}

fn remove_file(path: &Path) -> Result<(), SpoolError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SpoolError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file that holds nothing; should it stay, it does no harm.
fn clear_away(path: &Path) {
    if let Err(error) = remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove what a former process left");
    }
}
