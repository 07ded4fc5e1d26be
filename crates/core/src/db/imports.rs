//! `imports`: what has been read of which file, so that nothing is read twice.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_postgres::types::Type;

use super::client::Parameter;
use super::leases::{self, Lease};
use super::schema::imports;
use super::types::{MaybeTs, TsValue};
use super::{Client, Conn, DbError, request_logs};
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

/// An import comes to a mark, which is said with the rows that were read up to there, and only by who holds
/// its lease.
#[derive(Clone, Debug)]
pub struct Step {
    /// The import's.
    pub lease: Lease,
    /// Of its row; `None` where it begins.
    pub id: Option<i64>,
    /// What is read.
    pub source: String,
    /// Who imports.
    pub created_by: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How far it has come.
    pub progress: Progress,
    /// Now, by this machine's clock.
    pub now: DateTime<Utc>,
}

/// Told is the id of the import's row.
impl request_logs::Marking for Step {
    type Told = i64;

    fn insert<'c>(&'c self, conn: &'c mut Conn) -> BoxFuture<'c, Result<i64, DbError>> {
        async move {
            let store_now = conn.clock(self.now).await?;
            leases::renew(conn, &self.lease, store_now).await?;
            match self.id {
                Some(id) => advance(conn, id, &self.progress).await.map(|()| id),
                None => begin(conn, self).await,
            }
        }
        .boxed()
    }

    fn copy<'c>(&'c self, client: &'c Client) -> BoxFuture<'c, Result<i64, DbError>> {
        async move {
            leases::renew_by(client, &self.lease).await?;
            self.copied(client).await
        }
        .boxed()
    }
}

/// Begins an import that has come this far; returns its id.
async fn begin(conn: &mut Conn, step: &Step) -> Result<i64, DbError> {
    let progress = &step.progress;
    let row = (
        imports::source.eq(step.source.clone()),
        imports::length.eq(signed(progress.mark.length)),
        imports::digest.eq(hexadecimal(&progress.mark.digest)),
        imports::lines.eq(signed(progress.mark.lines)),
        imports::records.eq(signed(progress.records)),
        imports::unreadable.eq(signed(progress.unreadable)),
        imports::created_by.eq(step.created_by.clone()),
        imports::started_at.eq(TsValue(step.started_at)),
    );
    on!(conn, |c| diesel::insert_into(imports::table)
        .values(row)
        .returning(imports::id)
        .get_result(c)
        .await)
}

/// Moves an import on.
async fn advance(conn: &mut Conn, id: i64, progress: &Progress) -> Result<(), DbError> {
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

impl Step {
    /// What [`begin`] and [`advance`] do, where a batch is copied.
    async fn copied(&self, client: &Client) -> Result<i64, DbError> {
        let progress = &self.progress;
        let numbers = [progress.mark.length, progress.mark.lines, progress.records];
        let [length, lines, records] = numbers.map(signed);
        let (unreadable, digest) =
            (signed(progress.unreadable), hexadecimal(&progress.mark.digest));
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&length, Type::INT8),
            (&digest, Type::TEXT),
            (&lines, Type::INT8),
            (&records, Type::INT8),
            (&unreadable, Type::INT8),
        ];
        if let Some(id) = &self.id {
            parameters.push((id, Type::INT8));
            let sql = "update imports set length = $1, digest = $2, lines = $3, records = $4, \
                unreadable = $5 where id = $6";
            return client.change(sql, &parameters).await.map(|_| *id);
        }
        parameters.push((&self.source, Type::TEXT));
        parameters.push((&self.created_by, Type::TEXT));
        parameters.push((&self.started_at, Type::TIMESTAMPTZ));
        let sql = "insert into imports (length, digest, lines, records, unreadable, source, \
            created_by, started_at) values ($1, $2, $3, $4, $5, $6, $7, $8) returning id";
        Ok(client.rows(sql, &parameters).await?[0].get(0))
    }
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
