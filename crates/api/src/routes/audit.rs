//! `/api/v1/audit`: who changed what, when, from where.

use actix_web::{HttpRequest, web};
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::audit_log::{self, Audited};

use crate::auth::Reader;
use crate::error::ApiError;
use crate::input::Query;
use crate::paging::Items;

pub(crate) async fn page(
    request: HttpRequest,
    _: Reader,
    context: web::Data<Context>,
) -> Result<web::Json<Items<Audited>>, ApiError> {
    let page = Query::of(&request)?.page::<1>()?;
    let (before, limit) = (page.after.map(|[id]| id), page.limit);
    let rows = context.db.run(move |conn| audit_log::page(conn, before, limit).boxed()).await?;
    Ok(web::Json(page.of(rows, |row| [row.id])?))
}
