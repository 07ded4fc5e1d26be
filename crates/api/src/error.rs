//! What goes wrong in a request, and the one place that turns it into an answer (RFC 9457).
//!
//! A 4xx says what would be right and names the field. A 5xx has a generic text; its cause is logged
//! once, with a reference that the answer carries.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use ipwarden_core::db::DbError;
use ipwarden_core::keys::Role;
use ipwarden_core::lists::{ListError, ReviewError};
use ipwarden_engine::record::Reference;
use ipwarden_engine::target::Refused;
use serde_json::{Value, json};

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// What was sent is no JSON, or not of the form that is wanted.
    Malformed { field: String, detail: String },
    /// Its form is right, its content is not.
    Invalid { field: &'static str, detail: String },
    /// More was sent than anything here takes, in bytes.
    TooLarge { limit: usize },
    /// What was sent took longer than this.
    TooSlow { limit: Duration },
    /// Something else than JSON was sent.
    NotJson,
    /// No key, or none that counts.
    Unauthorized,
    /// The key's role is not enough.
    Forbidden { needed: Role },
    /// Whoever asks is none of the proxies that may.
    NotTrusted,
    /// Too many wrong keys from this address, or passwords from it or for this name; seconds until the next
    /// try.
    TooManyGuesses { seconds: u64 },
    /// There is nobody of this name, or he has another password.
    WrongPassword,
    /// A browser sent a cookie, but not for a page of ours.
    ForgedRequest,
    /// There is none of this name.
    NotFound { what: String },
    /// The method is not one of this route's, which are these, with commas between.
    MethodNotAllowed { allowed: &'static str },
    /// The guard rails stand in the way.
    Refused(Vec<Refused>),
    /// Of many things that were wanted together these cannot be, so none was done.
    Elements { refused: bool, errors: Vec<ElementError> },
    /// The change does not fit what is there.
    Conflict { detail: String },
    /// As much of this is being done as this process does at once.
    Busy { detail: &'static str },
    /// The store does not answer, or cannot do it now.
    Unavailable { detail: &'static str, cause: String, reference: Reference },
    /// Our fault.
    Internal { cause: String, reference: Reference },
}

/// What is wrong with one of many.
#[derive(Debug)]
pub(crate) struct ElementError {
    /// Of the array.
    pub(crate) list: &'static str,
    /// In the array, from 0.
    pub(crate) index: usize,
    /// Of the element; empty for an element that is a text.
    pub(crate) field: &'static str,
    pub(crate) detail: String,
    /// Which of the guard rails, if one of them stands in the way.
    pub(crate) rule: Option<&'static str>,
}

/// So many errors of one kind tell what is wrong.
const MOST_ERRORS: usize = 100;

impl ElementError {
    fn shown(&self) -> Value {
        let ElementError { list, index, field, detail, rule } = self;
        let dot = if field.is_empty() { "" } else { "." };
        let mut error = json!({
            "field": format!("{list}[{index}]{dot}{field}"), "index": index, "detail": detail,
        });
        if let Some(rule) = rule {
            error["rule"] = (*rule).into();
        }
        error
    }
}

impl ApiError {
    fn parts(&self) -> (StatusCode, &'static str, String, Value) {
        match self {
            ApiError::Malformed { field, detail } => {
                (StatusCode::BAD_REQUEST, "Bad request", detail.clone(), errors(field, detail))
            }
            ApiError::Invalid { field, detail } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "Unprocessable content",
                detail.clone(),
                errors(field, detail),
            ),
            ApiError::TooLarge { limit } => {
                let detail = format!("The body is larger than {limit} bytes.");
                let members = errors("body", &detail);
                (StatusCode::PAYLOAD_TOO_LARGE, "Content too large", detail, members)
            }
            ApiError::TooSlow { limit } => {
                let detail = format!("The body took longer than {} s.", limit.as_secs());
                let members = errors("body", &detail);
                (StatusCode::REQUEST_TIMEOUT, "Request timeout", detail, members)
            }
            ApiError::NotJson => {
                let detail = "Send JSON, with Content-Type: application/json.".to_owned();
                let members = errors("Content-Type", &detail);
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", detail, members)
            }
            ApiError::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                "Send an API key that counts (Authorization: Bearer KEY), or sign in.".to_owned(),
                json!({}),
            ),
            ApiError::Forbidden { needed } => (
                StatusCode::FORBIDDEN,
                "Forbidden",
                format!("This takes the role {needed}."),
                json!({}),
            ),
            ApiError::NotTrusted => (
                StatusCode::FORBIDDEN,
                "Forbidden",
                "Only the proxies of client_ip.trusted_proxies are answered here.".to_owned(),
                json!({}),
            ),
            ApiError::TooManyGuesses { seconds } => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests",
                format!("Too many wrong keys or passwords. Try again in {seconds} s."),
                json!({}),
            ),
            ApiError::WrongPassword => (
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                "Wrong name or password.".to_owned(),
                json!({}),
            ),
            ApiError::ForgedRequest => (
                StatusCode::FORBIDDEN,
                "Forbidden",
                "With a session, a change wants an Origin that is this host, and the session's token \
                 in X-Csrf-Token."
                    .to_owned(),
                json!({}),
            ),
            ApiError::NotFound { what } => {
                (StatusCode::NOT_FOUND, "Not found", format!("There is no {what}."), json!({}))
            }
            ApiError::MethodNotAllowed { .. } => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "This route does not know the method.".to_owned(),
                json!({}),
            ),
            ApiError::Refused(refused) => {
                let all: Vec<Value> = refused
                    .iter()
                    .map(|one| {
                        let detail = one.reason().to_string();
                        json!({ "field": "target", "rule": one.rule(), "detail": detail })
                    })
                    .collect();
                let detail = "The guard rails refuse this target; \"force\": true passes them.";
                let members = json!({ "errors": all });
                (StatusCode::CONFLICT, "Refused target", detail.to_owned(), members)
            }
            ApiError::Elements { refused, errors } => {
                let shown: Vec<Value> =
                    errors.iter().take(MOST_ERRORS).map(ElementError::shown).collect();
                let (status, title, why) = match refused {
                    true => (
                        StatusCode::CONFLICT,
                        "Refused target",
                        "The guard rails refuse some of it; \"force\": true passes them.",
                    ),
                    false => (
                        StatusCode::UNPROCESSABLE_ENTITY,
                        "Unprocessable content",
                        "Some of it cannot be done.",
                    ),
                };
                let count = errors.len();
                let detail = format!("{why} Nothing was changed; errors: {count}.");
                (status, title, detail, json!({ "errors": shown }))
            }
            ApiError::Conflict { detail } => {
                (StatusCode::CONFLICT, "Conflict", detail.clone(), json!({}))
            }
            ApiError::Busy { detail } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Service unavailable",
                (*detail).to_owned(),
                json!({}),
            ),
            ApiError::Unavailable { detail, reference, .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Service unavailable",
                (*detail).to_owned(),
                json!({ "reference": reference.to_string() }),
            ),
            ApiError::Internal { reference, .. } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal server error",
                "Something went wrong on our side; the reference leads to it in the log."
                    .to_owned(),
                json!({ "reference": reference.to_string() }),
            ),
        }
    }
}

impl ApiError {
    /// The sentence for a person.
    pub(crate) fn detail(&self) -> String {
        self.parts().2
    }
}

fn errors(field: &str, detail: &str) -> Value {
    json!({ "errors": [{ "field": field, "detail": detail }] })
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.parts().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, title, detail, mut members) = self.parts();
        if let ApiError::Unavailable { cause, reference, .. }
        | ApiError::Internal { cause, reference } = self
        {
            tracing::error!(%reference, status = status.as_u16(), %cause, "a request failed");
        }
        members["type"] = "about:blank".into();
        members["title"] = title.into();
        members["status"] = status.as_u16().into();
        members["detail"] = detail.into();
        let mut answer = HttpResponse::build(status);
        match self {
            ApiError::Unauthorized => {
                answer.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"ipwarden\""));
            }
            ApiError::MethodNotAllowed { allowed } => {
                answer.insert_header((header::ALLOW, *allowed));
            }
            ApiError::Busy { .. } => {
                answer.insert_header((header::RETRY_AFTER, "5"));
            }
            ApiError::TooManyGuesses { seconds } => {
                answer.insert_header((header::RETRY_AFTER, seconds.to_string()));
            }
            _ => {}
        }
        answer.insert_header((header::CACHE_CONTROL, "no-store"));
        let mut answer = answer.body(members.to_string());
        let kind = HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, _, detail, _) = self.parts();
        write!(f, "{status}: {detail}")
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> ApiError {
        let (cause, reference) = (error.to_string(), Reference::random());
        let detail = match error {
            DbError::Unconfirmed(_) => {
                "The store went away before it confirmed the change, which may have been made. \
                 Look whether it was, and try again if not."
            }
            DbError::Hindered(_) => {
                "The store cannot do it now. Nothing was changed; try again later."
            }
            _ if error.is_unreachable() => {
                "The store does not answer. Nothing was changed; try again."
            }
            _ => return ApiError::Internal { cause, reference },
        };
        ApiError::Unavailable { detail, cause, reference }
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> ApiError {
        match error {
            ListError::Refused(refused) => ApiError::Refused(refused),
            ListError::Store(error) => error.into(),
        }
    }
}

impl From<ReviewError> for ApiError {
    fn from(error: ReviewError) -> ApiError {
        match error {
            ReviewError::NoSuch(id) => ApiError::NotFound { what: format!("finding {id}") },
            ReviewError::Otherwise(_) => ApiError::Conflict { detail: error.to_string() },
            ReviewError::Refused(refused) => ApiError::Refused(vec![refused]),
            ReviewError::Store(error) => error.into(),
        }
    }
}
