//! Forward-auth: a proxy asks about each request before it sends it on.
//!
//! What is decided and recorded is the original request's; see [`original`](super::original). The answers
//! differ only in what each proxy can pass on. Nothing here reads a query: some proxies leave the client's
//! there.
//!
//! # Security
//! Only trusted proxies are answered; from anybody else nothing is judged and nothing recorded. The user
//! that `identity.header` names is believed, so the proxy has to remove or overwrite what a client sends
//! under that name.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::str::FromStr as _;
use std::sync::Arc;

use actix_web::body::MessageBody as _;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderName,
    RETRY_AFTER, USER_AGENT,
};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use ipwarden_core::config::Config;
use ipwarden_core::context::Context;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Admission, Guard, Identity, RequestHead, Verdict, Worker};
use ipwarden_engine::pass::Passes;
use ipwarden_guard::{
    Pending, Question, Refusal, admission_fields, ask, issue_pass, peer, refusal,
};

use super::original::{Convention, Original, original};
use crate::error::ApiError;

pub(super) const VERDICT: HeaderName = HeaderName::from_static("x-ipwarden-verdict");
pub(super) const CLIENT_IP: HeaderName = HeaderName::from_static("x-ipwarden-client-ip");
pub(super) const STATUS: HeaderName = HeaderName::from_static("x-ipwarden-status");
pub(super) const PROBLEM: HeaderName = HeaderName::from_static("x-ipwarden-problem");

/// In front of what Envoy's HTTP check was asked for.
pub(crate) const EXT_AUTHZ: &str = "/v1/ext-authz";

/// One worker thread's way to the guard, for the questions of proxies.
pub(crate) struct Asker {
    guard: Arc<Guard>,
    passes: Option<Arc<Passes>>,
    /// Made by the first question, so that a gate that nobody asks costs nothing.
    worker: OnceCell<Rc<Worker>>,
    headers: Headers,
}

/// What a proxy is believed, besides the original request.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    pub(super) client_ip: HeaderName,
    pub(super) identity: Option<HeaderName>,
}

/// What came of a question.
pub(super) struct Decided {
    admission: Admission,
    pending: Pending,
    /// The field for the application behind the proxy, if it was admitted and there is a secret.
    pass: HeaderMap,
}

/// For proxies that pass any status on: 200, 403 or 429.
pub(crate) async fn forward_auth(
    request: HttpRequest,
    asker: web::Data<Asker>,
) -> Result<HttpResponse, ApiError> {
    asker
        .decide(&request, Convention::Forwarded)
        .await
        .map(|decided| decided.answer(request.headers()))
}

/// For Envoy's HTTP check, which takes exactly 200 for a yes.
pub(crate) async fn ext_authz(
    request: HttpRequest,
    asker: web::Data<Asker>,
) -> Result<HttpResponse, ApiError> {
    let convention = Convention::Behind(EXT_AUTHZ);
    asker.decide(&request, convention).await.map(|decided| decided.answer(request.headers()))
}

/// For nginx, which makes a 500 of any other refusal than 401 and 403: all are 403, and fields hold what
/// the recipe makes the true answer of.
pub(crate) async fn nginx(request: HttpRequest, asker: web::Data<Asker>) -> HttpResponse {
    match asker.decide(&request, Convention::Nginx).await {
        Ok(decided) => decided.answer_to_nginx(),
        Err(error) => misunderstood_to_nginx(&error),
    }
}

impl Headers {
    /// Those that a configuration names.
    ///
    /// # Errors
    /// If one is no name of a header, which no loaded configuration has.
    pub(crate) fn of(config: &Config) -> Result<Headers, InvalidHeaderName> {
        let identity = config.identity.header.as_deref().map(HeaderName::from_str).transpose()?;
        Ok(Headers { client_ip: config.client_ip.header.parse()?, identity })
    }
}

impl Asker {
    /// Make it on the thread that asks.
    pub(crate) fn new(context: &Context, headers: Headers) -> Asker {
        let (guard, passes) = (context.guard.clone(), context.passes.clone());
        Asker { guard, passes, worker: OnceCell::new(), headers }
    }

    /// This thread's way to the guard.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        self.worker.get_or_init(|| Rc::new(self.guard.worker()))
    }

    /// Decides about what a proxy asks over HTTP.
    async fn decide(
        &self,
        request: &HttpRequest,
        convention: Convention,
    ) -> Result<Decided, ApiError> {
        let peer = self.trusted(peer(request))?;
        let original = original(request, convention)?;
        Ok(self.judge(peer, request.headers(), &original).await)
    }

    /// The peer, if it is one that may ask.
    pub(super) fn trusted(&self, peer: IpAddr) -> Result<IpAddr, ApiError> {
        match self.guard.resolver().is_trusted(peer) {
            true => Ok(peer),
            false => Err(ApiError::NotTrusted),
        }
    }

    /// What a proxy is believed, besides the original request.
    pub(super) fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Decides about an original request; the headers are what a trusted proxy sends of it.
    pub(super) async fn judge(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        original: &Original<'_>,
    ) -> Decided {
        let forwarded: Vec<&[u8]> =
            headers.get_all(&self.headers.client_ip).map(|line| line.as_bytes()).collect();
        let head = RequestHead {
            peer,
            forwarded: &forwarded,
            method: original.method,
            path: original.path(),
            identity: None,
        };
        let user_agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
        let question = Question { head, user_agent };
        let (admission, pending) =
            ask(self.worker(), question, || self.identity(headers), Moment::now()).await;
        let mut pass = HeaderMap::new();
        if let (Some(passes), Verdict::Allowed) = (&self.passes, admission.verdict) {
            issue_pass(&mut pass, passes, &admission, original.method, &original.uri);
        }
        Decided { admission, pending, pass }
    }

    /// Whom the proxy has authenticated. Nobody if it names two: one of them is the client's word.
    fn identity(&self, headers: &HeaderMap) -> Option<Identity> {
        let mut values = headers.get_all(self.headers.identity.as_ref()?);
        match (values.next()?.to_str().ok()?.trim(), values.next()) {
            ("", _) | (_, Some(_)) => None,
            // Keys have identities too, and must not be posed as.
            (name, None) => Some(Identity::new(format!("proxy:{name}"))),
        }
    }
}

impl Decided {
    /// For whoever passes any status on. The headers are the original request's.
    pub(super) fn answer(self, headers: &HeaderMap) -> HttpResponse {
        let mut answer = match self.admission.verdict {
            Verdict::Allowed => allowed(self.pass),
            Verdict::Blocked(_) | Verdict::Throttled => refusal(headers, &self.admission),
        };
        fields(&mut answer, &self.admission);
        self.pending.answered(answer.status());
        answer
    }

    fn answer_to_nginx(self) -> HttpResponse {
        let admission = &self.admission;
        let (mut answer, status) = match admission.verdict {
            Verdict::Allowed => (allowed(self.pass), StatusCode::OK),
            Verdict::Blocked(_) | Verdict::Throttled => {
                let refusal = Refusal::of(admission);
                (to_nginx(&refusal), refusal.status)
            }
        };
        insert(&mut answer, STATUS, status.as_str());
        fields(&mut answer, admission);
        self.pending.answered(status);
        answer
    }
}

fn allowed(pass: HeaderMap) -> HttpResponse {
    let mut answer = HttpResponse::Ok().finish();
    for (name, value) in pass {
        answer.headers_mut().insert(name, value);
    }
    answer
}

fn to_nginx(refusal: &Refusal<'_>) -> HttpResponse {
    let mut answer = refused_to_nginx(refusal.problem());
    if let Some(seconds) = refusal.retry_after {
        insert(&mut answer, RETRY_AFTER, &seconds.to_string());
    }
    answer
}

/// A stranger is told no more than on the other routes.
fn misunderstood_to_nginx(error: &ApiError) -> HttpResponse {
    let answer = error.error_response();
    let status = answer.status();
    if status == StatusCode::FORBIDDEN {
        return answer;
    }
    let problem = answer.into_body().try_into_bytes().unwrap_or_default();
    let mut answer = refused_to_nginx(String::from_utf8_lossy(&problem).into_owned());
    insert(&mut answer, STATUS, status.as_str());
    insert(&mut answer, CACHE_CONTROL, "no-store");
    answer
}

/// The body is also in a field: nginx throws the body of an answer to its question away.
fn refused_to_nginx(problem: String) -> HttpResponse {
    let mut answer = HttpResponse::Forbidden().finish();
    insert(&mut answer, PROBLEM, &problem);
    let kind = HeaderValue::from_static("application/problem+json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer.set_body(problem).map_into_boxed_body()
}

fn fields(answer: &mut HttpResponse, admission: &Admission) {
    admission_fields(answer.headers_mut(), admission);
    insert(answer, VERDICT, admission.verdict.recorded().as_str());
    insert(answer, CLIENT_IP, &admission.client.ip.to_string());
    insert(answer, CACHE_CONTROL, "no-store");
}

fn insert(answer: &mut HttpResponse, name: HeaderName, text: &str) {
    // Addresses, numbers, and problem documents, which are ASCII: names of policies are.
    if let Ok(value) = HeaderValue::from_str(text) {
        answer.headers_mut().insert(name, value);
    }
}
