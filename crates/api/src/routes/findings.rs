//! `/api/v1/suspicious`: what the scan found, and its review.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::suspicious_ips::{self, Status, SuspiciousIp};
use ipwarden_core::lists::{self, Judgement};
use serde::{Deserialize, Serialize};

use crate::auth::{Operator, Reader};
use crate::error::ApiError;
use crate::input::{Body, Query};
use crate::paging::Items;
use crate::routes::change::{Change, IdempotencyKey, change};
use crate::routes::lists::{rails, reason_of, term_of};

/// What a person decides about a finding.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Review {
    action: Word,
    /// How long a block lasts; `permanent` by default.
    #[serde(rename = "for")]
    term: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Block,
    Dismiss,
}

pub(crate) async fn page(
    request: HttpRequest,
    _: Reader,
    context: web::Data<Context>,
) -> Result<web::Json<Items<SuspiciousIp>>, ApiError> {
    let mut query = Query::of(&request)?;
    let status = match query.take::<String>("status")?.as_deref() {
        None | Some("open") => Some(Status::Open),
        Some("all") => None,
        Some(word) => Some(word.parse().map_err(|error| ApiError::Invalid {
            field: "status",
            detail: format!("{error}, or all"),
        })?),
    };
    let page = query.page::<1>()?;
    let (before, limit) = (page.after.map(|[id]| id), page.limit);
    let rows = context
        .db
        .run(move |conn| suspicious_ips::page(conn, status, before, limit).boxed())
        .await?;
    Ok(web::Json(page.of(rows, |row| [row.id])?))
}

pub(crate) async fn find(
    _: Reader,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<SuspiciousIp>, ApiError> {
    let id = id_of(&id)?;
    let row = context.db.run(move |conn| suspicious_ips::find(conn, id).boxed()).await?;
    row.map(web::Json).ok_or(ApiError::NotFound { what: format!("finding {id}") })
}

pub(crate) async fn review(
    Operator(caller): Operator,
    key: IdempotencyKey,
    context: web::Data<Context>,
    id: web::Path<String>,
    Body(wanted): Body<Review>,
) -> Result<HttpResponse, ApiError> {
    let (id, actor, rails) = (id_of(&id)?, caller.actor(), rails(&context));
    let once = key.of(&actor, &wanted);
    let judgement = match wanted.action {
        Word::Block => Judgement::Block {
            term: term_of(wanted.term)?,
            reason: reason_of(wanted.reason)?,
            force: wanted.force,
        },
        Word::Dismiss => Judgement::Dismiss,
    };
    change(&context, once, move |conn, at| {
        async move {
            let done = lists::review_in(conn, id, judgement, &actor, &rails, at).await?;
            Ok(done
                .map(|reviewed| Change::of(StatusCode::OK, &reviewed, reviewed.version))
                .map_err(ApiError::from))
        }
        .boxed()
    })
    .await
}

fn id_of(text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|_| ApiError::Invalid {
        field: "id",
        detail: "the id of a finding is a whole number".to_owned(),
    })
}
