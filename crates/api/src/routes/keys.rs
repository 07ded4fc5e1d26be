//! `/api/v1/keys`: the API keys themselves.

use actix_web::{HttpResponse, web};
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::api_keys::{self, ApiKey};
use ipwarden_core::keys::{self, Role};
use serde::{Deserialize, Serialize};

use crate::auth::Admin;
use crate::error::ApiError;
use crate::input::Body;
use crate::routes::lists::Items;
use crate::routes::now;

/// A key to be.
#[derive(Deserialize)]
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
    context: web::Data<Context>,
    Body(wanted): Body<Wanted>,
) -> Result<HttpResponse, ApiError> {
    let name = wanted.name.trim().to_owned();
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
        let detail = format!("a name has 1 to {LONGEST_NAME} bytes and no control characters");
        return Err(ApiError::Invalid { field: "name", detail });
    }
    let (row, key, version) =
        keys::create(&context.db, name, wanted.role, caller.actor(), now()).await?;
    context.announce(Some(version));
    Ok(HttpResponse::Created().json(Created { row, key }))
}

pub(crate) async fn revoke(
    Admin(caller): Admin,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    let known = id.clone();
    // What cannot be an id is nobody's; PostgreSQL would not even look for one with a NUL in it.
    let can_be = id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let find =
        context.db.run(move |conn| async move { api_keys::find(conn, &known).await }.boxed());
    if !can_be || find.await?.is_none() {
        return Err(ApiError::NotFound { what: format!("key {}", super::shown(&id)) });
    }
    let version = keys::revoke(&context.db, id, caller.actor(), now()).await?;
    context.announce(version);
    Ok(HttpResponse::NoContent().finish())
}
