//! `/api/v1/scans`: which hours were judged, by whom, and what came of it.

use actix_web::{HttpRequest, web};
use chrono::DateTime;
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::scan_runs::{self, ScanRun};

use crate::auth::Reader;
use crate::error::ApiError;
use crate::input::Query;
use crate::paging::Items;

pub(crate) async fn page(
    request: HttpRequest,
    _: Reader,
    context: web::Data<Context>,
) -> Result<web::Json<Items<ScanRun>>, ApiError> {
    let page = Query::of(&request)?.page::<1>()?;
    let before = page.after.and_then(|[micros]| DateTime::from_timestamp_micros(micros));
    let limit = page.limit;
    let rows = context.db.run(move |conn| scan_runs::page(conn, before, limit).boxed()).await?;
    Ok(web::Json(page.of(rows, |row| [row.window_start.timestamp_micros()])?))
}
