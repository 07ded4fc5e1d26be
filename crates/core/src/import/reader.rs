//! Reads ahead of the store, on a thread of its own: while one batch is written, the next is parsed.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipwarden_engine::record::Record;
use ipwarden_engine::sensitive_path::SensitivePaths;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::follow::Following;
use super::{Input, TOLD};
use crate::access_log::{AccessLog, LineError, Mark};
use crate::geo::Place;

/// Between two looks at a file that grows.
const PAUSE: Duration = Duration::from_millis(250);

/// So many looks without anything new, and somebody is told all the same: the lease is to be renewed.
const QUIET: u32 = 20;

/// Records of one transaction.
const BATCH: usize = 10_000;

/// Unreadable lines after which a batch is told of although it is not full.
const UNREADABLE: u64 = 100_000;

/// Some lines, read.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// Where each of them came from, if its line says so.
    pub(super) places: Vec<Option<Place>>,
    pub(super) unreadable: u64,
    /// The first unreadable lines.
    pub(super) told: Vec<LineError>,
    /// How far the file was read; `None` if no further than before.
    pub(super) mark: Option<Mark>,
    /// Bytes of the file as it is packed.
    pub(super) read_bytes: u64,
    /// Why the file ended before its end.
    pub(super) cut_short: Option<String>,
}

/// A batch; `None` if the file does not begin with what is known of it.
type Next = io::Result<Option<Batch>>;

pub(super) struct Reading(Receiver<Next>);

impl Reading {
    /// The next batch; `None` when all of the file has been read.
    pub(super) async fn next(&mut self) -> Option<Next> {
        self.0.recv().await
    }
}

/// Starts to read behind what is `known`; who follows the file reads on where it grows.
pub(super) fn start(
    input: Input,
    known: Option<Mark>,
    sensitive: Arc<SensitivePaths>,
    following: Option<Following>,
) -> Reading {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read(&input, known, &sensitive, following.as_ref(), &sender) {
            // Whoever no longer listens has no use for the error either.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Reading(receiver)
}

fn read(
    input: &Input,
    known: Option<Mark>,
    sensitive: &SensitivePaths,
    following: Option<&Following>,
    sender: &Sender<Next>,
) -> io::Result<()> {
    let read_bytes = Arc::new(AtomicU64::new(0));
    let source = Counting { source: input.rewound()?, bytes: read_bytes.clone() };
    let mut log = AccessLog::new(source, sensitive)?.written_as(input.format());
    if let Some(known) = &known
        && !log.skip_to(known)?
    {
        let _ = sender.blocking_send(Ok(None));
        return Ok(());
    }
    if following.is_some() {
        log = log.growing();
    }
    let mut last = known.unwrap_or_else(|| log.mark());
    let (mut quiet, mut was_rotated) = (0, false);
    loop {
        let mut batch = Batch::default();
        let ended = fill(&mut batch, &mut log);
        let mark = log.mark();
        batch.mark = (mark != last).then_some(mark);
        batch.read_bytes = read_bytes.load(Ordering::Relaxed);
        last = mark;
        let (is_news, read) = (batch.mark.is_some(), batch.read_bytes);
        quiet = if is_news { 0 } else { quiet + 1 };
        let is_told = following.is_none() || is_news || quiet % QUIET == 1;
        if is_told && sender.blocking_send(Ok(Some(batch))).is_err() {
            return Ok(());
        }
        match following {
            None if ended => return Ok(()),
            Some(following) if ended && !is_news => {
                // What was written between the last look and the rotation is read once more.
                if following.stop.is_cancelled() || was_rotated {
                    return Ok(());
                }
                was_rotated = input.was_rotated(&following.path, read)?;
                if !was_rotated {
                    std::thread::sleep(PAUSE);
                }
            }
            _ => {}
        }
    }
}

/// Reads all of it where it is called.
pub(super) fn look(
    input: &Input,
    mut take: impl FnMut(&Batch),
    mut report: impl FnMut(u64),
) -> io::Result<()> {
    let bytes = Arc::new(AtomicU64::new(0));
    let source = Counting { source: input.rewound()?, bytes: bytes.clone() };
    let sensitive = SensitivePaths::default();
    let mut log = AccessLog::new(source, &sensitive)?.written_as(input.format());
    loop {
        let mut batch = Batch::default();
        let ended = fill(&mut batch, &mut log);
        take(&batch);
        report(bytes.load(Ordering::Relaxed));
        if ended {
            return Ok(());
        }
    }
}

/// Fills a batch; whether the file has ended.
fn fill(batch: &mut Batch, log: &mut AccessLog<'_>) -> bool {
    while batch.records.len() < BATCH && batch.unreadable < UNREADABLE {
        match log.next_told() {
            Ok(Some(Ok(told))) => {
                batch.records.push(told.record);
                batch.places.push(told.place);
            }
            Ok(Some(Err(error))) => {
                batch.unreadable += 1;
                if batch.told.len() < TOLD {
                    batch.told.push(error);
                }
            }
            Ok(None) => return true,
            Err(error) => {
                batch.cut_short = Some(error.to_string());
                return true;
            }
        }
    }
    false
}

/// Counts what goes through.
struct Counting<R> {
    source: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
