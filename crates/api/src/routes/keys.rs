//! `/api/v1/keys`: the API keys themselves.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::api_keys::{self, ApiKey};
use ipwarden_core::keys::{self, Role};
use serde::{Deserialize, Serialize};

use crate::auth::Admin;
use crate::error::ApiError;
use crate::input::Body;
use crate::paging::Items;
use crate::routes::change::{Change, IdempotencyKey, change};

/// A key to be.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    name: String,
    role: Role,
}

/// A key that was just made; `key` is shown this once.
#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    row: ApiKey,
    key: String,
}

const LONGEST_NAME: usize = 100;

pub(crate) async fn all(
    _: Admin,
    context: web::Data<Context>,
) -> Result<web::Json<Items<ApiKey>>, ApiError> {
    let items = context.db.run(|conn| api_keys::all(conn).boxed()).await?;
    Ok(web::Json(Items { items, next: None }))
}

pub(crate) async fn create(
    Admin(caller): Admin,
    key: IdempotencyKey,
    context: web::Data<Context>,
    Body(wanted): Body<Wanted>,
) -> Result<HttpResponse, ApiError> {
    let actor = caller.actor();
    let once = key.of(&actor, &wanted);
    let name = wanted.name.trim().to_owned();
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
        let detail = format!("a name has 1 to {LONGEST_NAME} bytes and no control characters");
        return Err(ApiError::Invalid { field: "name", detail });
    }
    change(&context, once, move |conn, at| {
        async move {
            let made = keys::create_in(conn, name, wanted.role, &actor, at).await?;
            let (row, key, version) = made;
            let created = Created { row, key };
            Ok(Ok(Change::of(StatusCode::CREATED, &created, Some(version)).secret("key")))
        }
        .boxed()
    })
    .await
}

pub(crate) async fn revoke(
    Admin(caller): Admin,
    key: IdempotencyKey,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (id, actor) = (id.into_inner(), caller.actor());
    let once = key.of(&actor, &());
    // What cannot be an id is nobody's; PostgreSQL would not even look for one with a NUL in it.
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(missing(&id));
    }
    change(&context, once, move |conn, at| {
        async move {
            if api_keys::find(conn, &id).await?.is_none() {
                return Ok(Err(missing(&id)));
            }
            Ok(Ok(Change::empty(keys::revoke_in(conn, &id, &actor, at).await?)))
        }
        .boxed()
    })
    .await
}

fn missing(id: &str) -> ApiError {
    ApiError::NotFound { what: format!("key {}", super::shown(id)) }
}
