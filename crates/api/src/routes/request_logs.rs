//! `/api/v1/request-logs`: what was asked, by whom, and what became of it.

use actix_web::{HttpRequest, web};
use chrono::DateTime;
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::request_logs::{self, Filter, Logged};
use ipwarden_engine::network::Network;
use ipwarden_engine::record::RecordVerdict;

use crate::auth::Reader;
use crate::error::ApiError;
use crate::input::{Query, cursor, is_in_reach};
use crate::routes::lists::Items;

pub(crate) async fn page(
    request: HttpRequest,
    _: Reader,
    context: web::Data<Context>,
) -> Result<web::Json<Items<Logged>>, ApiError> {
    let mut query = Query::of(&request)?;
    let filter = Filter {
        network: query.take::<Network>("ip")?,
        path_prefix: query.take("path")?.map(path_prefix).transpose()?,
        verdict: query.take::<RecordVerdict>("verdict")?.map(|verdict| verdict.to_string()),
        since: query.time("since")?,
        until: query.time("until")?,
    };
    if let (Some(since), Some(until)) = (filter.since, filter.until)
        && since > until
    {
        let detail = "`since` is after `until`".to_owned();
        return Err(ApiError::Invalid { field: "since", detail });
    }
    let after = match query.cursor::<2>()? {
        None => None,
        Some([micros, id]) => match DateTime::from_timestamp_micros(micros).filter(is_in_reach) {
            Some(at) => Some((at, id)),
            None => {
                let detail = "this is no position that a page's `next` named".to_owned();
                return Err(ApiError::Invalid { field: "cursor", detail });
            }
        },
    };
    let limit = query.limit()?;
    query.done()?;
    let rows = context
        .db
        .run(move |conn| {
            async move { request_logs::page(conn, &filter, after, limit).await }.boxed()
        })
        .await?;
    let position = |row: &Logged| cursor([row.at.timestamp_micros(), row.id]);
    Ok(web::Json(Items::of(rows, limit, position)))
}

/// Other bytes than these stand in no path of the log, and PostgreSQL takes no NUL for text.
fn path_prefix(text: String) -> Result<String, ApiError> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    let detail = "paths are logged as they came: write a blank as %20 (in this query %2520)";
    Err(ApiError::Invalid { field: "path", detail: detail.to_owned() })
}
