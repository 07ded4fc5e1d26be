//! Which request a proxy asks about: the only reader of the original method and URI.
//!
//! # Security
//! Each convention reads exactly one pair, and never falls back to another: what the recipe's proxy writes
//! is its word, what it passes on untouched is the client's. So `X-Original-URL`, `X-Forwarded-Prefix` or
//! `X_Forwarded_Uri` never count. Two lines of one name are refused: one of them is somebody else's, and no
//! two programs agree on which.

use std::borrow::Cow;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, HeaderName};
use envoy_types::pb::envoy::service::auth::v3::attribute_context;

use crate::error::ApiError;

/// Where a proxy says what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Convention {
    /// `X-Forwarded-Method` and `X-Forwarded-Uri`: Traefik, Caddy.
    Forwarded,
    /// `X-Original-Method` and `X-Original-URI`: nginx.
    Nginx,
    /// `X-Crowdsec-Appsec-Verb` and `X-Crowdsec-Appsec-Uri`: bouncers.
    Appsec,
    /// The question's own method, and its target behind this prefix: Envoy.
    Behind(&'static str),
}

/// The request that a proxy asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Original<'a> {
    pub(crate) method: &'a str,
    /// Path and query as received, bytes that are not visible ASCII as `%XX`; without scheme and host.
    pub(crate) uri: Cow<'a, str>,
}

impl Original<'_> {
    /// The path, without query and fragment.
    pub(crate) fn path(&self) -> &str {
        self.uri.split(['?', '#']).next().unwrap_or_default()
    }
}

/// Reads the request that `question` is about.
pub(crate) fn original(
    question: &HttpRequest,
    convention: Convention,
) -> Result<Original<'_>, ApiError> {
    let (method, uri) = match convention {
        Convention::Forwarded => ("x-forwarded-method", "x-forwarded-uri"),
        Convention::Nginx => ("x-original-method", "x-original-uri"),
        Convention::Appsec => ("x-crowdsec-appsec-verb", "x-crowdsec-appsec-uri"),
        Convention::Behind(prefix) => return behind(question, prefix),
    };
    let only = |name| only(question.headers(), &HeaderName::from_static(name));
    let ((method, name), (uri, target)) = (only(method)?, only(uri)?);
    Ok(Original { method: self::method(method, &name)?, uri: self::uri(uri, &target)? })
}

/// Reads the request that Envoy describes over gRPC.
pub(crate) fn described(
    request: &attribute_context::HttpRequest,
) -> Result<Original<'_>, ApiError> {
    Ok(Original {
        method: method(request.method.as_bytes(), "attributes.request.http.method")?,
        uri: uri(request.path.as_bytes(), "attributes.request.http.path")?,
    })
}

/// Envoy puts the prefix in front of what it was asked for, whatever that was.
fn behind<'a>(question: &'a HttpRequest, prefix: &str) -> Result<Original<'a>, ApiError> {
    let target = question.uri().path_and_query().map_or("", |target| target.as_str());
    let uri = match target.strip_prefix(prefix) {
        Some("") => "/",
        Some(uri) if uri.starts_with(['/', '*']) => uri,
        Some(_) | None => return Err(ApiError::NotFound { what: "such route".to_owned() }),
    };
    Ok(Original { method: question.method().as_str(), uri: visible(uri.as_bytes()) })
}

fn method<'a>(value: &'a [u8], field: &str) -> Result<&'a str, ApiError> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    match std::str::from_utf8(value) {
        Ok(method) if !method.is_empty() && value.iter().all(is_token) => Ok(method),
        _ => Err(malformed(field, "must hold the method of the original request, such as GET")),
    }
}

fn uri<'a>(value: &'a [u8], field: &str) -> Result<Cow<'a, str>, ApiError> {
    let found = match value {
        // nginx leaves no more of `http://example.test?query`.
        [b'/' | b'?', ..] | b"*" => Some(value),
        _ => behind_authority(value),
    };
    match found {
        Some(b"") => Ok(Cow::Borrowed("/")),
        Some(query @ [b'?', ..]) => Ok(format!("/{}", visible(query)).into()),
        Some(uri) => Ok(visible(uri)),
        None => Err(malformed(field, "must hold the original target, such as /path?query")),
    }
}

/// What stands behind scheme and host of a target in absolute form (RFC 9112, 3.2.2).
fn behind_authority(target: &[u8]) -> Option<&[u8]> {
    let colon = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at(colon);
    let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    let rest = rest.strip_prefix(b"://").filter(|_| known)?;
    let authority = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let authority = authority.unwrap_or(rest.len());
    // A fragment is never sent; were it, there would be no path in front of it.
    (authority > 0).then(|| &rest[authority..]).filter(|rest| !rest.starts_with(b"#"))
}

/// The one value of a header, and its name for people.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<(&'a [u8], String), ApiError> {
    let (mut values, field) = (headers.get_all(name), shown(name));
    match (values.next(), values.next()) {
        (Some(value), None) => Ok((value.as_bytes(), field)),
        (Some(_), Some(_)) => {
            Err(malformed(&field, "must be there once: the proxy has to overwrite it"))
        }
        (None, _) => Err(malformed(&field, "is missing: the proxy has to send it")),
    }
}

/// What a client sends raw means the same escaped.
fn visible(text: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(text) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Cow::Borrowed(text),
        _ => text
            .iter()
            .map(|byte| match byte.is_ascii_graphic() {
                true => char::from(*byte).to_string(),
                false => format!("%{byte:02X}"),
            })
            .collect::<String>()
            .into(),
    }
}

fn malformed(field: &str, what: &str) -> ApiError {
    ApiError::Malformed { detail: format!("{field} {what}."), field: field.to_owned() }
}

/// A header's name as documents write it.
fn shown(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| match word {
        "uri" => "URI".to_owned(),
        word => word[..1].to_ascii_uppercase() + &word[1..],
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use actix_web::http::Method;
    use actix_web::test::TestRequest;
    use rstest::rstest;

    use super::*;

    const EXT_AUTHZ: Convention = Convention::Behind("/v1/ext-authz");

    fn forwarded(uri: &[u8]) -> HttpRequest {
        let uri = actix_web::http::header::HeaderValue::from_bytes(uri).unwrap();
        TestRequest::get()
            .insert_header(("x-forwarded-method", "GET"))
            .insert_header(("x-forwarded-uri", uri))
            .to_http_request()
    }

    #[rstest]
    #[case("/", "/", "/")]
    #[case("/a?b=c", "/a?b=c", "/a")]
    #[case("/a%2Fb/../c", "/a%2Fb/../c", "/a%2Fb/../c")]
    #[case("//other.example.test/x", "//other.example.test/x", "//other.example.test/x")]
    #[case("/a b", "/a%20b", "/a%20b")]
    #[case("*", "*", "*")]
    #[case("http://example.test/a?b", "/a?b", "/a")]
    #[case("HTTPS://example.test", "/", "/")]
    #[case("http://example.test?b", "/?b", "/")]
    #[case("?b", "/?b", "/")]
    #[case("http://user:secret@example.test/a", "/a", "/a")]
    #[case("/http://example.test/a", "/http://example.test/a", "/http://example.test/a")]
    fn a_target_of_any_form_becomes_path_and_query(
        #[case] sent: &str,
        #[case] uri: &str,
        #[case] path: &str,
    ) {
        let question = forwarded(sent.as_bytes());
        let original = original(&question, Convention::Forwarded).unwrap();
        assert_eq!((original.uri.as_ref(), original.path()), (uri, path));
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        let question = forwarded(b"/caf\xe9/\xc3\xa9");
        let original = original(&question, Convention::Forwarded).unwrap();
        assert_eq!(original.uri, "/caf%E9/%C3%A9");
    }

    #[rstest]
    #[case("")]
    #[case("admin")]
    #[case("ftp://example.test/")]
    #[case("http:///a")]
    #[case("example.test:443")]
    fn what_is_no_target_is_refused(#[case] sent: &str) {
        let error = original(&forwarded(sent.as_bytes()), Convention::Forwarded).unwrap_err();
        assert_eq!(error.status_code(), 400, "{sent}");
        assert!(error.to_string().contains("X-Forwarded-URI must hold"), "{error}");
    }

    #[rstest]
    #[case(Convention::Forwarded, "x-forwarded-method", "x-forwarded-uri")]
    #[case(Convention::Nginx, "x-original-method", "x-original-uri")]
    #[case(Convention::Appsec, "x-crowdsec-appsec-verb", "x-crowdsec-appsec-uri")]
    fn each_of_the_pair_must_be_there_exactly_once_and_nothing_else_counts(
        #[case] convention: Convention,
        #[case] method: &str,
        #[case] uri: &str,
    ) {
        let others = [
            "x-original-url",
            "x-original-uri",
            "x-original-method",
            "x-forwarded-uri",
            "x-forwarded-method",
            "x-forwarded-prefix",
            "x_forwarded_uri",
            "x-rewrite-url",
            "x-http-method-override",
        ];
        let question = |counts: &[(&str, &str)]| {
            let foreign = others.iter().filter(|name| ![method, uri].contains(*name));
            let mut question = TestRequest::post().uri("/v1/forward-auth?uri=/never");
            for name in foreign {
                question = question.append_header((*name, "/never"));
            }
            for (name, value) in counts {
                question = question.append_header((*name, *value));
            }
            question.to_http_request()
        };
        let whole = question(&[(method, "PUT"), (uri, "/a")]);
        let read = original(&whole, convention).unwrap();
        assert_eq!((read.method, read.uri.as_ref()), ("PUT", "/a"));
        for (counts, says) in [
            (vec![(method, "PUT")], "is missing"),
            (vec![(uri, "/a")], "is missing"),
            (vec![(method, "PUT"), (uri, "/a"), (uri, "/a")], "must be there once"),
            (vec![(method, "PUT"), (method, "GET"), (uri, "/a")], "must be there once"),
            (vec![(method, ""), (uri, "/a")], "must hold the method"),
            (vec![(method, "GET /"), (uri, "/a")], "must hold the method"),
            (vec![(method, "GET, PUT"), (uri, "/a")], "must hold the method"),
        ] {
            let question = question(&counts);
            let error = original(&question, convention).unwrap_err();
            assert_eq!(error.status_code(), 400, "{counts:?}");
            assert!(error.to_string().contains(says), "{counts:?}: {error}");
        }
    }

    #[rstest]
    #[case("/v1/ext-authz/a/b?c=d", "/a/b?c=d")]
    #[case("/v1/ext-authz", "/")]
    #[case("/v1/ext-authz/", "/")]
    #[case("/v1/ext-authz//a", "//a")]
    #[case("/v1/ext-authz*", "*")]
    #[case("/v1/ext-authz/v1/ext-authz/a", "/v1/ext-authz/a")]
    fn envoy_puts_the_original_target_behind_the_prefix(#[case] sent: &str, #[case] uri: &str) {
        let question = TestRequest::default().method(Method::DELETE).uri(sent).to_http_request();
        let original = original(&question, EXT_AUTHZ).unwrap();
        assert_eq!((original.method, original.uri.as_ref()), ("DELETE", uri));
    }

    #[test]
    fn a_longer_name_is_not_behind_the_prefix() {
        let question = TestRequest::get().uri("/v1/ext-authzed").to_http_request();
        assert_eq!(original(&question, EXT_AUTHZ).unwrap_err().status_code(), 404);
    }
}
