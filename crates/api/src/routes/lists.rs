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
use crate::input::{Body, Query, cursor};
use crate::routes::now;

/// A page of anything; `next` is the `cursor` of the page behind it.
#[derive(Serialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

impl<T> Items<T> {
    /// A page that was asked to hold `limit` rows; if it is full there may be another behind it.
    pub(crate) fn of(items: Vec<T>, limit: i64, cursor: impl Fn(&T) -> String) -> Items<T> {
        let full = i64::try_from(items.len()).is_ok_and(|rows| rows == limit);
        let next = items.last().filter(|_| full).map(cursor);
        Items { items, next }
    }
}

/// What to put on a list.
#[derive(Deserialize)]
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
    context: web::Data<Context>,
    Body(wanted): Body<Wanted>,
) -> Result<HttpResponse, ApiError> {
    let rails = Rails::of_this_machine(context.config.client_ip.trusted_proxies.clone());
    let done = lists::block(&context.db, read(wanted)?, caller.actor(), rails, now()).await?;
    put(&context, done)
}

pub(crate) async fn allow(
    Operator(caller): Operator,
    context: web::Data<Context>,
    Body(wanted): Body<Wanted>,
) -> Result<HttpResponse, ApiError> {
    let rails = Rails::of_this_machine(context.config.client_ip.trusted_proxies.clone());
    let done = lists::allow(&context.db, read(wanted)?, caller.actor(), rails, now()).await?;
    put(&context, done)
}

pub(crate) async fn unblock(
    Operator(caller): Operator,
    context: web::Data<Context>,
    target: web::Path<String>,
) -> Result<web::Json<Removal>, ApiError> {
    let targets = vec![target_of(&target)?];
    removed(&context, lists::unblock(&context.db, targets, caller.actor(), now()).await?)
}

pub(crate) async fn disallow(
    Operator(caller): Operator,
    context: web::Data<Context>,
    target: web::Path<String>,
) -> Result<web::Json<Removal>, ApiError> {
    let targets = vec![target_of(&target)?];
    removed(&context, lists::disallow(&context.db, targets, caller.actor(), now()).await?)
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
    let mut query = Query::of(request)?;
    let before = query.cursor::<1>()?.map(|[id]| id);
    let limit = query.limit()?;
    query.done()?;
    let now = now();
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
    Ok(web::Json(Items::of(rows.await?, limit, |row| cursor([row.id]))))
}

fn read(wanted: Wanted) -> Result<Request, ApiError> {
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

fn put(context: &web::Data<Context>, done: Done<Outcome>) -> Result<HttpResponse, ApiError> {
    context.announce(done.version);
    let outcome = done.outcomes.into_iter().next().expect("one target, one outcome");
    let status = match outcome.put {
        Put::Created => StatusCode::CREATED,
        Put::Updated | Put::Unchanged => StatusCode::OK,
    };
    Ok(HttpResponse::build(status).json(outcome))
}

fn removed(
    context: &web::Data<Context>,
    done: Done<Removal>,
) -> Result<web::Json<Removal>, ApiError> {
    context.announce(done.version);
    Ok(web::Json(done.outcomes.into_iter().next().expect("one target, one outcome")))
}
