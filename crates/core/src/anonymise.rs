//! Anonymising: in old records an address becomes the first of its /24 (IPv4) or /48 (IPv6).
//!
//! Hour by hour, the oldest first, each in parts that are written in transactions of their own; how far it
//! has come stands in the table `anonymised`. Any number of schedulers may do it at once, and whoever is
//! interrupted goes on: a cut address is cut no further.
//!
//! The scan needs whole addresses. So an hour is left alone until it was judged, and so is every hour that
//! a judgement reaches back into. Records that come late are judged first, and then their hour is gone
//! through again. When an hour is judged once more after it was cut, cut addresses do not count.

use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use futures_util::FutureExt;

use crate::db::{Db, DbError, anonymised, partitions, request_tops, touched_hours};
use crate::detect::WINDOW;

/// Records of one transaction, about.
const AT_ONCE: i64 = 10_000;
/// Rewriting so many may be slow.
const LIMIT: Duration = Duration::from_secs(120);

/// Cuts the addresses of records that are older than `after` at `now`, the store's clock, as far as the scan,
/// whose rules look at `span`, is through with them. Returns how many.
///
/// # Errors
/// As any statement; what was cut stays cut.
pub async fn run(
    db: &Db,
    after: TimeDelta,
    span: TimeDelta,
    now: DateTime<Utc>,
) -> Result<usize, DbError> {
    let db = db.with_timeout(LIMIT);
    let mut all = 0;
    while let Some(next) = next(&db, now - after, span).await? {
        for (from, to) in next.parts() {
            all +=
                db.transaction(move |conn| anonymised::cut_between(conn, from, to).boxed()).await?;
        }
        let (seen, to) = (next.seen, next.hour + WINDOW);
        db.transaction(move |conn| anonymised::advance(conn, seen, to).boxed()).await?;
    }
    // Networks as wide as that are counted apart.
    db.transaction(move |conn| request_tops::anonymise(conn, now - after).boxed()).await?;
    Ok(all)
}

/// The hour whose turn it is.
struct Next {
    /// How far it had come.
    seen: Option<DateTime<Utc>>,
    hour: DateTime<Utc>,
    records: i64,
}

impl Next {
    /// The hour in equal parts.
    fn parts(&self) -> impl Iterator<Item = (DateTime<Utc>, DateTime<Utc>)> + use<> {
        let parts = i32::try_from(self.records / AT_ONCE + 1).unwrap_or(i32::MAX);
        let (hour, step) = (self.hour, WINDOW / parts);
        (0..parts).map(move |part| {
            let end = if part + 1 == parts { hour + WINDOW } else { hour + step * (part + 1) };
            (hour + step * part, end)
        })
    }
}

/// The next hour that ends before `before`, and that nobody will judge any more.
async fn next(db: &Db, before: DateTime<Utc>, span: TimeDelta) -> Result<Option<Next>, DbError> {
    let (seen, touched) = db
        .run(|conn| {
            async move { Ok((anonymised::until(conn).await?, touched_hours::first(conn).await?)) }
                .boxed()
        })
        .await?;
    let limit = touched.map_or(before, |hour| before.min(hour - span));
    let Some(first) = partitions::first_from(db, seen.unwrap_or(DateTime::UNIX_EPOCH)).await?
    else {
        return Ok(None);
    };
    let hour = first.duration_trunc(WINDOW).unwrap_or(first);
    if hour + WINDOW > limit {
        return Ok(None);
    }
    let records = db.run(move |conn| anonymised::count(conn, hour, hour + WINDOW).boxed()).await?;
    Ok(Some(Next { seen, hour, records }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_with_many_records_falls_into_parts_without_gaps() {
        let hour = "2026-11-22T17:00:00Z".parse().unwrap();
        for (records, parts) in [(0, 1), (9_999, 1), (10_000, 2), (70_001, 8)] {
            let next = Next { seen: None, hour, records };
            let all: Vec<_> = next.parts().collect();
            assert_eq!(all.len(), parts);
            assert_eq!((all[0].0, all[parts - 1].1), (hour, hour + WINDOW));
            assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0), "{all:?}");
        }
    }
}
