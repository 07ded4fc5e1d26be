//! What is read from the spool for one transaction, and the rows that it becomes.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipwarden_engine::record::Record;
use ipwarden_engine::spool::{Damage, ReadEnd, SegmentId, Spool, SpoolError};

use crate::db::request_logs::NewLogged;
use crate::geo::Place;

/// The end of the year 9999, in microseconds since the Unix epoch: no database likes later days.
const LATEST: i64 = 253_402_300_799_999_999;

/// What is read for one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) portions: Vec<Portion>,
    /// What the disk did not let us read: it may be for want of file descriptors, so it is no damage.
    pub(super) failures: Vec<(SegmentId, SpoolError)>,
    /// Whether there may be more to read at once.
    pub(super) more: bool,
}

impl Batch {
    /// Where reading goes on behind this batch, which was read by `plan`.
    pub(super) fn behind(&self, mut plan: Vec<(SegmentId, u64)>) -> Vec<(SegmentId, u64)> {
        plan.retain_mut(|(segment, from)| {
            let read = self.portions.iter().find(|portion| portion.segment == *segment);
            read.is_none_or(|portion| {
                *from = portion.to;
                portion.fate == Fate::Open
            })
        });
        plan
    }
}

/// What is read of one segment.
pub(super) struct Portion {
    pub(super) segment: SegmentId,
    pub(super) from: u64,
    /// Where the next reading goes on; `from` if there was nothing to read.
    pub(super) to: u64,
    /// Until they become rows.
    pub(super) records: Vec<Record>,
    pub(super) damages: Vec<(u64, Damage)>,
    pub(super) fate: Fate,
}

/// What becomes of a segment once its portion is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has or will have more.
    Open,
    /// That was all of it.
    Shipped,
    /// Nothing more can be read of it, from this position on.
    Unreadable(u64),
}

/// Reads at most `max` records, from each segment where it goes on. Blocks.
pub(super) fn gather(spool: &Spool, plan: &[(SegmentId, u64)], max: usize) -> Batch {
    let mut batch = Batch::default();
    let mut left = max;
    for &(segment, from) in plan {
        if left == 0 {
            batch.more = true;
            break;
        }
        match read(spool, segment, from, left) {
            Ok((portion, more)) => {
                left -= portion.records.len();
                batch.more |= more;
                batch.portions.push(portion);
            }
            // It was the oldest of a full spool.
            Err(SpoolError::Gone(_)) => {}
            Err(error) => batch.failures.push((segment, error)),
        }
    }
    batch
}

/// Reads one segment, past what is damaged in it.
fn read(
    spool: &Spool,
    segment: SegmentId,
    from: u64,
    max: usize,
) -> Result<(Portion, bool), SpoolError> {
    let (mut records, mut damages) = (Vec::new(), Vec::new());
    let mut at = from;
    let (fate, more) = loop {
        let read = spool.read(segment, at, max - records.len(), &mut records)?;
        at = read.next;
        match read.end {
            ReadEnd::More => break (Fate::Open, true),
            ReadEnd::Open => break (Fate::Open, false),
            ReadEnd::Sealed => break (Fate::Shipped, false),
            ReadEnd::Damaged { at: place, why, resume } => {
                damages.push((place, why));
                match resume {
                    Some(resume) => at = resume,
                    None => break (Fate::Unreadable(place), false),
                }
            }
        }
    };
    let to = if records.is_empty() && damages.is_empty() { from } else { at };
    Ok((Portion { segment, from, to, records, damages, fate }, more))
}

/// The row of a record that is read `now`. A time that no calendar has becomes that of its reading.
pub(super) fn row(record: Record, place: Place, node: &Arc<str>, now: DateTime<Utc>) -> NewLogged {
    let at = Some(record.at).filter(|at| (0..=LATEST).contains(at));
    NewLogged {
        at: at.and_then(DateTime::from_timestamp_micros).unwrap_or(now),
        address: record.address,
        method: record.method,
        path: record.path,
        status: i16::try_from(record.status).unwrap_or(i16::MAX),
        verdict: record.verdict.as_str(),
        sensitive: record.sensitive,
        identity: record.identity,
        country: place.country.map(|country| country.to_string()),
        city: place.city.map(|city| city.to_string()),
        asn: place.asn.map(i64::from),
        user_agent: record.user_agent,
        reference: Some(record.reference.to_string()),
        node: node.clone(),
        // Until it is written.
        recorded_at: now,
    }
}
