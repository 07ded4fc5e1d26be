//! Ships the request log: from the spool's segments, with the place of each address, into the store.
//!
//! Each record arrives exactly once. How far a segment was shipped is written in the very transaction
//! that writes its records, and only if nobody else moved that position in between: neither a crash,
//! nor a copied data directory, nor a commit whose answer got lost skips or doubles one. While the store
//! is away, records wait in the spool. What cannot be read is set aside, and what the store
//! will not take waits on its own, so that neither holds up the rest.
//!
//! It is woken by nobody: it looks five times a second, which costs one small read per worker.

mod batch;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::spool::{SegmentId, Spool, SpoolError};
use tokio::sync::{Mutex, oneshot};
use tokio_util::sync::CancellationToken;

use self::batch::{Batch, Fate, Portion, gather};
use crate::db::request_logs::{self, NewLogged, UnderWay};
use crate::db::spool_positions::{self, Step};
use crate::db::{Db, DbError};
use crate::geo::Geo;

/// The most records that one transaction writes.
pub const BATCH: usize = 10_000;

/// How often the spool is looked at.
pub const PERIOD: Duration = Duration::from_millis(200);

/// The longest pause while the store is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the position of a segment that exists no more is remembered, in case a copy of it comes back.
const REMEMBERED: TimeDelta = TimeDelta::days(35);

const TIDY: Duration = Duration::from_secs(3600);

/// Somebody else ships a copy of our segments; this many times in a row it is our turn to read again.
const CONFLICTS: usize = 3;

/// Moves what a spool holds into the store. One per spool.
pub struct Recorder {
    spool: Spool,
    db: Db,
    geo: Arc<Geo>,
    node: Arc<str>,
    course: Mutex<Course>,
    shipped: AtomicU64,
    failing: AtomicBool,
    refused: AtomicUsize,
}

/// How the shipping goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecorderStatus {
    /// Records written to the store since the start.
    pub shipped: u64,
    /// Whether the last try to write failed.
    pub failing: bool,
    /// Segments whose records the store does not take, though it answers.
    pub refused: usize,
}

/// What is known between two looks.
#[derive(Default)]
struct Course {
    /// Where the store says that each segment goes on; the store is asked for what is not here.
    positions: HashMap<SegmentId, u64>,
    /// Where a segment that is still being read was found damaged first.
    damaged: HashMap<SegmentId, u64>,
    /// Segments that are shipped each on its own, because a batch with them was refused.
    held: VecDeque<SegmentId>,
    /// Segments that the disk did not let us read; they are tried again each time.
    unread: HashSet<SegmentId>,
    /// Segments that are done with but could not be removed.
    stuck: HashSet<SegmentId>,
}

impl Course {
    /// Says what could not be read, once for each segment.
    fn note(&mut self, batch: &Batch) {
        for portion in &batch.portions {
            if let Some(&(at, why)) = portion.damages.first() {
                self.damaged.entry(portion.segment).or_insert_with(|| {
                    tracing::error!(segment = %portion.segment, at, %why, "a segment is damaged");
                    at
                });
            }
        }
        for (segment, error) in &batch.failures {
            if self.unread.insert(*segment) {
                tracing::error!(%segment, %error, "cannot read a segment for now");
            }
        }
    }
}

/// What one transaction is to write.
struct Ready {
    batch: Batch,
    /// Of all its portions, in their order.
    rows: Vec<NewLogged>,
}

/// What one transaction wrote.
struct Shipped {
    records: u64,
    more: bool,
}

impl Recorder {
    /// A recorder for `spool`; `node` is the name under which its records are stored.
    pub fn new(spool: Spool, db: Db, geo: Arc<Geo>, node: impl Into<Arc<str>>) -> Recorder {
        Recorder {
            spool,
            db,
            geo,
            node: node.into(),
            course: Mutex::default(),
            shipped: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
        }
    }

    /// Ships until it is told to stop, then returns at once; [`Recorder::ship_all`] ships the rest.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut pause = PERIOD;
        let mut tidied: Option<u64> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let moment = Moment::now();
            let now = DateTime::from_timestamp_micros(moment.wall).unwrap_or_default();
            pause = match self.ship(now).await {
                // A store that takes nothing at all is not to be hurried either.
                Ok(0) if self.status().refused > 0 => (pause * 2).min(LONGEST_PAUSE),
                Ok(_) => PERIOD,
                Err(_) => (pause * 2).min(LONGEST_PAUSE),
            };
            let due = tidied.is_none_or(|then| {
                Duration::from_micros(moment.steady.saturating_sub(then)) >= TIDY
            });
            if pause == PERIOD && due {
                tidied = Some(moment.steady);
                if let Err(error) = self.tidy(now).await {
                    tracing::warn!(%error, "cannot tidy the positions of the spool");
                }
            }
        }
    }

    /// Ships everything that is in the spool; returns how many records that were.
    ///
    /// For the end of the process (drop the writers first) and for tests. `now` is the wall clock.
    ///
    /// # Errors
    /// The store's; what was not shipped stays in the spool.
    pub async fn ship_all(&self, now: DateTime<Utc>) -> Result<u64, DbError> {
        let mut records = self.ship(now).await?;
        let held = self.course.lock().await.held.len();
        for _ in 0..held {
            records += self.ship(now).await?;
        }
        match self.course.lock().await.held.len() {
            0 => Ok(records),
            left => Err(DbError::Conflict(format!(
                "the store does not take the records of {left} segments of the spool"
            ))),
        }
    }

    /// How the shipping goes; how much there is to ship, the spool says.
    pub fn status(&self) -> RecorderStatus {
        RecorderStatus {
            shipped: self.shipped.load(Ordering::Relaxed),
            failing: self.failing.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Ships what can be read now, oldest segments first.
    async fn ship(&self, now: DateTime<Utc>) -> Result<u64, DbError> {
        let mut course = self.course.lock().await;
        let shipped = self.ship_with(&mut course, now).await;
        self.refused.store(course.held.len(), Ordering::Relaxed);
        match &shipped {
            Ok(_) if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!("the request log is written again");
            }
            Ok(_) => {}
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the request log waits in the spool");
                }
            }
        }
        shipped
    }

    async fn ship_with(&self, course: &mut Course, now: DateTime<Utc>) -> Result<u64, DbError> {
        let (mut records, mut conflicts) = (0, 0);
        let mut ahead = None;
        loop {
            let segments = self.spool.segments().into_iter().map(|segment| segment.id);
            let segments: Vec<_> = segments
                .filter(|id| !course.held.contains(id) && !course.stuck.contains(id))
                .collect();
            match self.ship_batch(course, &segments, &mut ahead, now).await {
                Ok(shipped) => {
                    (records, conflicts) = (records + shipped.records, 0);
                    if !shipped.more {
                        break;
                    }
                }
                Err(DbError::Conflict(what)) if conflicts < CONFLICTS => {
                    conflicts += 1;
                    tracing::warn!(what, "a copy of this spool is being shipped elsewhere");
                }
                Err(DbError::Query(error)) => {
                    tracing::error!(%error, "the store refused a batch: its segments go one by one");
                    course.held.extend(segments);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records + self.ship_held(course, now).await?)
    }

    /// Gives the held segments their turn, until the store refuses one.
    async fn ship_held(&self, course: &mut Course, now: DateTime<Utc>) -> Result<u64, DbError> {
        let mut records = 0;
        let mut ahead = None;
        while let Some(&segment) = course.held.front() {
            match self.ship_batch(course, &[segment], &mut ahead, now).await {
                Ok(shipped) => {
                    records += shipped.records;
                    if !shipped.more {
                        course.held.pop_front();
                    }
                }
                Err(DbError::Query(error)) => {
                    tracing::debug!(%segment, %error, "the store refused a segment again");
                    course.held.rotate_left(1);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Ships one batch of these segments, in one transaction: what was read `ahead`, if anything was. That
    /// is left with the next batch, which is read and turned into rows while this one is written.
    async fn ship_batch(
        &self,
        course: &mut Course,
        segments: &[SegmentId],
        ahead: &mut Option<Ready>,
        now: DateTime<Utc>,
    ) -> Result<Shipped, DbError> {
        let plan = self.positions(course, segments).await?;
        let Ready { batch, rows } = match ahead.take() {
            Some(ready) => ready,
            None => self.read(plan.clone(), now).await?,
        };
        course.note(&batch);
        let records = rows.len() as u64;
        let (under_way, is_under_way) = oneshot::channel();
        let write = self.write(&batch.portions, rows, now, under_way);
        let outcome = if batch.more {
            let next = async {
                let _ = is_under_way.await;
                self.read(batch.behind(plan), now).await
            };
            let (outcome, next) = tokio::join!(write, next);
            // What could not be read is read again, and told then.
            *ahead = next.ok();
            outcome
        } else {
            write.await
        };
        if let Err(error) = outcome {
            *ahead = None;
            // It may have been written all the same: the store is to be asked.
            for portion in &batch.portions {
                course.positions.remove(&portion.segment);
            }
            return Err(error);
        }
        self.shipped.fetch_add(records, Ordering::Relaxed);
        for portion in &batch.portions {
            course.positions.insert(portion.segment, portion.to);
            self.finish(course, portion);
        }
        Ok(Shipped { records, more: batch.more })
    }

    /// Reads a batch and looks up where its addresses are, on a thread of its own: who feeds the store
    /// another batch meanwhile is not kept from it.
    async fn read(
        &self,
        plan: Vec<(SegmentId, u64)>,
        now: DateTime<Utc>,
    ) -> Result<Ready, DbError> {
        let (spool, geo, node) = (self.spool.clone(), self.geo.clone(), self.node.clone());
        let runtime = tokio::runtime::Handle::current();
        let read = tokio::task::spawn_blocking(move || {
            let mut batch = gather(&spool, &plan, BATCH);
            let portions = batch.portions.iter_mut();
            let records: Vec<_> =
                portions.flat_map(|portion| std::mem::take(&mut portion.records)).collect();
            let addresses: Vec<_> = records.iter().map(|record| record.address).collect();
            let places = runtime.block_on(geo.places(&addresses, now));
            let rows = records.into_iter().zip(places);
            let rows = rows.map(|(record, place)| batch::row(record, place, &node, now)).collect();
            Ready { batch, rows }
        });
        let failed = |error| DbError::Unreachable(format!("reading a batch failed: {error}"));
        read.await.map_err(failed)
    }

    /// Where each of these segments goes on.
    async fn positions(
        &self,
        course: &mut Course,
        segments: &[SegmentId],
    ) -> Result<Vec<(SegmentId, u64)>, DbError> {
        let unknown = segments.iter().filter(|id| !course.positions.contains_key(id));
        let names: Vec<String> = unknown.map(SegmentId::to_string).collect();
        if !names.is_empty() {
            let known: HashMap<_, _> = self
                .db
                .run({
                    let names = names.clone();
                    move |conn| spool_positions::of(conn, names).boxed()
                })
                .await?
                .into_iter()
                .collect();
            for name in names {
                let position = known.get(&name).map_or(0, |&at| u64::try_from(at).unwrap_or(0));
                let id = name.parse().expect("a segment's id reads back");
                course.positions.insert(id, position);
            }
        }
        Ok(segments.iter().map(|id| (*id, course.positions[id])).collect())
    }

    /// Writes the rows of these portions, and how far they go.
    async fn write(
        &self,
        portions: &[Portion],
        mut rows: Vec<NewLogged>,
        now: DateTime<Utc>,
        under_way: UnderWay,
    ) -> Result<(), DbError> {
        let moved = portions.iter().filter(|portion| portion.to != portion.from);
        if moved.clone().next().is_none() {
            return Ok(());
        }
        // Only now: whoever follows the log relies on a row being there soon after its recorded_at.
        let recorded_at = self.db.clock(now).await?;
        for row in &mut rows {
            row.recorded_at = recorded_at;
        }
        let steps: Vec<_> = moved
            .map(|portion| self.step(portion.segment, portion.from, portion.to, recorded_at))
            .collect();
        request_logs::write_telling(&self.db, rows, steps, under_way).await
    }

    fn step(&self, segment: SegmentId, from: u64, to: u64, at: DateTime<Utc>) -> Step {
        let (from, to) = (from as i64, to as i64);
        Step { segment: segment.to_string(), from, to, node: self.node.clone(), at }
    }

    /// Removes a segment that is shipped to its end; one with damage is kept aside for its operator.
    fn finish(&self, course: &mut Course, portion: &Portion) {
        let segment = portion.segment;
        let done = match (portion.fate, course.damaged.get(&segment)) {
            (Fate::Open, _) => return,
            (Fate::Shipped, None) => self.spool.remove(segment),
            (Fate::Shipped, Some(&at)) | (Fate::Unreadable(at), _) => {
                self.spool.set_aside(segment, at).map(|path| {
                    tracing::error!(%segment, at, path = %path.display(), "set a segment aside");
                })
            }
        };
        // Its writer has sealed it and is about to say so: it goes with the next look.
        if let Err(SpoolError::StillOpen(_)) = done {
            return;
        }
        course.positions.remove(&segment);
        course.damaged.remove(&segment);
        course.unread.remove(&segment);
        if let Err(error) = done {
            tracing::error!(%segment, %error, "cannot put a shipped segment away");
            course.stuck.insert(segment);
        }
    }

    /// Keeps the positions of the segments that there are, and forgets those that nobody has used for
    /// [`REMEMBERED`].
    async fn tidy(&self, now: DateTime<Utc>) -> Result<(), DbError> {
        let mut course = self.course.lock().await;
        let there: HashSet<_> =
            self.spool.segments().into_iter().map(|segment| segment.id).collect();
        course.positions.retain(|id, _| there.contains(id));
        let used = course.positions.iter().filter(|(_, position)| **position > 0);
        let used: Vec<_> = used.map(|(id, position)| (*id, *position)).collect();
        drop(course);
        let now = self.db.clock(now).await?;
        let steps: Vec<_> = used.into_iter().map(|(id, at)| self.step(id, at, at, now)).collect();
        self.db
            .run(move |conn| {
                async move {
                    for step in &steps {
                        match spool_positions::advance(conn, step).await {
                            // Shipped on in between, which is as good.
                            Ok(()) | Err(DbError::Conflict(_)) => {}
                            Err(error) => return Err(error),
                        }
                    }
                    spool_positions::prune(conn, now - REMEMBERED).await.map(drop)
                }
                .boxed()
            })
            .await
    }
}
