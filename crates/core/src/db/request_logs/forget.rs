//! What is taken out of the log, or never comes into it, because somebody is to be forgotten.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use ipwarden_engine::network::Network;

use super::NewLogged;
use crate::db::forgotten::Tombstone;
use crate::db::schema::request_logs;
use crate::db::types::{AddrValue, TsValue};
use crate::db::{Conn, DbError};

/// When the oldest record of a batch was made: what was forgotten since then may take some of it.
pub(super) fn oldest(batch: &[NewLogged]) -> Option<DateTime<Utc>> {
    batch.iter().map(|row| row.at).min()
}

/// The records of a batch that nobody wants forgotten.
pub(super) fn without(batch: Vec<NewLogged>, forgotten: &[Tombstone]) -> Vec<NewLogged> {
    let is_kept = |row: &NewLogged| !forgotten.iter().any(|one| one.takes(row.address, row.at));
    batch.into_iter().filter(is_kept).collect()
}

/// Deletes the oldest records of `network`, some `about` of them. Returns how many went, and whether there
/// are more.
///
/// # Errors
/// As any statement.
pub async fn erase(
    conn: &mut Conn,
    network: Network,
    about: i64,
) -> Result<(usize, bool), DbError> {
    macro_rules! rows {
        () => {
            request_logs::table
                .filter(request_logs::address.ge(AddrValue(network.address())))
                .filter(request_logs::address.le(AddrValue(network.last_address())))
        };
    }
    let last = rows!().order(request_logs::at).select(request_logs::at).offset(about).limit(1);
    let last: Option<TsValue> = on!(conn, |c| last.first(c).await.optional())?;
    let erased = match last.clone() {
        Some(last) => {
            let some = rows!().filter(request_logs::at.le(last));
            on!(conn, |c| diesel::delete(some).execute(c).await)?
        }
        None => on!(conn, |c| diesel::delete(rows!()).execute(c).await)?,
    };
    Ok((erased, last.is_some()))
}

/// How many records there are of `network`.
///
/// # Errors
/// As any statement.
pub async fn count_of(conn: &mut Conn, network: Network) -> Result<i64, DbError> {
    let rows = request_logs::table
        .filter(request_logs::address.ge(AddrValue(network.address())))
        .filter(request_logs::address.le(AddrValue(network.last_address())))
        .count();
    on!(conn, |c| rows.get_result(c).await)
}
