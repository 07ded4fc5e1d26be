//! `/api/v1/blocks` and `/api/v1/allows`: the two lists.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::entries::{Entry, Put};
use ipwarden_core::db::{allowed_ips, blocked_ips};
use ipwarden_core::duration::Term;
use ipwarden_core::lists::{self, Done, MANUAL, Outcome, Rails, Removal, Request};
use ipwarden_engine::network::{Network, Parsed};
use serde::{Deserialize, Serialize};

use crate::auth::{Operator, Reader};
use crate::error::ApiError;
use crate::input::{Body, Query};
use crate::paging::Items;
use crate::routes::change::{Change, IdempotencyKey, change};
use crate::routes::now;

/// What to put on a list.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    target: String,
    /// `4h`, `30d`, `permanent`, which is the default.
    #[serde(rename = "for")]
    term: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

/// The longest reason, in bytes.
const LONGEST_REASON: usize = 1_000;

pub(crate) async fn blocks(
    request: HttpRequest,
    _: Reader,
    context: web::Data<Context>,
) -> Result<web::Json<Items<Entry>>, ApiError> {
    page(&request, &context, List::Blocked).await
}

pub(crate) async fn allows(
    request: HttpRequest,
    _: Reader,
    context: web::Data<Context>,
) -> Result<web::Json<Items<Entry>>, ApiError> {
    page(&request, &context, List::Allowed).await
}

pub(crate) async fn block(
    Operator(caller): Operator,
    key: IdempotencyKey,
    context: web::Data<Context>,
    Body(wanted): Body<Wanted>,
) -> Result<HttpResponse, ApiError> {
    let (actor, rails) = (caller.actor(), rails(&context));
    let once = key.of(&actor, &wanted);
    let request = read(wanted)?;
    change(&context, once, move |conn, at| {
        async move {
            let done = lists::block_in(conn, request, &actor, &rails, at).await?;
            Ok(done.map(put).map_err(ApiError::Refused))
        }
        .boxed()
    })
    .await
}

pub(crate) async fn allow(
    Operator(caller): Operator,
    key: IdempotencyKey,
    context: web::Data<Context>,
    Body(wanted): Body<Wanted>,
) -> Result<HttpResponse, ApiError> {
    let (actor, rails) = (caller.actor(), rails(&context));
    let once = key.of(&actor, &wanted);
    let request = read(wanted)?;
    change(&context, once, move |conn, at| {
        async move { Ok(Ok(put(lists::allow_in(conn, request, &actor, &rails, at).await?))) }
            .boxed()
    })
    .await
}

pub(crate) async fn unblock(
    Operator(caller): Operator,
    key: IdempotencyKey,
    context: web::Data<Context>,
    target: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (actor, targets) = (caller.actor(), vec![target_of(&target)?]);
    let once = key.of(&actor, &());
    change(&context, once, move |conn, at| {
        async move { Ok(Ok(removed(lists::unblock_in(conn, targets, &actor, at).await?))) }.boxed()
    })
    .await
}

pub(crate) async fn disallow(
    Operator(caller): Operator,
    key: IdempotencyKey,
    context: web::Data<Context>,
    target: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (actor, targets) = (caller.actor(), vec![target_of(&target)?]);
    let once = key.of(&actor, &());
    change(&context, once, move |conn, at| {
        async move { Ok(Ok(removed(lists::disallow_in(conn, targets, &actor, at).await?))) }.boxed()
    })
    .await
}

/// What a block must not reach.
pub(crate) fn rails(context: &Context) -> Rails {
    Rails::of_this_machine(context.config.client_ip.trusted_proxies.clone())
}

/// A target in a body or a path, as `ipctl` reads it.
pub(crate) fn target_of(text: &str) -> Result<Parsed, ApiError> {
    Network::parse(text)
        .map_err(|error| ApiError::Invalid { field: "target", detail: error.to_string() })
}

/// The two lists of networks.
#[derive(Clone, Copy)]
enum List {
    Blocked,
    Allowed,
}

async fn page(
    request: &HttpRequest,
    context: &web::Data<Context>,
    list: List,
) -> Result<web::Json<Items<Entry>>, ApiError> {
    let page = Query::of(request)?.page::<1>()?;
    let (before, limit, now) = (page.after.map(|[id]| id), page.limit, now());
    let rows = context.db.run(move |conn| {
        async move {
            let now = conn.clock(now).await?;
            match list {
                List::Blocked => blocked_ips::page(conn, before, limit, now).await,
                List::Allowed => allowed_ips::page(conn, before, limit, now).await,
            }
        }
        .boxed()
    });
    Ok(web::Json(page.of(rows.await?, |row| [row.id])?))
}

/// A wish in a body.
pub(crate) fn read(wanted: Wanted) -> Result<Request, ApiError> {
    Ok(Request {
        targets: vec![target_of(&wanted.target)?],
        term: term_of(wanted.term)?,
        reason: reason_of(wanted.reason)?,
        origin: MANUAL.to_owned(),
        force: wanted.force,
    })
}

/// How long, in a body; for ever if it does not say.
pub(crate) fn term_of(text: Option<String>) -> Result<Term, ApiError> {
    let Some(text) = text else { return Ok(Term::Permanent) };
    text.parse().map_err(|error| ApiError::Invalid { field: "for", detail: format!("{error}") })
}

/// Why, in a body.
pub(crate) fn reason_of(text: Option<String>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.len() > LONGEST_REASON || text.contains(char::is_control) => {
            let detail =
                format!("a reason has at most {LONGEST_REASON} bytes and no control characters");
            Err(ApiError::Invalid { field: "reason", detail })
        }
        text => Ok(text),
    }
}

fn put(done: Done<Outcome>) -> Change {
    let outcome = done.outcomes.into_iter().next().expect("one target, one outcome");
    let status = match outcome.put {
        Put::Created => StatusCode::CREATED,
        Put::Updated | Put::Unchanged => StatusCode::OK,
    };
    Change::of(status, &outcome, done.version)
}

fn removed(done: Done<Removal>) -> Change {
    let removal = done.outcomes.into_iter().next().expect("one target, one outcome");
    Change::of(StatusCode::OK, &removal, done.version)
}
