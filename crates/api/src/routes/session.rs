//! `/login` and `/logout`, on both listeners, and `/api/v1/session`.
//!
//! The only routes of the public listener that ask the store: whoever signs in is looked up there. Pages
//! carry no script; what they load is in them, and they are told so by their policy.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, SET_COOKIE, VARY};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use chrono::{DateTime, Utc};
use ipwarden_core::context::Context;
use ipwarden_core::keys::Role;
use ipwarden_core::sessions::{Audience, Session, Sessions};
use ipwarden_guard::prefers_html;
use serde::{Deserialize, Serialize};

use crate::auth::door::{Door, address};
use crate::auth::{Anybody, cookie};
use crate::error::ApiError;
use crate::html::{self, Forms, escape};
use crate::input::{Kind, kind, parse, read};

/// A name, a password, a token: no more is sent here.
const LARGEST_BODY: usize = 8 << 10;

/// What somebody signs in with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    name: String,
    password: String,
}

/// What the form that signs out sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Farewell {
    csrf: String,
}

/// Who somebody is, and what his changes have to show.
#[derive(Serialize)]
struct Who {
    name: String,
    role: Role,
    /// For `X-Csrf-Token`; nothing for a key.
    csrf: Option<String>,
    expires_at: Option<DateTime<Utc>>,
}

impl Who {
    fn of(session: &Session) -> Who {
        Who {
            name: session.person.actor_name(),
            role: session.person.role,
            csrf: Some(session.token.clone()),
            expires_at: Some(session.expires_at),
        }
    }
}

/// Who the caller is: a page of ours asks this for its token.
pub(crate) async fn whoami(Anybody(caller): Anybody) -> HttpResponse {
    let who = match caller.session() {
        Some(session) => Who::of(session),
        None => {
            Who { name: caller.actor().name, role: caller.role(), csrf: None, expires_at: None }
        }
    };
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(who)
}

/// The page to sign in on, or out.
pub(crate) async fn page(request: HttpRequest, door: web::Data<Door>) -> HttpResponse {
    match cookie::session(&request, &door) {
        Some(session) => signed_in(&session),
        None => form(StatusCode::OK, None),
    }
}

/// Opens a session.
pub(crate) async fn sign_in(
    request: HttpRequest,
    payload: Payload,
    context: web::Data<Context>,
    door: web::Data<Door>,
) -> HttpResponse {
    match try_sign_in(&request, payload, &context, &door).await {
        Ok((text, session)) => {
            let cookie = cookie::given(&request, door.audience, &text);
            let mut answer = match prefers_html(request.headers()) {
                true => see(after(door.audience)),
                false => HttpResponse::Ok().json(Who::of(&session)),
            };
            with_cookie(&mut answer, &cookie);
            answer
        }
        Err(error) if prefers_html(request.headers()) => refused(&error),
        Err(error) => error.error_response(),
    }
}

/// Ends all sessions of whoever shows one.
pub(crate) async fn sign_out(
    request: HttpRequest,
    payload: Payload,
    context: web::Data<Context>,
    door: web::Data<Door>,
) -> HttpResponse {
    match try_sign_out(&request, payload, &context, &door).await {
        Ok(()) => {
            let mut answer = match prefers_html(request.headers()) {
                true => see("/login"),
                false => HttpResponse::NoContent().finish(),
            };
            with_cookie(&mut answer, &cookie::taken(&request, door.audience));
            answer
        }
        Err(error) if prefers_html(request.headers()) => refused(&error),
        Err(error) => error.error_response(),
    }
}

async fn try_sign_in(
    request: &HttpRequest,
    payload: Payload,
    context: &Context,
    door: &Door,
) -> Result<(String, Session), ApiError> {
    cookie::no_foreign_origin(request)?;
    let sent = kind(request);
    let body = match sent {
        Kind::Json | Kind::Form => read(payload, LARGEST_BODY).await?,
        Kind::Other => return Err(ApiError::NotJson),
    };
    let Credentials { name, password } = match sent {
        Kind::Form => form_of(&body)?,
        Kind::Json | Kind::Other => parse(&body)?,
    };
    door.sign_in(context, address(request), &name, password).await
}

async fn try_sign_out(
    request: &HttpRequest,
    payload: Payload,
    context: &Context,
    door: &Door,
) -> Result<(), ApiError> {
    // Who has no session has nothing to end.
    let Some(session) = cookie::session(request, door) else {
        return cookie::no_foreign_origin(request);
    };
    match kind(request) {
        Kind::Form => {
            cookie::own_origin(request)?;
            let Farewell { csrf } = form_of(&read(payload, LARGEST_BODY).await?)?;
            if !Sessions::is_token(&session, &csrf) {
                return Err(ApiError::ForgedRequest);
            }
        }
        Kind::Json | Kind::Other => cookie::meant(request, &session)?,
    }
    door.sign_out(context, session.person, address(request)).await
}

/// A form as browsers send it.
fn form_of<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let read = web::Query::<T>::from_query(text).map(web::Query::into_inner);
    read.map_err(|error| ApiError::Malformed {
        field: "body".to_owned(),
        detail: error.to_string(),
    })
}

/// Where a browser goes when somebody has signed in.
fn after(audience: Audience) -> &'static str {
    match audience {
        Audience::Public => "/",
        Audience::Control => "/api/docs",
    }
}

fn see(location: &'static str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, location)).finish()
}

fn with_cookie(answer: &mut HttpResponse, cookie: &str) {
    let value = actix_web::http::header::HeaderValue::from_str(cookie);
    answer.headers_mut().insert(SET_COOKIE, value.expect("names and digits are visible ASCII"));
    let never = actix_web::http::header::HeaderValue::from_static("no-store");
    answer.headers_mut().insert(CACHE_CONTROL, never);
}

fn refused(error: &ApiError) -> HttpResponse {
    let answer = error.error_response();
    let mut page = form(answer.status(), Some(&error.detail()));
    for (name, value) in answer.headers() {
        if *name != CONTENT_TYPE {
            page.headers_mut().insert(name.clone(), value.clone());
        }
    }
    page
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;\
max-width:22rem;margin:12vh auto;padding:0 1.5rem}h1{font-size:1.6rem;margin:0 0 1rem}\
label{display:block;margin:.8rem 0 .2rem}input{box-sizing:border-box;width:100%;font:inherit;\
padding:.4rem .5rem}button{font:inherit;margin-top:1.2rem;padding:.4rem 1.2rem}\
[role=alert]{border-left:4px solid #c33;padding-left:.8rem}";

fn form(status: StatusCode, trouble: Option<&str>) -> HttpResponse {
    let trouble = trouble.map(|text| format!("<p role=\"alert\">{}</p>", escape(text)));
    let trouble = trouble.unwrap_or_default();
    page_of(
        status,
        &format!(
            "<h1>Sign in</h1>{trouble}<form method=\"post\" action=\"/login\">\
             <label for=\"name\">Name</label>\
             <input id=\"name\" name=\"name\" autocomplete=\"username\" required autofocus>\
             <label for=\"password\">Password</label>\
             <input id=\"password\" name=\"password\" type=\"password\" \
             autocomplete=\"current-password\" required>\
             <button>Sign in</button></form>"
        ),
    )
}

fn signed_in(session: &Session) -> HttpResponse {
    // A name has no character that means anything in HTML.
    let (name, role, token) = (&session.person.name, session.person.role, &session.token);
    page_of(
        StatusCode::OK,
        &format!(
            "<h1>Signed in</h1><p>You are {name}, with the role {role}.</p>\
             <form method=\"post\" action=\"/logout\">\
             <input type=\"hidden\" name=\"csrf\" value=\"{token}\">\
             <button>Sign out everywhere</button></form>"
        ),
    )
}

fn page_of(status: StatusCode, body: &str) -> HttpResponse {
    let mut answer = html::answer(status, STYLE, Forms::ToUs, body);
    let by_cookie = actix_web::http::header::HeaderValue::from_static("Accept, Cookie");
    answer.headers_mut().insert(VARY, by_cookie);
    answer
}
