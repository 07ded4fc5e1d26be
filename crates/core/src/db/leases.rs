//! `leases`: who may do what only one may do at a time.
//!
//! A lease ends by the store's clock. Its fencing number counts up with every holder, and
//! [`renew`] in the very transaction that writes the work makes a holder who was too slow fail
//! there instead of writing over his successor's work.
//!
//! The clock of a store may be set back. A lease that then ends later than anybody can have made it
//! last counts as ended: otherwise a minute in a wrong year would keep everybody out until that year.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tokio_postgres::types::Type;

use super::client::Parameter;
use super::schema::leases;
use super::types::TsValue;
use super::{Client, Conn, DbError};

/// A lease that was had when it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: &'static str,
    /// Who took it.
    pub holder: String,
    /// Counts up with every holder.
    pub fencing: i64,
    /// How long it lasts from each renewal on.
    pub ttl: TimeDelta,
}

/// Takes a lease that nobody holds at `now` (the store's clock); `None` if somebody does. Belongs
/// in a transaction.
///
/// # Errors
/// As any statement.
pub async fn acquire(
    conn: &mut Conn,
    name: &'static str,
    holder: &str,
    ttl: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Option<Lease>, DbError> {
    let new = (
        leases::name.eq(name),
        leases::holder.eq(holder.to_owned()),
        leases::fencing.eq(0_i64),
        leases::expires_at.eq(TsValue(now)),
    );
    on!(conn, |c| diesel::insert_into(leases::table)
        .values(new)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    // Twice: a clock that is put right by moments makes nobody's lease free.
    let credible = now + ttl * 2;
    let free = leases::table
        .find(name)
        .filter(leases::expires_at.le(TsValue(now)).or(leases::expires_at.gt(TsValue(credible))));
    let fencing: Option<i64> = on!(conn, |c| diesel::update(free)
        .set((
            leases::holder.eq(holder.to_owned()),
            leases::fencing.eq(leases::fencing + 1_i64),
            leases::expires_at.eq(TsValue(now + ttl)),
        ))
        .returning(leases::fencing)
        .get_result(c)
        .await
        .optional())?;
    Ok(fencing.map(|fencing| Lease { name, holder: holder.to_owned(), fencing, ttl }))
}

/// Says that the holder is still at it, and locks the lease until the transaction ends.
///
/// # Errors
/// [`DbError::Conflict`] when somebody else has taken it since.
pub async fn renew(conn: &mut Conn, lease: &Lease, now: DateTime<Utc>) -> Result<(), DbError> {
    let mine = leases::table.find(lease.name).filter(leases::fencing.eq(lease.fencing));
    let renewed = on!(conn, |c| diesel::update(mine)
        .set(leases::expires_at.eq(TsValue(now + lease.ttl)))
        .execute(c)
        .await)?;
    lease.renewed(renewed)
}

/// The same as [`renew`], where a batch is copied.
pub(super) async fn renew_by(client: &Client, lease: &Lease) -> Result<(), DbError> {
    let ttl = lease.ttl.num_microseconds().unwrap_or(i64::MAX);
    let sql = "update leases set expires_at = clock_timestamp() + $3 * interval '1 microsecond' \
        where name = $1 and fencing = $2";
    let parameters: [Parameter<'_>; 3] =
        [(&lease.name, Type::TEXT), (&lease.fencing, Type::INT8), (&(ttl as f64), Type::FLOAT8)];
    lease.renewed(client.change(sql, &parameters).await? as usize)
}

impl Lease {
    fn renewed(&self, rows: usize) -> Result<(), DbError> {
        match rows {
            1 => Ok(()),
            _ => {
                let what = format!("somebody else has taken the lease `{}`", self.name);
                Err(DbError::Conflict(what))
            }
        }
    }
}

/// Gives a lease back before its end; one that was lost stays with whoever has it.
///
/// # Errors
/// As any statement.
pub async fn release(conn: &mut Conn, lease: &Lease, now: DateTime<Utc>) -> Result<(), DbError> {
    let mine = leases::table.find(lease.name).filter(leases::fencing.eq(lease.fencing));
    let ended = leases::expires_at.eq(TsValue(now));
    on!(conn, |c| diesel::update(mine).set(ended).execute(c).await)?;
    Ok(())
}

/// Who holds a lease at `now`, and until when.
///
/// # Errors
/// As any statement.
pub async fn holder(
    conn: &mut Conn,
    name: &str,
    now: DateTime<Utc>,
) -> Result<Option<(String, DateTime<Utc>)>, DbError> {
    let held = leases::table
        .find(name.to_owned())
        .filter(leases::expires_at.gt(TsValue(now)))
        .select((leases::holder, leases::expires_at));
    let row: Option<(String, TsValue)> = on!(conn, |c| held.first(c).await.optional())?;
    Ok(row.map(|(holder, until)| (holder, until.0)))
}
