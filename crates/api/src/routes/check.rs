//! `/api/v1/check/<ip>`: every list that speaks about an address, and the verdict.

use actix_web::web;
use ipwarden_core::context::Context;
use ipwarden_core::lists::{self, Checked};

use crate::auth::Reader;
use crate::error::ApiError;
use crate::routes::lists::target_of;
use crate::routes::now;

pub(crate) async fn check(
    _: Reader,
    context: web::Data<Context>,
    target: web::Path<String>,
) -> Result<web::Json<Checked>, ApiError> {
    let network = target_of(&target)?.network;
    let trusted = &context.config.client_ip.trusted_proxies;
    Ok(web::Json(lists::check(&context.db, network, trusted, now()).await?))
}
