//! The end of the request log: what came into it since somebody looked.
//!
//! In SQLite there is one writer, so rows become visible in the order of their ids. In PostgreSQL many
//! write at once, and what was dated first may be committed last: each look goes back a little, and leaves
//! out what it has seen. So nothing is missed. Who goes on from a position that he was given may see the
//! last few seconds before it again.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;

use crate::db::request_logs::{self, Filter, Logged};
use crate::db::{Db, DbError};

/// How long after its date a record may come: a batch is dated just before it is written, and the store
/// may take this long.
const LATE: TimeDelta = TimeDelta::seconds(5);
/// Rows of one look.
const ROWS: i64 = 500;

/// Where somebody stands at the end of the log.
#[derive(Debug)]
pub struct Tail {
    /// Everything before was shown, except what comes late; see [`request_logs::end`].
    at: [i64; 2],
    /// Where the running look goes on.
    look: Option<[i64; 2]>,
    /// Rows that were shown and may be met again, with their dates.
    seen: HashMap<i64, i64>,
}

impl Tail {
    /// Stands at the end: only what comes from now on is shown.
    ///
    /// # Errors
    /// As any statement.
    pub async fn at_the_end(db: &Db, now: DateTime<Utc>) -> Result<Tail, DbError> {
        let mut tail = Tail::from([0, 0]);
        let end = db.run(move |conn| request_logs::end(conn, now).boxed()).await?;
        tail.at = end;
        if !db.is_sqlite() {
            let everything = Filter::default();
            while !tail.next(db, &everything, now).await?.is_empty() {}
        }
        Ok(tail)
    }

    /// Stands where [`Tail::position`] said.
    pub fn from(position: [i64; 2]) -> Tail {
        Tail { at: position, look: None, seen: HashMap::new() }
    }

    /// Where this stands, for [`Tail::from`].
    pub fn position(&self) -> [i64; 2] {
        self.at
    }

    /// Some of what came and fits, the oldest first, each with where its reader stands then; empty when
    /// that is all for now.
    ///
    /// # Errors
    /// As any statement; then this stands where it stood.
    pub async fn next(
        &mut self,
        db: &Db,
        filter: &Filter,
        now: DateTime<Utc>,
    ) -> Result<Vec<([i64; 2], Logged)>, DbError> {
        let is_sqlite = db.is_sqlite();
        loop {
            let from = self.look.unwrap_or(match is_sqlite {
                true => self.at,
                false => [self.at[0].saturating_sub(late()), 0],
            });
            let filter = filter.clone();
            let (end, mut rows) = db
                .run(move |conn| {
                    async move {
                        // First: what comes after this is for the next look.
                        let end = request_logs::end(conn, now).await?;
                        Ok((end, request_logs::behind(conn, &filter, from, end, ROWS).await?))
                    }
                    .boxed()
                })
                .await?;
            let full = i64::try_from(rows.len()).is_ok_and(|count| count == ROWS);
            let position = |row: &Logged| match is_sqlite {
                true => [row.id, 0],
                false => [row.recorded_at.timestamp_micros(), row.id],
            };
            self.look = rows.last().map(position).filter(|_| full);
            rows.retain(|row| !self.seen.contains_key(&row.id));
            let mut shown = Vec::with_capacity(rows.len());
            for row in rows {
                if !is_sqlite {
                    self.seen.insert(row.id, row.recorded_at.timestamp_micros());
                }
                self.at = self.at.max(position(&row));
                shown.push((self.at, row));
            }
            if !full {
                self.at = self.at.max(end);
                let horizon = self.at[0].saturating_sub(late());
                self.seen.retain(|_, dated| *dated >= horizon);
            }
            if !shown.is_empty() || !full {
                return Ok(shown);
            }
        }
    }
}

fn late() -> i64 {
    LATE.num_microseconds().unwrap_or(i64::MAX)
}
