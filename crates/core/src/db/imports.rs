//! `imports`: what has been read of which file, so that nothing is read twice.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::imports;
use super::types::{MaybeTs, TsValue};
use super::{Conn, DbError};
use crate::access_log::Mark;

/// How far an import has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to here is in the log.
    pub mark: Mark,
    /// Records that this import added.
    pub records: u64,
    /// Lines that it could not read.
    pub unreadable: u64,
}

/// The marks of all imports. A row that cannot be one (not of 64 hexadecimal digits) is left out.
///
/// # Errors
/// As any statement.
pub async fn marks(conn: &mut Conn) -> Result<Vec<Mark>, DbError> {
    let all = imports::table.select((imports::length, imports::digest, imports::lines));
    let rows: Vec<(i64, String, i64)> = on!(conn, |c| all.load(c).await)?;
    Ok(rows.into_iter().filter_map(mark).collect())
}

/// Whether anything of this source was imported.
///
/// # Errors
/// As any statement.
pub async fn has(conn: &mut Conn, source: &str) -> Result<bool, DbError> {
    let of = imports::table.filter(imports::source.eq(source.to_owned())).select(imports::id);
    let first: Option<i64> = on!(conn, |c| of.first(c).await.optional())?;
    Ok(first.is_some())
}

/// Begins an import that has come this far; returns its id.
///
/// # Errors
/// As any statement.
pub async fn begin(
    conn: &mut Conn,
    source: &str,
    created_by: &str,
    progress: &Progress,
    started_at: DateTime<Utc>,
) -> Result<i64, DbError> {
    let row = (
        imports::source.eq(source.to_owned()),
        imports::length.eq(signed(progress.mark.length)),
        imports::digest.eq(hexadecimal(&progress.mark.digest)),
        imports::lines.eq(signed(progress.mark.lines)),
        imports::records.eq(signed(progress.records)),
        imports::unreadable.eq(signed(progress.unreadable)),
        imports::created_by.eq(created_by.to_owned()),
        imports::started_at.eq(TsValue(started_at)),
    );
    on!(conn, |c| diesel::insert_into(imports::table)
        .values(row)
        .returning(imports::id)
        .get_result(c)
        .await)
}

/// Moves an import on, in the transaction that writes what was read.
///
/// # Errors
/// As any statement.
pub async fn advance(conn: &mut Conn, id: i64, progress: &Progress) -> Result<(), DbError> {
    let row = (
        imports::length.eq(signed(progress.mark.length)),
        imports::digest.eq(hexadecimal(&progress.mark.digest)),
        imports::lines.eq(signed(progress.mark.lines)),
        imports::records.eq(signed(progress.records)),
        imports::unreadable.eq(signed(progress.unreadable)),
    );
    on!(conn, |c| diesel::update(imports::table.find(id)).set(row).execute(c).await)?;
    Ok(())
}

/// Says that an import came to the end of its file.
///
/// # Errors
/// As any statement.
pub async fn finish(conn: &mut Conn, id: i64, now: DateTime<Utc>) -> Result<(), DbError> {
    let at = imports::finished_at.eq(MaybeTs::from(Some(now)));
    on!(conn, |c| diesel::update(imports::table.find(id)).set(at).execute(c).await)?;
    Ok(())
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).expect("no file has 2^63 bytes")
}

fn mark((length, digest, lines): (i64, String, i64)) -> Option<Mark> {
    let mut bytes = [0; 32];
    if digest.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digest.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Mark {
        length: u64::try_from(length).ok()?,
        digest: bytes,
        lines: u64::try_from(lines).ok()?,
    })
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
