//! The spool's own thread: it makes the next segment ahead, syncs what was appended if it must
//! survive the end of the power, and looks after the files once a second. No request waits for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::MutexGuard;

use super::Durability;
use super::catalog::{Inner, State};
use super::segment::Segment;
use crate::clock::Moment;

/// How long the disk is left alone after it refused a segment.
const RETRY: Duration = Duration::from_secs(1);

/// How long appends are gathered before they are synced.
const SYNC: Duration = Duration::from_millis(10);

/// How often the files are looked after.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn start(inner: Arc<Inner>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("spool-upkeep".to_owned()).spawn(move || run(&inner))
}

fn run(inner: &Inner) {
    let power = inner.options.durability == Durability::Power;
    let (mut rested, mut looked) = (Duration::ZERO, Moment::now().steady);
    let mut catalog = inner.catalog.lock();
    while !catalog.stop {
        let now = Moment::now().steady;
        if Duration::from_micros(now - looked) >= LOOK {
            looked = now;
            MutexGuard::unlocked(&mut catalog, || inner.look_after(now));
        }
        let stalled = inner.stalled.load(Ordering::Relaxed);
        if catalog.spare.is_none() && (!stalled || catalog.retry || rested >= RETRY) {
            (catalog.retry, rested) = (false, Duration::ZERO);
            match MutexGuard::unlocked(&mut catalog, || inner.make_segment()) {
                Ok(segment) => {
                    catalog.spare = Some(segment);
                    if inner.stalled.swap(false, Ordering::Relaxed) {
                        let dropped = inner.dropped.load(Ordering::Relaxed);
                        tracing::info!(dropped, "the request log has room again");
                    }
                }
                Err(error) => MutexGuard::unlocked(&mut catalog, || inner.stall(&error)),
            }
            continue;
        }
        if power {
            MutexGuard::unlocked(&mut catalog, || sync(inner));
        }
        let rest = match (power, stalled) {
            (true, _) => SYNC,
            (false, true) => RETRY,
            (false, false) => LOOK,
        };
        if !catalog.stop && inner.wake.wait_for(&mut catalog, rest).timed_out() {
            rested += rest;
        }
    }
    drop(catalog);
    if power {
        sync(inner);
    }
    remove_spare(inner);
}

/// One `fdatasync` for each segment that was written to since the last round.
fn sync(inner: &Inner) {
    let unsynced: Vec<(Arc<Segment>, u64)> = {
        let catalog = inner.catalog.lock();
        let unsynced = catalog.entries.iter().filter_map(|entry| match &entry.state {
            State::Open(segment) => {
                let written = segment.written();
                (written > entry.synced).then(|| (Arc::clone(segment), written))
            }
            State::Sealed(segment) => Some((Arc::clone(segment.as_ref()?), entry.bytes)),
        });
        unsynced.collect()
    };
    for (segment, written) in unsynced {
        if let Err(error) = segment.file.sync_data() {
            tracing::error!(segment = %segment.id, %error, "cannot sync the request log");
        }
        let mut catalog = inner.catalog.lock();
        if let Some(index) = catalog.position(segment.id) {
            let entry = &mut catalog.entries[index];
            entry.synced = written;
            if let State::Sealed(unsynced) = &mut entry.state
                && written == entry.bytes
                && segment.is_named()
            {
                *unsynced = None;
            }
        }
    }
}

/// A spare that was finished after the spool was told to stop would never be used.
fn remove_spare(inner: &Inner) {
    if let Some(spare) = inner.catalog.lock().spare.take() {
        // If it stays, the next start removes it.
        let _ = std::fs::remove_file(&spare.path);
    }
}
