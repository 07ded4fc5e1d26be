//! `spool_positions`: how far each spool segment has been shipped, changed in the very transaction that
//! writes what was read up to there.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_postgres::types::Type;

use super::client::Parameter;
use super::request_logs::Marking;
use super::schema::spool_positions;
use super::types::TsValue;
use super::{Client, Conn, DbError};

/// A segment moves from one position to the next; position 0 is that of a segment never seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which segment.
    pub segment: String,
    /// Where it has to be.
    pub from: i64,
    /// Where it goes.
    pub to: i64,
    /// Who ships it.
    pub node: Arc<str>,
    /// When, by the store's clock.
    pub at: DateTime<Utc>,
}

/// All of them, or none: [`DbError::Conflict`] as for [`advance`].
impl Marking for Vec<Step> {
    type Told = ();

    fn insert<'c>(&'c self, conn: &'c mut Conn) -> BoxFuture<'c, Result<(), DbError>> {
        async move {
            for step in self {
                advance(conn, step).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn copy<'c>(&'c self, client: &'c Client) -> BoxFuture<'c, Result<(), DbError>> {
        async move {
            for step in self {
                advance_by(client, step).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

/// The positions of those of `segments` that have one.
///
/// # Errors
/// As any statement.
pub async fn of(conn: &mut Conn, segments: Vec<String>) -> Result<Vec<(String, i64)>, DbError> {
    let rows = spool_positions::table
        .filter(spool_positions::segment.eq_any(segments))
        .select((spool_positions::segment, spool_positions::position));
    on!(conn, |c| rows.load(c).await)
}

/// Moves a segment.
///
/// # Errors
/// [`DbError::Conflict`] when it is not where it has to be: somebody else ships a copy of the same segment.
pub async fn advance(conn: &mut Conn, step: &Step) -> Result<(), DbError> {
    if step.from == 0 {
        let new = (
            spool_positions::segment.eq(step.segment.clone()),
            spool_positions::position.eq(0),
            spool_positions::node.eq(step.node.to_string()),
            spool_positions::updated_at.eq(TsValue(step.at)),
        );
        on!(conn, |c| diesel::insert_into(spool_positions::table)
            .values(new)
            .on_conflict_do_nothing()
            .execute(c)
            .await)?;
    }
    let row = spool_positions::table
        .filter(spool_positions::segment.eq(step.segment.clone()))
        .filter(spool_positions::position.eq(step.from));
    let moved = on!(conn, |c| diesel::update(row)
        .set((
            spool_positions::position.eq(step.to),
            spool_positions::node.eq(step.node.to_string()),
            spool_positions::updated_at.eq(TsValue(step.at)),
        ))
        .execute(c)
        .await)?;
    step.outcome(moved)
}

/// The same as [`advance`], where a batch is copied.
async fn advance_by(client: &Client, step: &Step) -> Result<(), DbError> {
    let Step { segment, from, to, node, at } = step;
    let node = &**node;
    let parameters: [Parameter<'_>; 5] = [
        (segment, Type::TEXT),
        (&node, Type::TEXT),
        (at, Type::TIMESTAMPTZ),
        (from, Type::INT8),
        (to, Type::INT8),
    ];
    if *from == 0 {
        let sql = "insert into spool_positions (segment, position, node, updated_at) \
            values ($1, 0, $2, $3) on conflict do nothing";
        client.change(sql, &parameters[..3]).await?;
    }
    let sql = "update spool_positions set position = $5, node = $2, updated_at = $3 \
        where segment = $1 and position = $4";
    step.outcome(client.change(sql, &parameters).await? as usize)
}

impl Step {
    fn outcome(&self, moved: usize) -> Result<(), DbError> {
        let Step { segment, from, .. } = self;
        match moved {
            1 => Ok(()),
            _ => {
                let what = format!("spool segment {segment} is no longer at position {from}");
                Err(DbError::Conflict(what))
            }
        }
    }
}

/// Forgets segments that nobody has shipped from since `before`.
///
/// # Errors
/// As any statement.
pub async fn prune(conn: &mut Conn, before: DateTime<Utc>) -> Result<usize, DbError> {
    let old = spool_positions::table.filter(spool_positions::updated_at.lt(TsValue(before)));
    on!(conn, |c| diesel::delete(old).execute(c).await)
}
