//! What happens to the files behind the spool's back, and to those that nobody writes to.
//!
//! A directory or a segment that somebody removed or moved away is noticed within a second: the
//! directory is made anew, and writers go on in new segments. What is in a segment that was open is read
//! all the same, by this process; what had been completed before is gone, and is counted.
//!
//! A segment of a quiet worker whose records were all read goes after an hour, so that none of them stays
//! on the disk for as long as nobody asks that worker anything. A damaged one goes when its records are
//! older than any that the log keeps.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use super::aside::Aside;
use super::catalog::{Inner, State};
use super::segment::{FIRST, Segment, SegmentId, is_named};
use super::{SpoolError, lock, make_private_dir};
use crate::clock::Moment;

/// How long a segment that was read to its end may stay with its writer.
const QUIET: Duration = Duration::from_secs(3600);

/// A segment that is written to, and when that began.
type Written = (Arc<Segment>, u64);

/// A segment that is complete, and its file.
type Complete = (SegmentId, PathBuf);

impl Inner {
    /// Looks after the files; `now` is the steady clock.
    pub(super) fn look_after(&self, now: u64) {
        if let Err(error) = self.keep_directory() {
            let kind = match &error {
                SpoolError::Io { source, .. } => source.kind(),
                _ => io::ErrorKind::ResourceBusy,
            };
            self.stall(&io::Error::new(kind, error));
            return;
        }
        self.forget_damaged(Moment::now());
        let spare = self.drop_lost_spare();
        let (open, sealed) = self.files();
        // While there is no other to be had, a segment is better than none.
        let stalled = self.stalled.load(Ordering::Relaxed);
        for (segment, since) in open.into_iter().filter(|_| !stalled) {
            let age = Duration::from_micros(now.saturating_sub(since));
            self.turn_over(&segment, spare && age >= QUIET);
        }
        for (id, path) in sealed {
            if is_missing(&path) {
                self.give_up(id);
            }
        }
    }

    /// Makes the directory anew, and locks it, if it is not there any more.
    fn keep_directory(&self) -> Result<(), SpoolError> {
        let mut held = self.lock.lock();
        if is_named(&held, &self.dir.join(super::LOCK)) {
            return Ok(());
        }
        make_private_dir(&self.dir).map_err(SpoolError::io("create", &self.dir))?;
        *held = lock(&self.dir)?;
        tracing::error!(dir = %self.dir.display(), "somebody removed the spool: it is made anew");
        drop(held);
        self.retry();
        Ok(())
    }

    /// Removes what was set aside long ago.
    fn forget_damaged(&self, now: Moment) {
        let wall = Duration::from_micros(u64::try_from(now.wall).unwrap_or(0));
        let before = UNIX_EPOCH + wall.saturating_sub(self.options.keep_damaged);
        let is_old = |aside: &Aside| aside.modified.is_some_and(|modified| modified < before);
        let old = {
            let aside = &mut self.catalog.lock().aside;
            let (old, young): (VecDeque<_>, _) =
                std::mem::take(aside).into_iter().partition(is_old);
            *aside = young;
            old
        };
        for Aside { path, .. } in old {
            if let Err(error) = remove_aside(&path) {
                tracing::error!(path = %path.display(), %error, "cannot remove an old damaged segment");
            }
        }
    }

    /// Forgets a spare that has lost its name; says whether there is one.
    fn drop_lost_spare(&self) -> bool {
        let spare = self.catalog.lock().spare.clone();
        let is_lost = spare.as_ref().is_some_and(|spare| !spare.is_named());
        let mut catalog = self.catalog.lock();
        if is_lost {
            catalog.spare.take_if(|held| spare.as_ref().is_some_and(|lost| lost.id == held.id));
        }
        catalog.spare.is_some()
    }

    /// The segments that are written to, each with when that began, and the files of those that are
    /// complete.
    fn files(&self) -> (Vec<Written>, Vec<Complete>) {
        let (mut open, mut sealed) = (Vec::new(), Vec::new());
        for entry in &self.catalog.lock().entries {
            match &entry.state {
                State::Open(segment) => open.push((Arc::clone(segment), entry.since)),
                State::Sealed(None) => sealed.push((entry.id, entry.path.clone())),
                State::Sealed(Some(_)) => {}
            }
        }
        (open, sealed)
    }

    /// Takes every segment that has records from its writer; see [`Spool::turn_over`](super::Spool::turn_over).
    pub(super) fn turn_over_all(&self) -> Option<Vec<SegmentId>> {
        if self.stalled.load(Ordering::Relaxed) {
            return None;
        }
        let (mut segments, mut open) = (Vec::new(), Vec::new());
        for entry in &self.catalog.lock().entries {
            match &entry.state {
                State::Open(segment) if segment.written() == FIRST => continue,
                State::Open(segment) => open.push(Arc::clone(segment)),
                State::Sealed(_) => {}
            }
            segments.push(entry.id);
        }
        for segment in open {
            // A frame is being written for some nanoseconds; or its writer gives it up by itself.
            while self.is_open(segment.id) {
                if segment.retire() {
                    self.finish(&segment);
                }
                std::thread::yield_now();
            }
        }
        Some(segments)
    }

    fn is_open(&self, id: SegmentId) -> bool {
        let catalog = self.catalog.lock();
        let entry = catalog.position(id).map(|index| &catalog.entries[index]);
        entry.is_some_and(|entry| matches!(entry.state, State::Open(_)))
    }

    /// Removes what was set aside, however young.
    pub(super) fn remove_damaged(&self) -> Result<(), SpoolError> {
        while let Some(aside) = self.catalog.lock().aside.pop_front() {
            if let Err(error) = remove_aside(&aside.path) {
                let path = aside.path.clone();
                self.catalog.lock().aside.push_back(aside);
                return Err(SpoolError::io("remove", &path)(error));
            }
            tracing::warn!(path = %aside.path.display(), "removed a damaged segment");
        }
        Ok(())
    }

    /// Whether the reader has passed everything in a segment that has records.
    fn is_read(&self, segment: &Segment) -> bool {
        let catalog = self.catalog.lock();
        let entry = catalog.position(segment.id).map(|index| &catalog.entries[index]);
        segment.written() > FIRST && entry.is_some_and(|entry| entry.unread().is_none())
    }

    /// Takes a segment from its writer that has lost its name, or that is old and read to its end. One
    /// that is being written to in this moment has its turn next time.
    fn turn_over(&self, segment: &Arc<Segment>, old: bool) {
        let is_lost = !segment.is_named();
        if (is_lost || (old && self.is_read(segment))) && segment.retire() {
            if is_lost {
                tracing::error!(segment = %segment.id, "somebody removed a segment: going on in another");
            }
            self.finish(segment);
        }
    }

    /// Strikes off a segment that cannot be read any more.
    fn give_up(&self, id: SegmentId) {
        // The reader may have been done with it in between.
        if self.catalog.lock().strike(id).is_ok() {
            self.missing.fetch_add(1, Ordering::Relaxed);
            tracing::error!(segment = %id, "somebody removed a segment before it was read");
        }
    }
}

/// A directory in the place of a segment is set aside, too.
pub(super) fn remove_aside(path: &Path) -> io::Result<()> {
    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

fn is_missing(path: &Path) -> bool {
    path.try_exists().is_ok_and(|exists| !exists)
}
