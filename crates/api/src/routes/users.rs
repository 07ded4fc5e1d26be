//! `/api/v1/users`: people who sign in.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::users::{self as rows, User};
use ipwarden_core::keys::Role;
use ipwarden_core::users::{self, fit_name, fit_password};
use serde::Deserialize;

use crate::auth::Admin;
use crate::error::ApiError;
use crate::input::Body;
use crate::paging::Items;
use crate::routes::change::{Change, IdempotencyKey, change};

/// Why no answer is kept where a password is sent.
const NOT_KEPT: &str =
    "nothing is kept of a request with a password; send it again, a name is taken only once";

/// A person to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    name: String,
    role: Role,
    password: String,
}

/// Another password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    password: String,
}

pub(crate) async fn all(
    _: Admin,
    context: web::Data<Context>,
) -> Result<web::Json<Items<User>>, ApiError> {
    let items = context.db.run(|conn| rows::all(conn).boxed()).await?;
    Ok(web::Json(Items { items, next: None }))
}

pub(crate) async fn add(
    Admin(caller): Admin,
    key: IdempotencyKey,
    context: web::Data<Context>,
    Body(wanted): Body<Wanted>,
) -> Result<HttpResponse, ApiError> {
    key.refuse(NOT_KEPT)?;
    let invalid = |field, detail: String| ApiError::Invalid { field, detail };
    let name = fit_name(&wanted.name).map_err(|error| invalid("name", error.to_string()))?;
    if wanted.role == Role::Bouncer {
        return Err(invalid("role", "a bouncer is no person; make it a key".to_owned()));
    }
    let hash = hash(&context, wanted.password).await?;
    let (actor, role) = (caller.actor(), wanted.role);
    change(&context, None, move |conn, at| {
        async move {
            let added = users::add_in(conn, &name, role, hash, &actor, at).await?;
            let taken = || ApiError::Conflict { detail: format!("The name {name} is taken.") };
            Ok(added
                .map(|(row, version)| Change::of(StatusCode::CREATED, &row, Some(version)))
                .ok_or_else(taken))
        }
        .boxed()
    })
    .await
}

pub(crate) async fn remove(
    Admin(caller): Admin,
    key: IdempotencyKey,
    context: web::Data<Context>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let actor = caller.actor();
    let once = key.of(&actor, &());
    let name = known(&name)?;
    change(&context, once, move |conn, at| {
        async move {
            let removed = users::remove_in(conn, &name, &actor, at).await?;
            Ok(removed.map(|version| Change::empty(Some(version))).ok_or_else(|| missing(&name)))
        }
        .boxed()
    })
    .await
}

pub(crate) async fn set_password(
    Admin(caller): Admin,
    key: IdempotencyKey,
    context: web::Data<Context>,
    name: web::Path<String>,
    Body(wanted): Body<NewPassword>,
) -> Result<HttpResponse, ApiError> {
    key.refuse(NOT_KEPT)?;
    let (name, actor) = (known(&name)?, caller.actor());
    let hash = hash(&context, wanted.password).await?;
    change(&context, None, move |conn, at| {
        async move {
            let set = users::set_password_in(conn, &name, hash, &actor, at).await?;
            Ok(set.map(|version| Change::empty(Some(version))).ok_or_else(|| missing(&name)))
        }
        .boxed()
    })
    .await
}

async fn hash(context: &Context, password: String) -> Result<String, ApiError> {
    fit_password(&password)
        .map_err(|error| ApiError::Invalid { field: "password", detail: error.to_string() })?;
    let detail = "Too many passwords are being looked at. Try again.";
    context.passwords.hash(password).await.map_err(|_| ApiError::Busy { detail })
}

/// A name in a path; what cannot be one is nobody's.
fn known(text: &str) -> Result<String, ApiError> {
    fit_name(text).map_err(|_| missing(text))
}

fn missing(name: &str) -> ApiError {
    ApiError::NotFound { what: format!("user {}", super::shown(name)) }
}
