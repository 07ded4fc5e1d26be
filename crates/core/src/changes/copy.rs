//! The copy of the lists on disk: written soon after a change, seldom when it is long.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use ipwarden_engine::blocklist::disk::Snapshot;
use ipwarden_engine::blocklist::{Lists, disk};
use ipwarden_engine::clock::Moment;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::held::Held;

/// The disk is left alone for this many microseconds per byte written: a short list is copied at
/// once, one of a million networks every ten seconds.
const REST_PER_BYTE: u64 = 1;
const LONGEST_REST: u64 = 10_000_000;

/// The copy of the lists on disk, so that a restart without its store still blocks.
pub struct Copy {
    path: Arc<PathBuf>,
    reading: Option<JoinHandle<Option<(Lists, Snapshot)>>>,
    /// Whether the lists have changed since what is or is being written.
    outdated: bool,
    /// Not again before this, on the steady clock in microseconds.
    not_before: u64,
    writing: Option<JoinHandle<bool>>,
}

impl Copy {
    /// The copy at `path`, by the name of [`COPY`](super::COPY).
    pub fn new(path: PathBuf) -> Copy {
        let path = Arc::new(path);
        Copy { path, reading: None, outdated: false, not_before: 0, writing: None }
    }

    /// Begins to read what is on disk, which for a million networks takes as long as all else at a
    /// start: [`Feeder::load_copy`](super::Feeder::load_copy) then waits for the rest of it only.
    pub fn read_ahead(mut self) -> Copy {
        // Without one, as at the first start, no thread is needed for it.
        if self.path.exists() {
            self.reading = Some(self.read());
        }
        self
    }

    /// When what is read ahead is there.
    #[cfg(test)]
    pub(super) async fn has_read(&self) {
        while self.reading.as_ref().is_some_and(|reading| !reading.is_finished()) {
            tokio::task::yield_now().await;
        }
    }

    fn read(&self) -> JoinHandle<Option<(Lists, Snapshot)>> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || match disk::load(&path) {
            Ok(snapshot) => snapshot.map(|snapshot| {
                let (blocked, allowed) = (snapshot.blocked(), snapshot.allowed());
                (Lists::build(snapshot.version(), blocked, allowed), snapshot)
            }),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        })
    }

    /// The lists on disk and what they were made of, if there are any.
    pub(super) async fn load(&mut self) -> Option<(Lists, Snapshot)> {
        let reading = self.reading.take().unwrap_or_else(|| self.read());
        reading.await.ok().flatten()
    }

    /// The lists have changed.
    pub(super) fn outdated(&mut self) {
        self.outdated = true;
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Whether the disk has it as the lists are.
    pub(super) fn is_written(&self) -> bool {
        !self.outdated && self.writing.is_none()
    }

    /// Whether it is time to write it.
    pub(super) fn is_due(&mut self, now: Moment) -> bool {
        if let Some(writing) = &mut self.writing {
            let Some(written) = writing.now_or_never() else { return false };
            self.writing = None;
            self.note(written.unwrap_or(false));
        }
        self.outdated && now.steady >= self.not_before
    }

    /// Starts to write the copy, and returns as soon as its bytes are collected; the disk may take its
    /// time.
    pub(super) async fn save(
        &mut self,
        held: Arc<Mutex<Held>>,
        (version, made): (i64, i64),
        now: Moment,
    ) {
        self.written().await;
        let encode = move || held.lock().encode(version, made);
        let Ok(bytes) = tokio::task::spawn_blocking(encode).await else { return };
        self.outdated = false;
        self.not_before = now.steady + (bytes.len() as u64 * REST_PER_BYTE).min(LONGEST_REST);
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let written = disk::write(&path, &bytes);
            if let Err(error) = &written {
                tracing::warn!("{error}");
            }
            written.is_ok()
        }));
    }

    /// Waits until nothing is being written any more.
    pub(super) async fn written(&mut self) {
        if let Some(writing) = self.writing.take() {
            let written = writing.await.unwrap_or(false);
            self.note(written);
        }
    }

    /// What could not be written is tried again, but neither often nor noisily.
    fn note(&mut self, written: bool) {
        if !written {
            self.outdated = true;
            self.not_before += LONGEST_REST;
        }
    }
}
