//! Keeps the spool within its bound: a new segment is made only after the oldest ones gave way to it.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Durability;
use super::aside::Aside;
use super::care::remove_aside;
use super::catalog::{Catalog, Entry, Inner, State};
use super::frame::{self, Parsed, Seed};
use super::segment::{FIRST, Segment};

/// What gives way.
enum Victim {
    Damaged(PathBuf),
    Oldest(Entry),
}

impl Inner {
    /// Makes a segment, and room for it.
    pub(super) fn make_segment(&self) -> io::Result<Arc<Segment>> {
        let size = self.options.segment_bytes;
        loop {
            let mut catalog = self.catalog.lock();
            let full = catalog.bytes() + size > self.options.max_bytes;
            let Some(victim) = full.then(|| take_victim(&mut catalog)).flatten() else {
                catalog.making += size;
                break;
            };
            drop(catalog);
            self.evict(victim);
        }
        let made = Segment::create(&self.dir, size).and_then(|segment| {
            if self.options.durability == Durability::Power {
                // The name has to survive, too.
                File::open(&self.dir)?.sync_all()?;
            }
            Ok(segment)
        });
        self.catalog.lock().making -= size;
        made.map(Arc::new)
    }

    fn evict(&self, victim: Victim) {
        let path = match victim {
            Victim::Damaged(path) => path,
            Victim::Oldest(entry) => {
                let records = count_records(&entry);
                let before = self.evicted.fetch_add(records, Ordering::Relaxed);
                // Once per power of two: a database that is away for days must not fill the log.
                if (before + records).leading_zeros() < before.leading_zeros() {
                    tracing::error!(
                        evicted = before + records,
                        "the spool is full: the oldest records go, because nobody reads them in time",
                    );
                }
                entry.path
            }
        };
        if let Err(error) = remove_aside(&path) {
            tracing::error!(path = %path.display(), %error, "cannot remove a segment");
        }
    }
}

/// What was set aside goes before what is still to be read.
fn take_victim(catalog: &mut Catalog) -> Option<Victim> {
    if let Some(Aside { path, .. }) = catalog.aside.pop_front() {
        return Some(Victim::Damaged(path));
    }
    let oldest = catalog.entries.iter().find(|entry| matches!(entry.state, State::Sealed(_)))?.id;
    catalog.strike(oldest).ok().map(Victim::Oldest)
}

/// The records that the reader had not passed.
fn count_records(entry: &Entry) -> u64 {
    let Ok(bytes) = fs::read(&entry.path) else { return 0 };
    let seed = Seed::of(entry.id);
    let mut at = usize::try_from(entry.passed.max(FIRST)).unwrap_or(usize::MAX);
    let mut records = 0;
    while let Some(rest) = bytes.get(at..)
        && let Parsed::Body(body) = frame::parse(rest, seed, at as u64, rest.len() as u64)
    {
        at += frame::size_of_body(body.len());
        records += 1;
    }
    records
}
