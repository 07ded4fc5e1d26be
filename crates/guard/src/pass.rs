//! The pass that a request brings from the gate, through the proxy.

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Admission, RequestHead, Worker};
use ipwarden_engine::pass::{Passed, Passes, Subject};

use crate::middleware::{lines, peer};
use crate::pending::target;

const PASS: HeaderName = HeaderName::from_static("x-ipwarden-pass");

/// Adds `X-Ipwarden-Pass`, for the request that was admitted.
pub fn issue_pass(
    headers: &mut HeaderMap,
    passes: &Passes,
    admission: &Admission,
    method: &str,
    uri: &str,
) {
    let subject = Subject { address: admission.client.ip, method, uri };
    let Admission { reference, authenticated, quota, .. } = admission.clone();
    let passed = Passed { reference, authenticated, quota };
    let pass = passes.issue(&subject, &passed, admission.at);
    if let Some(Ok(value)) = pass.map(|pass| HeaderValue::from_str(&pass)) {
        headers.insert(PASS, value);
    }
}

/// Takes the pass of a request from a trusted proxy, if there is exactly one and it counts. Whoever handles
/// the request does not see it.
pub(crate) fn take(
    passes: &Passes,
    worker: &Worker,
    request: &mut ServiceRequest,
    header: &HeaderName,
    now: Moment,
) -> Option<Admission> {
    let sent: Vec<HeaderValue> = request.headers_mut().remove(&PASS).collect();
    let peer = peer(request.request());
    let [pass] = &sent[..] else { return None };
    let resolver = worker.guard().resolver();
    if !resolver.is_trusted(peer) {
        return None;
    }
    let forwarded = lines(request, header);
    let (method, path) = (request.method().as_str(), target(request));
    let head = RequestHead { peer, forwarded: &forwarded, method, path, identity: None };
    let address = resolver.resolve(peer, &forwarded).ip;
    let uri = request.uri().path_and_query()?.as_str();
    let passed = passes.take(pass.as_bytes(), &Subject { address, method, uri }, now).ok()?;
    Some(worker.passed(&head, passed, now))
}
