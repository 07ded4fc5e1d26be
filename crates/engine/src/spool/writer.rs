//! The side of the spool that stands on the path of a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::frame::Draft;
use super::segment::Segment;

/// Appends records to a segment of its own. Each worker thread has one; dropping it seals the segment.
#[derive(Debug)]
pub struct SpoolWriter {
    shared: Arc<Shared>,
    segment: Option<Arc<Segment>>,
    failing: bool,
}

impl SpoolWriter {
    pub(super) fn new(shared: Arc<Shared>) -> SpoolWriter {
        let segment = shared.inner.take_segment();
        SpoolWriter { shared, segment, failing: false }
    }

    /// Appends a record; when this returns, the kernel has it.
    ///
    /// A record that cannot be kept, because the disk is full or fails, is counted
    /// ([`super::SpoolStatus::dropped`]), and the request goes on.
    pub fn append(&mut self, mut record: Draft) {
        let size = record.size();
        let segment = loop {
            match &self.segment {
                Some(segment) if segment.claim(size) => break segment,
                _ => self.turn_over(),
            }
            if self.segment.is_none() {
                self.shared.inner.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let at = segment.written();
        match segment.put(at, record.close(segment.seed, at)) {
            Ok(()) => self.failing = false,
            Err(error) => {
                // The position has not moved: the next record is put in the same place.
                self.shared.inner.dropped.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(segment = %segment.id, %error, "cannot write the request log");
                }
            }
        }
        segment.release();
    }

    /// Goes on with the next segment, if there is one to be had.
    fn turn_over(&mut self) {
        self.leave();
        self.segment = self.shared.inner.take_segment();
    }

    /// Seals the segment, unless the upkeep thread has taken it away and does so.
    fn leave(&mut self) {
        if let Some(segment) = self.segment.take()
            && segment.retire()
        {
            self.shared.inner.finish(&segment);
        }
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.leave();
    }
}
