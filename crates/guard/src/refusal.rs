//! The answer to a refused request: 403 or 429, as problem+json (RFC 9457) or as a page for a browser.
//!
//! A flood is answered from here, so what most of its answers hold is written directly, without a serializer
//! and without a closer look at an `Accept` that does not speak of HTML.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue,
    RETRY_AFTER, VARY,
};
use ipwarden_engine::guard::{Admission, QuotaState, Verdict};
use ipwarden_engine::rate_limit::push_number;
use ipwarden_engine::record::Reference;

use crate::fields::admission_fields;

/// What a refused client is told, before it has the form of an answer: without a reason that would help
/// an attacker; the reference leads to the reason in the log.
#[derive(Clone, Debug)]
pub struct Refusal<'a> {
    /// 403 or 429.
    pub status: StatusCode,
    /// Whole seconds until the client may come back (RFC 9110, 10.2.3), if it may.
    pub retry_after: Option<u64>,
    title: &'static str,
    reference: Reference,
    /// The type of the problem.
    kind: &'static str,
    /// The quota that is used up.
    quota: Option<&'a QuotaState>,
}

impl Refusal<'_> {
    /// What there is to say about a request that the guard did not allow.
    pub fn of(admission: &Admission) -> Refusal<'_> {
        let reference = admission.reference;
        let by_scan = matches!(&admission.verdict, Verdict::Blocked(block) if block.by_scan);
        match &admission.quota {
            Some(state) if admission.verdict == Verdict::Throttled => Refusal {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after: Some(state.taken.retry_after_seconds()),
                title: "Too many requests",
                reference,
                kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
                quota: Some(state),
            },
            _ => Refusal {
                status: StatusCode::FORBIDDEN,
                retry_after: None,
                title: "Forbidden",
                reference,
                kind: match by_scan {
                    true => {
                        "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
                    }
                    false => "about:blank",
                },
                quota: None,
            },
        }
    }

    /// The problem document (RFC 9457), one line of JSON in ASCII.
    pub fn problem(&self) -> String {
        // Written directly: nothing in it has to be escaped, not even the name of a policy, and a serializer
        // that looks for that takes a third of what a refusal costs.
        let mut json = String::with_capacity(384);
        json.push_str("{\"detail\":\"");
        self.push_detail(&mut json);
        json.push_str("\",\"reference\":\"");
        json.push_str(std::str::from_utf8(&self.reference.to_ascii()).unwrap_or_default());
        json.push_str("\",\"status\":");
        json.push_str(self.status.as_str());
        json.push_str(",\"title\":\"");
        json.push_str(self.title);
        json.push_str("\",\"type\":\"");
        json.push_str(self.kind);
        match self.quota {
            Some(state) => {
                json.push_str("\",\"violated-policies\":[\"");
                json.push_str(&state.policy);
                json.push_str("\"]}");
            }
            None => json.push_str("\"}"),
        }
        json
    }

    fn push_detail(&self, text: &mut String) {
        let (Some(state), Some(seconds)) = (self.quota, self.retry_after) else {
            text.push_str("Requests from this address are not served.");
            return;
        };
        text.push_str("The quota of ");
        push_number(text, state.quota.limit.into());
        text.push_str(" requests per ");
        push_period(text, state.quota.period.as_secs());
        text.push_str(" is used up. Try again in ");
        push_number(text, seconds);
        text.push_str(if seconds == 1 { " second." } else { " seconds." });
    }
}

/// The answer to a request with these headers that the guard did not allow.
pub fn refusal(headers: &HeaderMap, admission: &Admission) -> HttpResponse {
    let refusal = Refusal::of(admission);
    let mut answer = HttpResponse::new(refusal.status);
    let fields = answer.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(VARY, HeaderValue::from_static("Accept"));
    if let Some(seconds) = refusal.retry_after {
        fields.insert(RETRY_AFTER, seconds.into());
    }
    let mut answer = match prefers_html(headers) {
        true => {
            let mut detail = String::new();
            refusal.push_detail(&mut detail);
            let reference = format!("Reference: {}", refusal.reference);
            let page = Page { title: refusal.title, lines: &[&detail, &reference] };
            page.into_body_of(answer)
        }
        false => {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
            answer.set_body(refusal.problem()).map_into_boxed_body()
        }
    };
    admission_fields(answer.headers_mut(), admission);
    answer
}

fn push_period(text: &mut String, seconds: u64) {
    let word = match seconds {
        1 => "second",
        60 => "minute",
        3_600 => "hour",
        86_400 => "day",
        other => {
            push_number(text, other);
            " seconds"
        }
    };
    text.push_str(word);
}

/// Whether a client that sent these headers would rather show the answer to a person (RFC 9110, 12.5.1).
///
/// Browsers name `text/html` when they navigate; programs send `*/*` or name JSON, which wins where
/// both are named and HTML is not preferred.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut html, mut json) = (0.0, 0.0);
    if !headers.get_all(ACCEPT).any(speaks_of_html) {
        return false;
    }
    for value in headers.get_all(ACCEPT) {
        let ranges = value.to_str().unwrap_or_default().to_ascii_lowercase();
        for (media, quality) in ranges.split(',').map(quality_of) {
            match media {
                "text/html" => html = quality,
                "application/json" | "application/problem+json" => json = quality.max(json),
                _ => {}
            }
        }
    }
    html > json
}

fn speaks_of_html(value: &HeaderValue) -> bool {
    value.as_bytes().windows(4).any(|four| four.eq_ignore_ascii_case(b"html"))
}

/// A media range and its `q`, which is 1 where none is written.
fn quality_of(range: &str) -> (&str, f32) {
    let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
    let quality = parameters.split(';').find_map(|one| one.trim().strip_prefix("q="));
    (media.trim(), quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
}

/// A page without scripts, icons or assets, so that a look at it costs one request.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Title and headline.
    pub title: &'a str,
    /// Paragraphs of plain text.
    pub lines: &'a [&'a str],
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;\
max-width:36rem;margin:12vh auto;padding:0 1.5rem}h1{font-size:1.6rem;margin:0 0 1rem}\
p{margin:.35rem 0}footer{margin-top:2rem;opacity:.65;font-size:.85rem}";

/// No script can run and nothing is loaded; the one style is allowed by its digest.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'sha256-AWrcgyka/6W6yfa4rPrtXAdK0SSe1Pn6fq9F45NRiJ8='; base-uri 'none'; \
form-action 'none'; frame-ancestors 'none'";

impl Page<'_> {
    /// Makes this page the body of an answer.
    pub fn into_body_of(self, answer: HttpResponse) -> HttpResponse {
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <link rel=\"icon\" href=\"data:,\"><title>{title}</title><style>{STYLE}</style></head>\
             <body><h1>{title}</h1>\n",
            title = escape(self.title),
        );
        for line in self.lines {
            html.push_str("<p>");
            html.push_str(&escape(line));
            html.push_str("</p>\n");
        }
        html.push_str("<footer>ipwarden</footer></body></html>\n");
        let mut answer = answer.set_body(html);
        let headers = answer.headers_mut();
        let value = HeaderValue::from_static;
        headers.insert(CONTENT_TYPE, value("text/html; charset=utf-8"));
        headers.insert(CONTENT_SECURITY_POLICY, value(POLICY));
        answer.map_into_boxed_body()
    }
}

/// Text that stays text in HTML.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipwarden_engine::rate_limit::Taken;

    use super::*;

    #[test]
    fn the_policy_allows_exactly_the_style_of_the_page() {
        use sha2::Digest as _;
        let digest = base64(&sha2::Sha256::digest(STYLE));
        assert!(POLICY.contains(&format!("'sha256-{digest}'")), "style-src 'sha256-{digest}'");
    }

    fn base64(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for position in 0..4 {
                match position <= chunk.len() {
                    true => {
                        text.push(char::from(ALPHABET[(word >> (18 - 6 * position) & 63) as usize]))
                    }
                    false => text.push('='),
                }
            }
        }
        text
    }

    #[test]
    fn a_problem_is_json_in_the_order_of_its_names_whatever_the_policy_is_called() {
        // All that a name may hold: see `PolicyError`.
        let name: String = (' '..='~').filter(|c| !"\"\\|".contains(*c)).collect();
        let state = QuotaState {
            policy: name.clone().into(),
            quota: "5/90s".parse().unwrap(),
            taken: Taken { admitted: false, remaining: 0, frees_in: Duration::from_secs(1) },
        };
        let refusal = Refusal {
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(1),
            title: "Too many requests",
            reference: "JTK9S96R86WM".parse().unwrap(),
            kind: "about:blank",
            quota: Some(&state),
        };
        let problem = serde_json::json!({
            "detail": "The quota of 5 requests per 90 seconds is used up. Try again in 1 second.",
            "reference": "JTK9S96R86WM",
            "status": 429,
            "title": "Too many requests",
            "type": "about:blank",
            "violated-policies": [name],
        });
        assert_eq!(refusal.problem(), problem.to_string());
        let blocked = Refusal { quota: None, ..refusal }.problem();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&blocked).unwrap()["status"], 429);
    }

    #[test]
    fn text_in_a_page_stays_text() {
        assert_eq!(escape("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
    }
}
