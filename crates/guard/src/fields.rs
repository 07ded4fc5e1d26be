//! The header fields that an answer carries: reference and quota.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use ipwarden_engine::guard::Admission;
use ipwarden_engine::rate_limit::{push_limit_field, push_policy_field};

pub(crate) const REFERENCE: HeaderName = HeaderName::from_static("x-ipwarden-reference");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Adds `X-Ipwarden-Reference` and, where the request was counted, `RateLimit-Policy` and `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers).
pub fn admission_fields(headers: &mut HeaderMap, admission: &Admission) {
    if let Ok(reference) = HeaderValue::from_bytes(&admission.reference.to_ascii()) {
        headers.insert(REFERENCE, reference);
    }
    if let Some(state) = &admission.quota {
        let mut text = String::with_capacity(48);
        push_policy_field(&mut text, &state.policy, state.quota);
        insert(headers, RATELIMIT_POLICY, &text);
        text.clear();
        push_limit_field(&mut text, &state.policy, &state.taken);
        insert(headers, RATELIMIT, &text);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Policy names are visible ASCII: `Policies::new` has made sure.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// An error of the wrapped application, whose answer carries our fields too.
pub(crate) struct Decorated {
    inner: actix_web::Error,
    admission: Admission,
}

impl Decorated {
    pub(crate) fn new(inner: actix_web::Error, admission: &Admission) -> Decorated {
        Decorated { inner, admission: admission.clone() }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.inner.as_response_error().status_code()
    }
}

impl ResponseError for Decorated {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = self.inner.error_response();
        admission_fields(response.headers_mut(), &self.admission);
        response
    }
}

impl fmt::Debug for Decorated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

impl fmt::Display for Decorated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}
