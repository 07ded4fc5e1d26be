//! `bouncers`: who pulls decisions, and how far each has come. A bouncer is a key and an address.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use ipwarden_engine::network::Network;
use serde::Serialize;

use super::schema::bouncers;
use super::types::{AddrValue, MaybeTs, TsValue};
use super::{Conn, DbError};

/// One bouncer.
#[derive(Clone, Debug, PartialEq, Queryable, Serialize)]
pub struct Bouncer {
    /// Of the row.
    pub id: i64,
    /// Of its key in `api_keys`.
    pub key_id: String,
    /// Where it comes from.
    #[diesel(deserialize_as = AddrValue)]
    pub address: IpAddr,
    /// Which program it says it is: the name in its `User-Agent`.
    pub kind: Option<String>,
    /// Of that program, likewise.
    pub version: Option<String>,
    /// By the store's clock.
    #[diesel(deserialize_as = TsValue)]
    pub first_seen: DateTime<Utc>,
    /// When it last asked for decisions, by the store's clock.
    #[diesel(deserialize_as = TsValue)]
    pub last_pull: DateTime<Utc>,
    /// The version of the lists that its last complete pull told it; `None` before the first.
    pub list_version: Option<i64>,
    /// When that pull was answered.
    #[diesel(deserialize_as = MaybeTs)]
    pub pulled_at: Option<DateTime<Utc>>,
    /// When a complete pull last told it everything.
    #[diesel(deserialize_as = MaybeTs)]
    pub announced_at: Option<DateTime<Utc>>,
    /// How many decisions it applies, as it said itself.
    pub applied: Option<i64>,
}

/// Which bouncer, and what it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Of its key in `api_keys`.
    pub key_id: String,
    /// Where it comes from.
    pub address: IpAddr,
    /// The name in its `User-Agent`.
    pub kind: Option<String>,
    /// The version there.
    pub version: Option<String>,
}

/// How far a complete pull has brought a bouncer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Of the lists.
    pub list_version: i64,
    /// By the store's clock.
    pub at: DateTime<Utc>,
    /// Whether it was told everything.
    pub everything: bool,
}

/// Notes that a bouncer asked for something at `now` (the store's clock).
///
/// # Errors
/// As any statement.
pub async fn seen(conn: &mut Conn, who: Who, now: DateTime<Utc>) -> Result<(), DbError> {
    let row = (
        bouncers::key_id.eq(who.key_id),
        bouncers::address.eq(AddrValue(who.address)),
        bouncers::kind.eq(who.kind.clone()),
        bouncers::version.eq(who.version.clone()),
        bouncers::first_seen.eq(TsValue(now)),
        bouncers::last_pull.eq(TsValue(now)),
    );
    let changed = (
        bouncers::kind.eq(who.kind),
        bouncers::version.eq(who.version),
        bouncers::last_pull.eq(TsValue(now)),
    );
    on!(conn, |c| diesel::insert_into(bouncers::table)
        .values(row)
        .on_conflict((bouncers::key_id, bouncers::address))
        .do_update()
        .set(changed)
        .execute(c)
        .await)?;
    Ok(())
}

/// Moves the cursor of a bouncer, of which [`seen`] made a row.
///
/// # Errors
/// As any statement.
pub async fn pulled(conn: &mut Conn, who: &Who, pulled: Pulled) -> Result<(), DbError> {
    let row = bouncers::table
        .filter(bouncers::key_id.eq(who.key_id.clone()))
        .filter(bouncers::address.eq(AddrValue(who.address)));
    let moved = (
        bouncers::list_version.eq(pulled.list_version),
        bouncers::pulled_at.eq(MaybeTs::from(Some(pulled.at))),
    );
    match pulled.everything {
        true => {
            let announced = bouncers::announced_at.eq(MaybeTs::from(Some(pulled.at)));
            on!(conn, |c| diesel::update(row).set((moved, announced)).execute(c).await)?
        }
        false => on!(conn, |c| diesel::update(row).set(moved).execute(c).await)?,
    };
    Ok(())
}

/// Notes how many decisions a bouncer says it applies.
///
/// # Errors
/// As any statement.
pub async fn applies(conn: &mut Conn, who: &Who, applied: i64) -> Result<(), DbError> {
    let row = bouncers::table
        .filter(bouncers::key_id.eq(who.key_id.clone()))
        .filter(bouncers::address.eq(AddrValue(who.address)));
    let set = bouncers::applied.eq(applied);
    on!(conn, |c| diesel::update(row).set(set).execute(c).await)?;
    Ok(())
}

/// The bouncer of this key that comes from there.
///
/// # Errors
/// As any statement.
pub async fn find(
    conn: &mut Conn,
    key_id: &str,
    address: IpAddr,
) -> Result<Option<Bouncer>, DbError> {
    let row = bouncers::table
        .filter(bouncers::key_id.eq(key_id.to_owned()))
        .filter(bouncers::address.eq(AddrValue(address)));
    on!(conn, |c| row.first(c).await.optional())
}

/// All bouncers that were ever seen and not deleted, by key and address.
///
/// # Errors
/// As any statement.
pub async fn all(conn: &mut Conn) -> Result<Vec<Bouncer>, DbError> {
    let rows = bouncers::table.order((bouncers::key_id, bouncers::address));
    on!(conn, |c| rows.load(c).await)
}

/// The bouncers that come from within `network`.
///
/// # Errors
/// As any statement.
pub async fn inside(conn: &mut Conn, network: Network) -> Result<Vec<Bouncer>, DbError> {
    let rows = bouncers::table
        .filter(bouncers::address.ge(AddrValue(network.address())))
        .filter(bouncers::address.le(AddrValue(network.last_address())))
        .order(bouncers::id);
    on!(conn, |c| rows.load(c).await)
}

/// Forgets a bouncer; its next pull makes it known again.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut Conn, id: i64) -> Result<(), DbError> {
    on!(conn, |c| diesel::delete(bouncers::table.find(id)).execute(c).await)?;
    Ok(())
}

/// Whether a bouncer that asked after `since` has yet to be told of a version of the lists.
///
/// # Errors
/// As any statement.
pub async fn any_behind(
    conn: &mut Conn,
    version: i64,
    since: DateTime<Utc>,
) -> Result<bool, DbError> {
    let behind = bouncers::table
        .filter(bouncers::last_pull.gt(TsValue(since)))
        .filter(bouncers::list_version.lt(version))
        .select(bouncers::id);
    let first: Option<i64> = on!(conn, |c| behind.first(c).await.optional())?;
    Ok(first.is_some())
}

/// Forgets the bouncers of a key.
///
/// # Errors
/// As any statement.
pub async fn delete_of(conn: &mut Conn, key_id: &str) -> Result<usize, DbError> {
    let rows = bouncers::table.filter(bouncers::key_id.eq(key_id.to_owned()));
    on!(conn, |c| diesel::delete(rows).execute(c).await)
}
