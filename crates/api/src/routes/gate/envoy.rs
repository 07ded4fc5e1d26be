//! Envoy's check over gRPC (`envoy.service.auth.v3.Authorization/Check`): the question and the answer of
//! [`forward_auth`](super::forward_auth), in other words.
//!
//! # Security
//! A refusal of any kind is a denied answer, never an error of gRPC: Envoy lets requests through on errors,
//! if it is set up to fail open.

use std::net::IpAddr;

use actix_web::body::MessageBody as _;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError as _};
use envoy_types::ext_authz::v3::CheckRequestExt as _;
use envoy_types::ext_authz::v3::pb::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue as Value,
    HeaderValueOption, HttpResponse as Outcome, HttpStatus, OkHttpResponse,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::google::rpc::Status;
use tonic::Code;

use super::forward_auth::{Asker, CLIENT_IP, Headers, PROBLEM, STATUS, VERDICT};
use super::original::described;
use crate::error::ApiError;

const PASS: HeaderName = HeaderName::from_static("x-ipwarden-pass");
const REFERENCE: HeaderName = HeaderName::from_static("x-ipwarden-reference");

/// What a backend must not take from a client.
const OURS: [HeaderName; 6] = [PASS, REFERENCE, VERDICT, CLIENT_IP, STATUS, PROBLEM];

/// Answers a question that came from `peer`.
pub(crate) async fn check(asker: &Asker, peer: IpAddr, asked: &CheckRequest) -> CheckResponse {
    let answer = decide(asker, peer, asked).await;
    told(answer.unwrap_or_else(|error| error.error_response()))
}

async fn decide(
    asker: &Asker,
    peer: IpAddr,
    asked: &CheckRequest,
) -> Result<HttpResponse, ApiError> {
    let peer = asker.trusted(peer)?;
    let request = asked.attributes.as_ref().and_then(|all| all.request.as_ref()?.http.as_ref());
    let request = request.ok_or_else(|| ApiError::Malformed {
        field: "attributes.request.http".to_owned(),
        detail: "attributes.request.http is missing: ask about HTTP requests.".to_owned(),
    })?;
    let original = described(request)?;
    let mut headers = headers(request, asker.headers());
    let Headers { client_ip, .. } = asker.headers();
    // An Envoy that was not told to send the header knows who is connected to it all the same.
    if let (false, Some(address)) = (headers.contains_key(client_ip), asked.get_client_address())
        && let Ok(address) = HeaderValue::from_str(address)
    {
        headers.insert(client_ip.clone(), address);
    }
    Ok(asker.judge(peer, &headers, &original).await.answer(&headers))
}

/// The lines as they came, if Envoy was told to send them so (`encode_raw_headers`). Else it has joined those
/// of one name, so that one name of a user may be two.
fn headers(request: &HttpRequest, believed: &Headers) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &[u8]| {
        // Names such as `:path` are none of a header.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    };
    for Value { key, value, raw_value } in request.header_map.iter().flat_map(|map| &map.headers) {
        add(key, if raw_value.is_empty() { value.as_bytes() } else { raw_value });
    }
    let is_user = |name: &str| believed.identity.as_ref().is_some_and(|user| user == name);
    for (name, value) in request.headers.iter().filter(|_| request.header_map.is_none()) {
        match is_user(name) {
            true => value.split(',').for_each(|one| add(name, one.as_bytes())),
            false => add(name, value.as_bytes()),
        }
    }
    headers
}

/// The same answer, for Envoy to carry out.
fn told(answer: HttpResponse) -> CheckResponse {
    let status = answer.status();
    let (code, outcome) = match status {
        StatusCode::OK => (Code::Ok, Outcome::OkResponse(allowed(answer.headers()))),
        StatusCode::TOO_MANY_REQUESTS => (Code::ResourceExhausted, denied(answer)),
        StatusCode::BAD_REQUEST => (Code::InvalidArgument, denied(answer)),
        _ => (Code::PermissionDenied, denied(answer)),
    };
    CheckResponse {
        status: Some(Status { code: code.into(), ..Status::default() }),
        http_response: Some(outcome),
        dynamic_metadata: None,
    }
}

/// The pass goes to the backend, the quota to the client; what either sent under these names goes.
fn allowed(answer: &HeaderMap) -> OkHttpResponse {
    let to_client =
        |name: &HeaderName| *name == REFERENCE || name.as_str().starts_with("ratelimit");
    let (headers, removed): (Vec<_>, Vec<_>) =
        OURS.into_iter().partition(|name| *name == PASS && answer.contains_key(name));
    OkHttpResponse {
        headers: answer.iter().filter(|(name, _)| headers.contains(name)).map(set).collect(),
        headers_to_remove: removed.iter().map(ToString::to_string).collect(),
        response_headers_to_add: answer
            .iter()
            .filter(|(name, _)| to_client(name))
            .map(set)
            .collect(),
        ..OkHttpResponse::default()
    }
}

/// Status, fields and body as they are.
fn denied(answer: HttpResponse) -> Outcome {
    let status = HttpStatus { code: answer.status().as_u16().into() };
    let headers = answer.headers().iter().map(set).collect();
    // Every body of a refusal is a text, and there as a whole.
    let body = answer.into_body().try_into_bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    Outcome::DeniedResponse(DeniedHttpResponse { status: Some(status), headers, body })
}

fn set((name, value): (&HeaderName, &HeaderValue)) -> HeaderValueOption {
    let value = value.to_str().unwrap_or_default().to_owned();
    HeaderValueOption {
        header: Some(Value { key: name.to_string(), value, ..Value::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}
