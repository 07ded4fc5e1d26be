//! Counts hours for [`stats`](crate::stats), under the lease of the scan, so that each is counted by one
//! scheduler; each is set whole, never added to, so counting twice changes nothing.
//!
//! An hour that was touched is counted before its mark is forgotten, so no record is left out. The hour
//! that goes on is counted as far as nothing is under way any more; what is behind that is read from the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;

use super::keep::keeping;
use super::{TRAFFIC_LIMIT, still_ours};
use crate::db::leases::{self, Lease};
use crate::db::request_hours::{self, Counts, Part, Records, RequestHour};
use crate::db::touched_hours::TouchedHour;
use crate::db::{Db, DbError, partitions, request_tops};
use crate::detect::Window;
use crate::stats::Dimension;

/// So many hours of an older log are counted in one run, the newest first, for the next window is not to wait;
/// and forgotten in one transaction.
const AT_ONCE: usize = 24;

/// So many hours without any record are looked at in one run.
const EMPTY_AT_ONCE: usize = 1_000;

const PUT_LIMIT: Duration = Duration::from_secs(60);

/// Counts hours that were touched, before the window is judged that settles them.
pub(super) async fn touched(
    db: &Db,
    lease: &Lease,
    rows: &[TouchedHour],
    clock: &impl Fn() -> DateTime<Utc>,
) -> Result<(), DbError> {
    for window in rows.iter().map(|row| Window::of(row.hour)).collect::<BTreeSet<Window>>() {
        count(db, lease, Part { window, records: Records::All }, clock()).await?;
    }
    Ok(())
}

/// Counts the hour that goes on, and those that ended and were not counted, or not whole.
pub(super) async fn missing(
    db: &Db,
    lease: &Lease,
    clock: &impl Fn() -> DateTime<Utc>,
) -> Result<(), DbError> {
    let now = still_ours(db, lease, clock()).await?;
    let running = Window::of(now);
    let mark = db.run(move |conn| request_hours::mark(conn, now).boxed()).await?;
    count(db, lease, Part { window: running, records: Records::Before(mark) }, clock()).await?;

    let (mut full, mut empty) = (0, 0);
    for window in uncounted(db, running.start()).await? {
        match count(db, lease, Part { window, records: Records::All }, clock()).await? {
            0 => empty += 1,
            _ => full += 1,
        }
        if full == AT_ONCE || empty == EMPTY_AT_ONCE {
            break;
        }
    }
    Ok(())
}

/// The hours before `until` that are to be counted, newest first.
async fn uncounted(db: &Db, until: DateTime<Utc>) -> Result<Vec<Window>, DbError> {
    let look = db.snapshot(move |conn| {
        async move {
            let counted = request_hours::before(conn, until).await?;
            Ok((counted, partitions::hours(conn, until).await?))
        }
        .boxed()
    });
    let (counted, logged) = look.await?;
    let is_whole = |row: &RequestHour| row.counted_to.is_none();
    let counted: BTreeMap<_, _> = counted.iter().map(|row| (row.hour, is_whole(row))).collect();
    let logged = logged.into_iter().filter(|hour| !counted.contains_key(hour));
    let half = counted.iter().filter(|(_, is_whole)| !**is_whole).map(|(hour, _)| *hour);
    let mut all: Vec<Window> = logged.chain(half).map(Window::of).collect();
    all.sort_unstable_by(|one, other| other.cmp(one));
    Ok(all)
}

/// Counts a part of the log and puts it in the place of what was counted of its hour. Returns how many
/// requests that were.
async fn count(db: &Db, lease: &Lease, part: Part, now: DateTime<Utc>) -> Result<i64, DbError> {
    let patient = db.with_timeout(TRAFFIC_LIMIT);
    let counted = patient.snapshot(move |conn| {
        async move {
            let counts = request_hours::count(conn, part).await?;
            let mut tops = Vec::new();
            if counts.requests > 0 {
                for dimension in Dimension::ALL {
                    tops.push(request_tops::count(conn, dimension, part).await?);
                }
            }
            Ok((counts, tops))
        }
        .boxed()
    });
    let (counts, tops) = keeping(db, lease, now, counted).await?;
    let Counts { requests, blocked, throttled } = counts;
    let counted_to = match part.records {
        Records::Before(mark) => Some(mark),
        Records::All | Records::Behind(_) => None,
    };
    let hour = part.window.start();
    let row = RequestHour { hour, requests, blocked, throttled, counted_to };
    let lease = lease.clone();
    db.with_timeout(PUT_LIMIT)
        .transaction(move |conn| {
            async move {
                let store_now = conn.clock(now).await?;
                leases::renew(conn, &lease, store_now).await?;
                request_tops::remove_hour(conn, hour).await?;
                for tops in tops {
                    request_tops::put(conn, hour, tops).await?;
                }
                request_hours::put(conn, row).await?;
                Ok(requests)
            }
            .boxed()
        })
        .await
}

/// Forgets what was counted of hours that are older than `keep` and no longer in the log. Returns how many
/// hours that were.
///
/// # Errors
/// As any statement.
pub async fn forget_old(db: &Db, keep: TimeDelta, now: DateTime<Utc>) -> Result<usize, DbError> {
    let before = now - keep;
    let mut forgotten = 0;
    loop {
        let some = db.transaction(move |conn| {
            async move {
                let logged: BTreeSet<_> =
                    partitions::hours(conn, before).await?.into_iter().collect();
                let all = request_hours::before(conn, before).await?;
                let old = all.iter().map(|row| row.hour).filter(|hour| !logged.contains(hour));
                let some: Vec<_> = old.take(AT_ONCE).collect();
                for hour in &some {
                    request_tops::remove_hour(conn, *hour).await?;
                    request_hours::remove(conn, *hour).await?;
                }
                Ok(some.len())
            }
            .boxed()
        });
        let some = some.await?;
        forgotten += some;
        if some < AT_ONCE {
            return Ok(forgotten);
        }
    }
}
