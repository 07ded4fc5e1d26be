//! What a run would judge and find, without a lease and without writing anything.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;

use super::due::Agenda;
use super::flag::{Flagged, flag};
use super::{FLAG_LIMIT, Judged, Terms, findings_of, scheduled};
use crate::db::{Db, DbError};
use crate::lists;

/// What a run would find: of the hours that `between` touches, or of what is due. Nothing stays of it, and
/// nobody else is kept from scanning.
///
/// # Errors
/// As any statement.
pub async fn preview(
    db: &Db,
    terms: &Arc<Terms>,
    between: Option<(DateTime<Utc>, DateTime<Utc>)>,
    now: DateTime<Utc>,
) -> Result<Vec<Judged>, DbError> {
    let span = terms.rules.span;
    let agenda = match between {
        Some((from, to)) => Agenda::asked(from, to),
        None => {
            db.run(move |conn| {
                async move {
                    let at = conn.clock(now).await?;
                    scheduled(conn, span, at).await
                }
                .boxed()
            })
            .await?
        }
    };
    let rehearsal = db.with_timeout(FLAG_LIMIT).rehearsal();
    let mut all = Vec::new();
    for due in agenda {
        let (_, decided) = findings_of(db, terms, due.window, now).await?;
        let (window, findings) = (due.window, decided.len());
        let rails = lists::Rails { trusted: terms.trusted.clone(), own: terms.own.clone() };
        let flagged = rehearsal.transaction(move |conn| {
            async move {
                let at = conn.clock(now).await?;
                flag(conn, decided, &rails, at).await
            }
            .boxed()
        });
        let Flagged { opened, blocked, .. } = flagged.await?;
        all.push(Judged { window, findings, opened, blocked, version: None });
    }
    Ok(all)
}
