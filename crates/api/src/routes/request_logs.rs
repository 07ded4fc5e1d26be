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
use crate::input::Query;
use crate::paging::Items;

pub(crate) async fn page(
    request: HttpRequest,
    _: Reader,
    context: web::Data<Context>,
) -> Result<web::Json<Items<Logged>>, ApiError> {
    let mut query = Query::of(&request)?;
    let filter =
        Filter { since: query.time("since")?, until: query.time("until")?, ..filter(&mut query)? };
    if let (Some(since), Some(until)) = (filter.since, filter.until)
        && since > until
    {
        let detail = "`since` is after `until`".to_owned();
        return Err(ApiError::Invalid { field: "since", detail });
    }
    let page = query.page::<2>()?;
    let after = page.after.map(|[micros, id]| {
        (DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH), id)
    });
    let limit = page.limit;
    let rows = context
        .db
        .run(move |conn| {
            async move { request_logs::page(conn, &filter, after, limit).await }.boxed()
        })
        .await?;
    Ok(web::Json(page.of(rows, |row| [row.at.timestamp_micros(), row.id])?))
}

/// Which records, whenever they were.
pub(crate) fn filter(query: &mut Query) -> Result<Filter, ApiError> {
    Ok(Filter {
        network: query.take::<Network>("ip")?,
        path_prefix: query.take("path")?.map(path_prefix).transpose()?,
        verdict: query.take::<RecordVerdict>("verdict")?.map(|verdict| verdict.to_string()),
        status: query.take("status")?.map(|text: String| status(&text)).transpose()?,
        country: query.take("country")?.map(|text: String| country(&text)).transpose()?,
        ..Filter::default()
    })
}

/// `404`, or `4xx` for all from 400 to 499.
fn status(text: &str) -> Result<(i16, i16), ApiError> {
    let of_class = text.strip_suffix("xx").and_then(|class| class.parse::<i16>().ok());
    match (of_class, text.parse::<i16>()) {
        (Some(class @ 1..=9), _) if text.len() == 3 => Ok((class * 100, class * 100 + 99)),
        (None, Ok(status @ 100..=999)) if text.len() == 3 => Ok((status, status)),
        _ => {
            let detail = "a status is written as 404, or as 4xx for all of its class".to_owned();
            Err(ApiError::Invalid { field: "status", detail })
        }
    }
}

/// Two letters of ISO 3166-1, large or small.
fn country(text: &str) -> Result<String, ApiError> {
    if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Ok(text.to_ascii_uppercase());
    }
    let detail = "a country is written with two letters, such as DE (ISO 3166-1)".to_owned();
    Err(ApiError::Invalid { field: "country", detail })
}

/// Other bytes than these stand in no path of the log, and PostgreSQL takes no NUL for text.
fn path_prefix(text: String) -> Result<String, ApiError> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    let detail = "paths are logged as they came: write a blank as %20 (in this query %2520)";
    Err(ApiError::Invalid { field: "path", detail: detail.to_owned() })
}
