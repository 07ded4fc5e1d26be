//! `anonymised`: how far the addresses in old records have been cut, and the cutting itself.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::{anonymised, request_logs};
use super::types::{Ts, TsValue};
use super::{Conn, DbError};

/// What is left of an address, in the words of each database: its /24 or /48, under the first address of it.
pub(super) fn cut(conn: &Conn) -> &'static str {
    match conn {
        Conn::Postgres(_) => {
            "host(network(set_masklen(address, case family(address) when 4 then 24 else 48 end)))::inet"
        }
        Conn::Sqlite(_) => {
            "cast(case substr(address, 1, 1) when x'04' then substr(address, 1, 16) || x'00' \
             else substr(address, 1, 7) || zeroblob(10) end as blob)"
        }
    }
}

/// Before when all records are cut; `None` before the first was.
///
/// # Errors
/// As any statement.
pub async fn until(conn: &mut Conn) -> Result<Option<DateTime<Utc>>, DbError> {
    let row = anonymised::table.find(1).select(anonymised::until);
    let until: Option<TsValue> = on!(conn, |c| row.first(c).await.optional())?;
    Ok(until.map(|until| until.0))
}

/// Says that all records before `to` are cut, unless that was said of other than `from` in between.
///
/// # Errors
/// As any statement.
pub async fn advance(
    conn: &mut Conn,
    from: Option<DateTime<Utc>>,
    to: DateTime<Utc>,
) -> Result<(), DbError> {
    match from {
        None => {
            let row = (anonymised::id.eq(1), anonymised::until.eq(TsValue(to)));
            on!(conn, |c| diesel::insert_into(anonymised::table)
                .values(row)
                .on_conflict_do_nothing()
                .execute(c)
                .await)?;
        }
        Some(from) => {
            let row = anonymised::table.find(1).filter(anonymised::until.eq(TsValue(from)));
            let set = anonymised::until.eq(TsValue(to));
            on!(conn, |c| diesel::update(row).set(set).execute(c).await)?;
        }
    }
    Ok(())
}

/// Says that records of this hour may have come whose addresses are whole.
///
/// # Errors
/// As any statement.
pub async fn reopen(conn: &mut Conn, hour: DateTime<Utc>) -> Result<(), DbError> {
    let row = anonymised::table.find(1).filter(anonymised::until.gt(TsValue(hour)));
    let set = anonymised::until.eq(TsValue(hour));
    on!(conn, |c| diesel::update(row).set(set).execute(c).await)?;
    Ok(())
}

/// How many records there are from `from` on and before `to`.
///
/// # Errors
/// As any statement.
pub async fn count(
    conn: &mut Conn,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<i64, DbError> {
    let rows = request_logs::table
        .filter(request_logs::at.ge(TsValue(from)))
        .filter(request_logs::at.lt(TsValue(to)))
        .count();
    on!(conn, |c| rows.get_result(c).await)
}

/// Cuts the addresses of records from `from` on and before `to`. Returns how many were whole.
///
/// # Errors
/// As any statement.
pub async fn cut_between(
    conn: &mut Conn,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<usize, DbError> {
    let (cut, parameters) = (
        cut(conn),
        match conn {
            Conn::Postgres(_) => ["$1", "$2"],
            Conn::Sqlite(_) => ["?", "?"],
        },
    );
    let [first, last] = parameters;
    let update = format!(
        "update request_logs set address = {cut} \
         where at >= {first} and at < {last} and address <> {cut}"
    );
    on!(conn, |c| diesel::sql_query(update)
        .bind::<Ts, _>(TsValue(from))
        .bind::<Ts, _>(TsValue(to))
        .execute(c)
        .await)
}
