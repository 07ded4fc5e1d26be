//! The only list of routes.

mod audit;
mod bouncers;
mod bulk;
mod change;
mod check;
mod findings;
pub(crate) mod gate;
mod health;
mod keys;
mod lists;
mod metrics;
mod request_logs;
mod scans;
mod session;
mod stats;
mod streams;
mod users;
mod who;

use actix_web::web::{self, ServiceConfig, resource, scope};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, Route};

pub(crate) use self::stats::Counters;
pub(crate) use self::streams::Listeners;
use crate::auth::Anybody;
use crate::error::ApiError;
use crate::openapi;

/// For everybody; all of it passes the guard.
pub(crate) fn public(app: &mut ServiceConfig) {
    app.service(resource("/").get(who::who).head(who::who).default_service(only("GET, HEAD")))
        .configure(door)
        .default_service(web::to(nothing_here));
}

/// For proxies and bouncers of the same network. What it asks about is guarded; to ask is not.
pub(crate) fn gate(app: &mut ServiceConfig) {
    use self::bouncers::{appsec, decisions, stream, usage};
    use self::gate::forward_auth;
    let any = |path: &str| resource(path.to_owned());
    let asked = |path, methods| resource(path).default_service(only(methods));
    app.service(any("/v1/forward-auth").to(forward_auth::forward_auth))
        .service(any("/v1/forward-auth/nginx").to(forward_auth::nginx))
        .service(
            any(&format!("{}{{target:.*}}", forward_auth::EXT_AUTHZ)).to(forward_auth::ext_authz),
        )
        .service(
            asked("/v1/decisions", "GET, HEAD")
                .get(decisions::decisions)
                .head(decisions::decisions),
        )
        .service(
            asked("/v1/decisions/stream", "GET, HEAD").get(stream::stream).head(stream::stream),
        )
        .service(asked("/v1/usage-metrics", "POST").post(usage::usage))
        .service(any("/v1/appsec").to(appsec::appsec))
        .service(asked("/health", "GET, HEAD").get(bouncers::health).head(bouncers::health))
        .default_service(web::to(nothing_here));
}

/// The way in for people, on both listeners.
fn door(app: &mut ServiceConfig) {
    let login = resource("/login").get(session::page).head(session::page).post(session::sign_in);
    let logout = resource("/logout").post(session::sign_out);
    app.service(login.default_service(only("GET, HEAD, POST")))
        .service(logout.default_service(only("POST")));
}

/// For operators; nothing of it passes the guard, and all of `/api` takes a key or a session.
pub(crate) fn control(app: &mut ServiceConfig) {
    let open = |path| resource(path).default_service(only("GET, HEAD"));
    let keyed = |path, methods| resource(path).default_service(only_with_a_key(methods));
    app.configure(door)
        .service(open("/livez").get(health::livez).head(health::livez))
        .service(open("/readyz").get(health::readyz).head(health::readyz))
        .service(keyed("/api/docs", "GET").get(openapi::page))
        .service(open("/metrics").get(metrics::metrics).head(metrics::metrics))
        .service(
            scope("/api/v1")
                .service(keyed("/blocks", "GET, POST").get(lists::blocks).post(lists::block))
                .service(keyed("/blocks/bulk", "POST").post(bulk::bulk))
                .service(keyed("/blocks/{target:.*}", "DELETE").delete(lists::unblock))
                .service(keyed("/allows", "GET, POST").get(lists::allows).post(lists::allow))
                .service(keyed("/allows/{target:.*}", "DELETE").delete(lists::disallow))
                .service(keyed("/suspicious", "GET").get(findings::page))
                .service(keyed("/suspicious/{id}", "GET").get(findings::find))
                .service(keyed("/suspicious/{id}/review", "POST").post(findings::review))
                .service(keyed("/request-logs", "GET").get(request_logs::page))
                .service(keyed("/request-logs/stream", "GET").get(streams::records))
                .service(keyed("/stats", "GET").get(stats::stats))
                .service(keyed("/changes/stream", "GET").get(streams::changes))
                .service(keyed("/scans", "GET").get(scans::page))
                .service(keyed("/audit", "GET").get(audit::page))
                .service(keyed("/check/{target:.*}", "GET").get(check::check))
                .service(keyed("/keys", "GET, POST").get(keys::all).post(keys::create))
                .service(keyed("/keys/{id}", "DELETE").delete(keys::revoke))
                .service(keyed("/users", "GET, POST").get(users::all).post(users::add))
                .service(keyed("/users/{name}", "DELETE").delete(users::remove))
                .service(keyed("/users/{name}/password", "PUT").put(users::set_password))
                .service(keyed("/session", "GET").get(session::whoami))
                .service(keyed("/openapi.json", "GET").get(openapi::json)),
        )
        .default_service(web::to(nothing_here_with_a_key));
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    ApiError::NotFound { what: format!("route {}", shown(request.path())) }.error_response()
}

/// Strangers do not learn which routes there are.
async fn nothing_here_with_a_key(_: Anybody, request: HttpRequest) -> HttpResponse {
    nothing_here(request).await
}

/// The answer to a method that a route does not have.
fn only(allowed: &'static str) -> Route {
    web::to(move || async move { ApiError::MethodNotAllowed { allowed }.error_response() })
}

/// The same to whoever may know which methods there are.
fn only_with_a_key(allowed: &'static str) -> Route {
    web::to(
        move |_: Anybody| async move { ApiError::MethodNotAllowed { allowed }.error_response() },
    )
}

/// A path in an answer: short, and as escaped as it came.
fn shown(path: &str) -> String {
    ipwarden_engine::record::escape_path(path.as_bytes()).chars().take(200).collect()
}

/// The wall clock of this request. Routes are where time enters.
pub(crate) fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(ipwarden_engine::clock::Moment::now().wall)
        .unwrap_or_default()
}
