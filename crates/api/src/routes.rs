//! The only list of routes.

mod check;
mod findings;
mod health;
mod keys;
mod lists;
mod metrics;
mod request_logs;
mod who;

use actix_web::web::{self, ServiceConfig, resource, scope};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, Route};

use crate::auth::AnyKey;
use crate::error::ApiError;

/// For everybody; all of it passes the guard.
pub(crate) fn public(app: &mut ServiceConfig) {
    app.service(resource("/").get(who::who).head(who::who).default_service(only("GET, HEAD")))
        .default_service(web::to(nothing_here));
}

/// For operators; nothing of it passes the guard, and all of `/api` takes a key.
pub(crate) fn control(app: &mut ServiceConfig) {
    let open = |path| resource(path).default_service(only("GET, HEAD"));
    let keyed = |path, methods| resource(path).default_service(only_with_a_key(methods));
    app.service(open("/livez").get(health::livez).head(health::livez))
        .service(open("/readyz").get(health::readyz).head(health::readyz))
        .service(open("/metrics").get(metrics::metrics).head(metrics::metrics))
        .service(
            scope("/api/v1")
                .service(keyed("/blocks", "GET, POST").get(lists::blocks).post(lists::block))
                .service(keyed("/blocks/{target:.*}", "DELETE").delete(lists::unblock))
                .service(keyed("/allows", "GET, POST").get(lists::allows).post(lists::allow))
                .service(keyed("/allows/{target:.*}", "DELETE").delete(lists::disallow))
                .service(keyed("/suspicious", "GET").get(findings::page))
                .service(keyed("/suspicious/{id}", "GET").get(findings::find))
                .service(keyed("/suspicious/{id}/review", "POST").post(findings::review))
                .service(keyed("/request-logs", "GET").get(request_logs::page))
                .service(keyed("/check/{target:.*}", "GET").get(check::check))
                .service(keyed("/keys", "GET, POST").get(keys::all).post(keys::create))
                .service(keyed("/keys/{id}", "DELETE").delete(keys::revoke)),
        )
        .default_service(web::to(nothing_here_with_a_key));
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    ApiError::NotFound { what: format!("route {}", shown(request.path())) }.error_response()
}

/// Strangers do not learn which routes there are.
async fn nothing_here_with_a_key(_: AnyKey, request: HttpRequest) -> HttpResponse {
    nothing_here(request).await
}

/// The answer to a method that a route does not have.
fn only(allowed: &'static str) -> Route {
    web::to(move || async move { ApiError::MethodNotAllowed { allowed }.error_response() })
}

/// The same to whoever may know which methods there are.
fn only_with_a_key(allowed: &'static str) -> Route {
    web::to(move |_: AnyKey| async move { ApiError::MethodNotAllowed { allowed }.error_response() })
}

/// A path in an answer: short, and as escaped as it came.
fn shown(path: &str) -> String {
    ipwarden_engine::record::escape_path(path.as_bytes()).chars().take(200).collect()
}

/// The wall clock of this request. Routes are where time enters.
fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(ipwarden_engine::clock::Moment::now().wall)
        .unwrap_or_default()
}
