//! The header fields that an answer carries: reference and quota.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
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
