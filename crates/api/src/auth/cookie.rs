//! Sessions in cookies, and what has to come with them.
//!
//! # Security
//! A browser sends a cookie with whatever page makes it send something. So the cookie is `SameSite=Strict`,
//! a change wants to come from a page of the same origin, and it wants the token of the session, which
//! no other page knows.

use actix_web::HttpRequest;
use actix_web::http::header::{COOKIE, ORIGIN};
use ipwarden_core::sessions::{Audience, LASTS, Session, Sessions};

use crate::auth::door::Door;
use crate::error::ApiError;

/// Where a script shows the token; a form has a field of its own.
pub(crate) const TOKEN: &str = "X-Csrf-Token";

/// The session that a request shows, if it counts here.
pub(crate) fn session(request: &HttpRequest, door: &Door) -> Option<Session> {
    let name = door.audience.cookie();
    let lines = request.headers().get_all(COOKIE).filter_map(|line| line.to_str().ok());
    let mut named = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(own, _)| *own == name);
    let (_, text) = named.next()?;
    // Two of a name: somebody has planted one.
    if named.next().is_some() {
        return None;
    }
    door.sessions.verify(door.audience, text, crate::routes::now())
}

/// Makes sure that a change with a cookie was sent by a page of ours.
pub(crate) fn meant(request: &HttpRequest, session: &Session) -> Result<(), ApiError> {
    own_origin(request)?;
    let shown = request.headers().get(TOKEN).and_then(|token| token.to_str().ok());
    match shown.is_some_and(|token| Sessions::is_token(session, token)) {
        true => Ok(()),
        false => Err(ApiError::ForgedRequest),
    }
}

/// Makes sure that a browser sends this for a page of the same origin.
pub(crate) fn own_origin(request: &HttpRequest) -> Result<(), ApiError> {
    match origin(request) {
        Origin::Own => Ok(()),
        Origin::Foreign | Origin::Unknown => Err(ApiError::ForgedRequest),
    }
}

/// The same, but a program that is no browser need not say where it comes from.
pub(crate) fn no_foreign_origin(request: &HttpRequest) -> Result<(), ApiError> {
    match origin(request) {
        Origin::Own | Origin::Unknown => Ok(()),
        Origin::Foreign => Err(ApiError::ForgedRequest),
    }
}

enum Origin {
    Own,
    Foreign,
    Unknown,
}

fn origin(request: &HttpRequest) -> Origin {
    let text = |name: &str| request.headers().get(name).map(|value| value.to_str());
    if let Some(origin) = text("origin") {
        let authority = origin.ok().and_then(|origin| origin.split_once("://"));
        let host = text("host").and_then(Result::ok);
        return match (authority, host) {
            (Some(("http" | "https", own)), Some(host)) if own.eq_ignore_ascii_case(host) => {
                Origin::Own
            }
            _ => Origin::Foreign,
        };
    }
    match text("sec-fetch-site") {
        Some(Ok("same-origin")) => Origin::Own,
        Some(_) => Origin::Foreign,
        None => Origin::Unknown,
    }
}

/// Whether the browser sees this over TLS: it says so itself, and a lie only harms who tells it.
fn over_tls(request: &HttpRequest) -> bool {
    request.headers().get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// The field that hands a session to a browser.
pub(crate) fn given(request: &HttpRequest, audience: Audience, text: &str) -> String {
    written(request, audience, text, LASTS.num_seconds())
}

/// The field that takes it away.
pub(crate) fn taken(request: &HttpRequest, audience: Audience) -> String {
    written(request, audience, "", 0)
}

fn written(request: &HttpRequest, audience: Audience, text: &str, seconds: i64) -> String {
    let secure = if over_tls(request) { "; Secure" } else { "" };
    let name = audience.cookie();
    format!("{name}={text}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}
