//! `idempotency_keys`: the answers to changes that may be sent again, each written in the transaction of
//! its change.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::idempotency_keys;
use super::types::TsValue;
use super::{Conn, DbError};

/// How long an answer is kept.
pub const KEPT: TimeDelta = TimeDelta::hours(24);

/// A change that is to be made once, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Who sends it; others have keys of their own.
    pub actor: String,
    /// In his words.
    pub key: String,
    /// SHA-256 of what he wants.
    pub request: [u8; 32],
}

/// An answer as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// JSON; empty for an answer without a body.
    pub body: String,
}

/// What is known of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is to be made.
    New,
    /// It was made, and this was the answer.
    Made(Answer),
    /// The key stands for another change.
    Otherwise,
}

/// Looks for a change at the store's time `now`, in the transaction that would make it, behind the lock
/// of the lists: nobody else makes it meanwhile.
///
/// # Errors
/// As any statement.
pub async fn find(conn: &mut Conn, once: &Once, now: DateTime<Utc>) -> Result<Known, DbError> {
    let row = idempotency_keys::table
        .find((once.actor.clone(), once.key.clone()))
        .filter(idempotency_keys::at.gt(TsValue(now - KEPT)))
        .select((idempotency_keys::request, idempotency_keys::status, idempotency_keys::answer));
    let row: Option<(Vec<u8>, i16, String)> = on!(conn, |c| row.first(c).await.optional())?;
    Ok(match row {
        None => Known::New,
        Some((request, status, body)) if request == once.request => {
            Known::Made(Answer { status: u16::try_from(status).unwrap_or(200), body })
        }
        Some(_) => Known::Otherwise,
    })
}

/// Keeps the answer to a change that was just made, instead of one that is too old to count.
///
/// # Errors
/// As any statement.
pub async fn keep(
    conn: &mut Conn,
    once: &Once,
    answer: &Answer,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let old = idempotency_keys::table.find((once.actor.clone(), once.key.clone()));
    on!(conn, |c| diesel::delete(old).execute(c).await)?;
    let row = (
        idempotency_keys::actor.eq(once.actor.clone()),
        idempotency_keys::key.eq(once.key.clone()),
        idempotency_keys::request.eq(once.request.to_vec()),
        idempotency_keys::status.eq(i16::try_from(answer.status).unwrap_or(i16::MAX)),
        idempotency_keys::answer.eq(answer.body.clone()),
        idempotency_keys::at.eq(TsValue(now)),
    );
    on!(conn, |c| diesel::insert_into(idempotency_keys::table).values(row).execute(c).await)?;
    Ok(())
}

/// The answers that hold `text`, with their actors and keys. Reads the whole table, which is of a day.
///
/// # Errors
/// As any statement.
pub async fn with(conn: &mut Conn, text: &str) -> Result<Vec<(String, String, String)>, DbError> {
    let rows = idempotency_keys::table
        .filter(idempotency_keys::answer.like(format!("%{text}%")))
        .select((idempotency_keys::actor, idempotency_keys::key, idempotency_keys::answer));
    on!(conn, |c| rows.load(c).await)
}

/// Forgets an answer: should its change be sent again, it is made again.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut Conn, actor: &str, key: &str) -> Result<(), DbError> {
    let row = idempotency_keys::table.find((actor.to_owned(), key.to_owned()));
    on!(conn, |c| diesel::delete(row).execute(c).await)?;
    Ok(())
}

/// Forgets the answers that are too old to count at `now`. Returns how many.
///
/// # Errors
/// As any statement.
pub async fn prune(conn: &mut Conn, now: DateTime<Utc>) -> Result<usize, DbError> {
    let old = idempotency_keys::table.filter(idempotency_keys::at.le(TsValue(now - KEPT)));
    on!(conn, |c| diesel::delete(old).execute(c).await)
}
