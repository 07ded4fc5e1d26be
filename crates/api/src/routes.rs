//! The only list of routes.

mod check;
mod findings;
mod health;
mod keys;
mod lists;
mod metrics;
mod request_logs;
mod who;

use actix_web::web::{self, ServiceConfig, delete, get, post, resource, scope};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};

use crate::error::ApiError;

/// For everybody; all of it passes the guard.
pub(crate) fn public(app: &mut ServiceConfig) {
    app.service(resource("/").get(who::who).head(who::who).default_service(web::to(other_method)))
        .default_service(web::to(nothing_here));
}

/// For operators; nothing of it passes the guard, and all of `/api` takes a key.
pub(crate) fn control(app: &mut ServiceConfig) {
    app.route("/livez", get().to(health::livez))
        .route("/readyz", get().to(health::readyz))
        .route("/metrics", get().to(metrics::metrics))
        .service(
            scope("/api/v1")
                .service(
                    resource("/blocks")
                        .get(lists::blocks)
                        .post(lists::block)
                        .default_service(web::to(other_method)),
                )
                .route("/blocks/{target:.*}", delete().to(lists::unblock))
                .service(
                    resource("/allows")
                        .get(lists::allows)
                        .post(lists::allow)
                        .default_service(web::to(other_method)),
                )
                .route("/allows/{target:.*}", delete().to(lists::disallow))
                .route("/suspicious", get().to(findings::page))
                .route("/suspicious/{id}", get().to(findings::find))
                .route("/suspicious/{id}/review", post().to(findings::review))
                .route("/request-logs", get().to(request_logs::page))
                .route("/check/{target:.*}", get().to(check::check))
                .service(
                    resource("/keys")
                        .get(keys::all)
                        .post(keys::create)
                        .default_service(web::to(other_method)),
                )
                .route("/keys/{id}", delete().to(keys::revoke)),
        )
        .default_service(web::to(nothing_here));
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    ApiError::NotFound { what: format!("route {}", shown(request.path())) }.error_response()
}

async fn other_method() -> HttpResponse {
    ApiError::MethodNotAllowed.error_response()
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
