//! The days of `request_logs` in PostgreSQL: made ahead of time and on demand, dropped when old.
//!
//! SQLite has one table; there this does nothing but delete what is old.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;

use super::types::TsValue;
use super::{Conn, Db, DbError};

/// Any number, the same in every process: makers of partitions take turns.
const LOCK: i64 = 0x6970_7761_7264_6179;

/// Whether a day may go is told by its summaries, but those of a day may be missing; it is read then.
const DROP_LIMIT: Duration = Duration::from_secs(5 * 60);

/// SQLite deletes this many records at a time, so that the writer's turn is never kept long.
const DELETE_AT_ONCE: i64 = 20_000;

#[derive(diesel::QueryableByName)]
struct Partition {
    #[diesel(sql_type = diesel::sql_types::Text)]
    name: String,
}

/// Makes sure that records of these days can be written.
///
/// # Errors
/// As any statement.
pub async fn ensure(db: &Db, days: &BTreeSet<NaiveDate>) -> Result<(), DbError> {
    let Db::Postgres(pool) = db else { return Ok(()) };
    let missing: Vec<NaiveDate> = {
        let known = pool.known_days().lock();
        days.iter().filter(|day| !known.contains(*day)).copied().collect()
    };
    if missing.is_empty() {
        return Ok(());
    }
    let made = missing.clone();
    db.transaction(move |conn| {
        async move {
            conn.batch(&format!("select pg_advisory_xact_lock({LOCK})")).await?;
            let Conn::Postgres(c) = conn else { return Ok(()) };
            let there: Vec<String> = names(c).await?;
            for day in missing.iter().filter(|day| !there.contains(&name(**day))) {
                create(conn, *day).await?;
            }
            Ok(())
        }
        .boxed()
    })
    .await?;
    pool.known_days().lock().extend(made);
    Ok(())
}

/// Forgets which days were there: somebody dropped one.
pub(super) fn forget(db: &Db) {
    if let Db::Postgres(pool) = db {
        pool.known_days().lock().clear();
    }
}

/// Drops what is older than `keep` at `now`: days of which no record was recorded since (an import may
/// be of old days). Returns how many days (PostgreSQL) or records (SQLite) went.
///
/// # Errors
/// As any statement.
pub async fn drop_old(db: &Db, keep: TimeDelta, now: DateTime<Utc>) -> Result<usize, DbError> {
    let before = now - keep;
    match db {
        Db::Postgres(_) => drop_old_days(db, before).await,
        Db::Sqlite(_) => delete_old_records(db, before).await,
    }
}

/// From when on there are records, not before `from`: in SQLite the first of them, in PostgreSQL the first of
/// their days. `None` if there are none.
///
/// # Errors
/// As any statement.
pub async fn first_from(db: &Db, from: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, DbError> {
    db.run(move |conn| {
        async move {
            match conn {
                Conn::Postgres(c) => {
                    let days = names(c).await?;
                    let first = days.iter().filter_map(|name| day(name)?.and_hms_opt(0, 0, 0));
                    let is_over = |day: &DateTime<Utc>| *day + TimeDelta::days(1) <= from;
                    let first = first.map(|day| day.and_utc()).find(|day| !is_over(day));
                    Ok(first.map(|day| day.max(from)))
                }
                Conn::Sqlite(c) => {
                    use super::schema::request_logs::dsl;
                    let first = dsl::request_logs
                        .filter(dsl::at.ge(TsValue(from)))
                        .order(dsl::at)
                        .select(dsl::at);
                    let first: Option<TsValue> = first.first(c).await.optional()?;
                    Ok(first.map(|at| at.0))
                }
            }
        }
        .boxed()
    })
    .await
}

/// The hours before `until` of every day that the log has a place for, oldest first; there may be none of
/// their records.
///
/// # Errors
/// As any statement.
pub async fn hours(conn: &mut Conn, until: DateTime<Utc>) -> Result<Vec<DateTime<Utc>>, DbError> {
    let days = days(conn).await?;
    let hours = days.iter().flat_map(|day| {
        let start = day.and_time(NaiveTime::MIN).and_utc();
        (0..24).map(move |hour| start + TimeDelta::hours(hour))
    });
    Ok(hours.take_while(|hour| *hour < until).collect())
}

async fn days(conn: &mut Conn) -> Result<Vec<NaiveDate>, DbError> {
    match conn {
        Conn::Postgres(c) => Ok(names(c).await?.iter().filter_map(|name| day(name)).collect()),
        Conn::Sqlite(c) => {
            let starts: Vec<Start> = diesel::sql_query(SQLITE_DAYS).load(c).await?;
            Ok(starts.into_iter().map(|start| start.at.0.date_naive()).collect())
        }
    }
}

/// A day after the other: each step is one look into the index.
const SQLITE_DAYS: &str = "with recursive days (at) as (
        select min(at) from request_logs
        union all
        select (select min(log.at) from request_logs log where log.at >= \
            (days.at / 86400000000 + 1) * 86400000000)
        from days where days.at is not null
    ) select at from days where at is not null";

#[derive(diesel::QueryableByName)]
struct Start {
    #[diesel(sql_type = super::types::Ts)]
    at: TsValue,
}

async fn create(conn: &mut Conn, day: NaiveDate) -> Result<(), DbError> {
    let next = day.checked_add_days(Days::new(1)).unwrap_or(day);
    let name = name(day);
    // Attaching waits for nobody who reads or writes other days; `partition of` would. It takes the index that
    // is there in place of the parent's, which has 32 pages to a range: each range that is full is to be
    // summarised, and of such wishes the server remembers 256 until it looks after them, in a minute, and
    // logs each one more. So it does from some 40,000 records a second on, and not from 5,000.
    conn.batch(&format!(
        "create table {name} (like request_logs including defaults including constraints); \
         create index on {name} using brin (at, recorded_at) \
         with (pages_per_range = 256, autosummarize = on); \
         alter table request_logs attach partition {name} for values from ('{day} 00:00:00+00') \
         to ('{next} 00:00:00+00')"
    ))
    .await
}

async fn drop_old_days(db: &Db, before: DateTime<Utc>) -> Result<usize, DbError> {
    let all = db
        .run(|conn| {
            async move {
                match conn {
                    Conn::Postgres(c) => names(c).await,
                    Conn::Sqlite(_) => Ok(Vec::new()),
                }
            }
            .boxed()
        })
        .await?;
    let mut dropped = 0;
    for partition in all {
        let Some(day) = day(&partition) else { continue };
        let ended = day.succ_opt().and_then(|next| next.and_hms_opt(0, 0, 0));
        if ended.is_none_or(|ended| ended.and_utc() > before) {
            continue;
        }
        let patient = db.with_timeout(DROP_LIMIT);
        let gone =
            patient.transaction(move |conn| drop_day(conn, partition, before).boxed()).await?;
        dropped += usize::from(gone);
    }
    if dropped > 0 {
        forget(db);
    }
    Ok(dropped)
}

async fn drop_day(
    conn: &mut Conn,
    partition: String,
    before: DateTime<Utc>,
) -> Result<bool, DbError> {
    let Conn::Postgres(c) = conn else { return Ok(false) };
    let fresh: Vec<Partition> = diesel::sql_query(format!(
        "select '' as name from {partition} where recorded_at >= $1 limit 1"
    ))
    .bind::<super::types::Ts, _>(TsValue(before))
    .load(c)
    .await?;
    if fresh.is_empty() {
        conn.batch(&format!("drop table {partition}")).await?;
    }
    Ok(fresh.is_empty())
}

async fn delete_old_records(db: &Db, before: DateTime<Utc>) -> Result<usize, DbError> {
    use super::schema::request_logs::dsl;
    let mut deleted = 0;
    loop {
        let gone = db
            .transaction(move |conn| {
                async move {
                    let old = dsl::request_logs
                        .filter(dsl::at.lt(TsValue(before)))
                        .filter(dsl::recorded_at.lt(TsValue(before)))
                        .limit(DELETE_AT_ONCE)
                        .select(dsl::id);
                    let ids: Vec<i64> = on!(conn, |c| old.load(c).await)?;
                    for some in ids.chunks(10_000) {
                        let rows = dsl::request_logs.filter(dsl::id.eq_any(some));
                        on!(conn, |c| diesel::delete(rows).execute(c).await)?;
                    }
                    Ok(ids.len())
                }
                .boxed()
            })
            .await?;
        deleted += gone;
        if i64::try_from(gone).is_ok_and(|gone| gone < DELETE_AT_ONCE) {
            return Ok(deleted);
        }
    }
}

async fn names(c: &mut AsyncPgConnection) -> Result<Vec<String>, DbError> {
    let rows: Vec<Partition> = diesel::sql_query(
        "select inhrelid::regclass::text as name from pg_inherits \
         where inhparent = 'request_logs'::regclass order by 1",
    )
    .load(c)
    .await?;
    Ok(rows.into_iter().map(|row| row.name).collect())
}

fn name(day: NaiveDate) -> String {
    format!("request_logs_{}", day.format("%Y%m%d"))
}

fn day(partition: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(partition.strip_prefix("request_logs_")?, "%Y%m%d").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_day_has_each_index_of_its_log_once() {
        let database = ipwarden_testbed::postgres_database().expect("PostgreSQL runs");
        let db = Db::postgres(database.url(), 2).expect("its URL is one");
        db.migrate().await.expect("it is empty");
        let day = NaiveDate::from_ymd_opt(2026, 11, 23).expect("there is one");
        ensure(&db, &[day].into()).await.expect("it can be made");
        // By what they are on, and whether the log's own has them as its part.
        let check = "do $$ declare found text; begin \
            select string_agg(substring(indexdef from 'USING (.*)'), '; ' order by indexdef) \
            into found from pg_indexes join pg_inherits on inhrelid = indexname::regclass \
            where tablename = 'request_logs_20261123'; \
            assert found = 'btree (address, at); btree (at) WHERE sensitive; brin (at, recorded_at) \
            WITH (pages_per_range=''256'', autosummarize=''on'')', found; \
            assert (select count(*) = 3 from pg_indexes where tablename = 'request_logs_20261123'); \
            end $$";
        db.run(move |conn| conn.batch(check).boxed()).await.expect("each is there");
    }
}
