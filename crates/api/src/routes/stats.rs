//! `/api/v1/stats`: numbers over time, and the busiest.

use std::sync::Arc;

use actix_web::{HttpRequest, web};
use ipwarden_core::context::Context;
use ipwarden_core::stats::{self, Question, Stats, Unanswerable};
use tokio::sync::Semaphore;

use crate::auth::Reader;
use crate::error::ApiError;
use crate::input::Query;
use crate::routes::now;

/// Questions that are answered at a time, so that the log is written and lists are followed meanwhile.
const AT_ONCE: usize = 2;
/// Of each dimension, unless asked for otherwise.
const TOP: u32 = 10;

/// Whose turn it is to count.
pub(crate) struct Counters(Arc<Semaphore>);

impl Default for Counters {
    fn default() -> Counters {
        Counters(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

pub(crate) async fn stats(
    request: HttpRequest,
    _: Reader,
    context: web::Data<Context>,
    counters: web::Data<Counters>,
) -> Result<web::Json<Stats>, ApiError> {
    let (mut query, now) = (Query::of(&request)?, now());
    let (since, until) = (query.time("since")?, query.time("until")?);
    let (by, top) = (query.take("by")?, query.take("top")?.unwrap_or(TOP));
    query.done()?;
    let question = Question::new(since, until, by, top, now)?;
    let turn = counters.0.clone().acquire_owned().await.expect("the semaphore is never closed");
    let db = context.db.clone();
    // To its end: a caller who goes away takes nobody's turn, and leaves no statement behind.
    let answered = tokio::spawn(async move {
        let _turn = turn;
        stats::of(&db, question, now).await
    });
    Ok(web::Json(answered.await.expect("it does not panic, and nobody aborts it")?))
}

impl From<Unanswerable> for ApiError {
    fn from(no: Unanswerable) -> ApiError {
        ApiError::Invalid { field: no.argument, detail: no.detail }
    }
}
