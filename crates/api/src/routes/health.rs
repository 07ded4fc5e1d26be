//! `/livez` and `/readyz`: open to all who reach the listener, without addresses or secrets.

use std::fmt::Write as _;
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use ipwarden_core::context::Context;
use ipwarden_core::health::{Condition, conditions};
use ipwarden_engine::clock::Moment;

/// How long the store may take to say when the last scan ran.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process lives.
pub(crate) async fn livez() -> HttpResponse {
    let kind = "text/plain; charset=utf-8";
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).content_type(kind).body("alive\n")
}

/// The process can decide; degraded but serving is ready. `?verbose` says what is degraded.
pub(crate) async fn readyz(request: HttpRequest, context: web::Data<Context>) -> HttpResponse {
    let ready = context.is_ready();
    let mut text = String::new();
    if request
        .query_string()
        .split('&')
        .any(|name| name == "verbose" || name.starts_with("verbose="))
    {
        let all = conditions(&context, Moment::now(), PATIENCE).await;
        for Condition { name, degraded, text: says } in &all {
            let mark = if *degraded { '!' } else { '+' };
            let _infallible = writeln!(text, "[{mark}] {name}: {says}");
        }
        if all.iter().any(|condition| condition.degraded) && ready {
            text.push_str("degraded\n");
        }
    }
    text.push_str(match (ready, context.is_stopping()) {
        (true, _) => "ready\n",
        (false, true) => "not ready: stopping\n",
        (false, false) => "not ready: no lists, neither from the store nor from the disk\n",
    });
    let mut answer = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer
        .insert_header((CACHE_CONTROL, "no-store"))
        .content_type("text/plain; charset=utf-8")
        .body(text)
}
