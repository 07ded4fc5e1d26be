//! `GET /`: who you are to the service, and how much of your quota is left.

use actix_web::http::header::{CACHE_CONTROL, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::DateTime;
use ipwarden_core::context::Context;
use ipwarden_guard::{Admitted, Page, prefers_html};
use serde::Serialize;

#[derive(Serialize)]
struct Who {
    address: String,
    country: Option<String>,
    city: Option<String>,
    authenticated: bool,
    /// `None` for an allowed client.
    quota: Option<Quota>,
}

#[derive(Serialize)]
struct Quota {
    policy: String,
    limit: u32,
    window_seconds: u64,
    remaining: u32,
}

pub(crate) async fn who(
    request: HttpRequest,
    admitted: Admitted,
    context: web::Data<Context>,
) -> HttpResponse {
    // By the caches and the files of this process: a person who looks never waits for Redis.
    let now = DateTime::from_timestamp_micros(admitted.at.wall).unwrap_or_default();
    let place = context.geo.place(admitted.client.ip, now);
    let who = Who {
        address: admitted.client.ip.to_string(),
        country: place.country.map(|code| code.to_string()),
        city: place.city.map(|city| city.to_string()),
        authenticated: admitted.authenticated,
        quota: admitted.quota.as_ref().map(|state| Quota {
            policy: state.policy.to_string(),
            limit: state.quota.limit,
            window_seconds: state.quota.period.as_secs(),
            remaining: state.taken.remaining,
        }),
    };
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-store")).insert_header((VARY, "Accept"));
    if prefers_html(request.headers()) { page(&who, answer.finish()) } else { answer.json(who) }
}

fn page(who: &Who, answer: HttpResponse) -> HttpResponse {
    let place = match (&who.city, &who.country) {
        (Some(city), Some(country)) => format!("Place: {city}, {country}"),
        (None, Some(country)) => format!("Place: {country}"),
        _ => "Place: unknown".to_owned(),
    };
    let standing = match who.authenticated {
        true => "You are authenticated.",
        false => "You are anonymous.",
    };
    let quota = match &who.quota {
        None => "You are allowed: no quota applies to you.".to_owned(),
        Some(Quota { limit, window_seconds, remaining, .. }) => {
            format!("Quota: {remaining} of {limit} requests left in {window_seconds} seconds.")
        }
    };
    Page { title: &who.address, lines: &[&place, standing, &quota] }.into_body_of(answer)
}
