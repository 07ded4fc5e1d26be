//! The one middleware: asks the guard, answers for it when it refuses, and records what was answered.

use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderName, USER_AGENT};
use actix_web::{Error, HttpMessage as _, HttpRequest};
use futures_util::future::LocalBoxFuture;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Admission, Guard, Identity, RequestHead, Verdict, Worker};
use ipwarden_engine::pass::Passes;
use smallvec::SmallVec;

use crate::ask::{Question, ask};
use crate::fields::admission_fields;
use crate::pass;
use crate::pending::{Pending, target};
use crate::refusal::refusal;

type Identify = dyn Fn(&HttpRequest) -> Option<Identity> + Send + Sync;

/// Wraps an application: `App::new().wrap(guard.clone())`.
#[derive(Clone)]
pub struct GuardMiddleware {
    guard: Arc<Guard>,
    identify: Option<Arc<Identify>>,
    passes: Option<Arc<Passes>>,
}

impl GuardMiddleware {
    /// A middleware that asks `guard`; everybody is anonymous.
    pub fn new(guard: Arc<Guard>) -> GuardMiddleware {
        GuardMiddleware { guard, identify: None, passes: None }
    }

    /// Says how to find out who asks, so that the authenticated have a quota of their own.
    ///
    /// # Security
    /// Return an identity only for a credential that was verified.
    #[must_use]
    pub fn identify(
        self,
        identify: impl Fn(&HttpRequest) -> Option<Identity> + Send + Sync + 'static,
    ) -> GuardMiddleware {
        GuardMiddleware { identify: Some(Arc::new(identify)), ..self }
    }

    /// Takes the gate's passes from trusted proxies: a request that brings one was counted and recorded
    /// already, and is neither again.
    #[must_use]
    pub fn passes(self, passes: Option<Arc<Passes>>) -> GuardMiddleware {
        GuardMiddleware { passes, ..self }
    }
}

impl<S, B> Transform<S, ServiceRequest> for GuardMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = Guarded<S>;
    type InitError = ();
    type Future = Ready<Result<Guarded<S>, ()>>;

    // Called once on each worker thread: here the thread gets its own segment and its own Redis.
    fn new_transform(&self, service: S) -> Self::Future {
        ready(match HeaderName::from_bytes(self.guard.client_ip_header().as_bytes()) {
            Ok(header) => Ok(Guarded {
                service: Rc::new(service),
                worker: Rc::new(self.guard.worker()),
                identify: self.identify.clone(),
                passes: self.passes.clone(),
                header,
            }),
            Err(_) => Err(()),
        })
    }
}

/// The wrapped service of one worker thread.
pub struct Guarded<S> {
    service: Rc<S>,
    worker: Rc<Worker>,
    identify: Option<Arc<Identify>>,
    passes: Option<Arc<Passes>>,
    header: HeaderName,
}

impl<S, B> Service<ServiceRequest> for Guarded<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    forward_ready!(service);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let now = Moment::now();
        let service = self.service.clone();
        let worker = self.worker.clone();
        let identify = self.identify.clone();
        let passes = self.passes.clone();
        let header = self.header.clone();
        Box::pin(async move {
            let taken =
                passes.and_then(|passes| pass::take(&passes, &worker, &mut request, &header, now));
            let (admission, pending) = match taken {
                Some(admission) => (admission, None),
                None => {
                    let asked = admit(&worker, &request, &header, identify.as_deref(), now);
                    let (admission, pending) = asked.await;
                    (admission, Some(pending))
                }
            };
            let record = move |status| {
                if let Some(pending) = pending {
                    pending.answered(status);
                }
            };
            if admission.verdict != Verdict::Allowed {
                let answer = refusal(request.headers(), &admission);
                record(answer.status());
                return Ok(request.into_response(answer).map_into_right_body());
            }
            request.extensions_mut().insert(admission.clone());
            match service.call(request).await {
                Ok(mut response) => {
                    admission_fields(response.headers_mut(), &admission);
                    record(response.status());
                    Ok(response.map_into_left_body())
                }
                Err(error) => {
                    let mut answer = error.error_response();
                    admission_fields(answer.headers_mut(), &admission);
                    record(answer.status());
                    Err(InternalError::from_response(error, answer).into())
                }
            }
        })
    }
}

/// Asks the guard, and whoever knows, about who it is.
async fn admit(
    worker: &Rc<Worker>,
    request: &ServiceRequest,
    header: &HeaderName,
    identify: Option<&Identify>,
    now: Moment,
) -> (Admission, Pending) {
    let forwarded = lines(request, header);
    let head = RequestHead {
        peer: peer(request.request()),
        forwarded: &forwarded,
        method: request.method().as_str(),
        path: target(request),
        identity: None,
    };
    let user_agent = request.headers().get(USER_AGENT).map(|value| value.as_bytes());
    let identify = || identify.and_then(|identify| identify(request.request()));
    ask(worker, Question { head, user_agent }, identify, now).await
}

/// All lines of a header, in order of arrival.
pub(crate) fn lines<'a>(
    request: &'a ServiceRequest,
    header: &HeaderName,
) -> SmallVec<[&'a [u8]; 4]> {
    request.headers().get_all(header).map(|line| line.as_bytes()).collect()
}

/// The other end of the connection. A Unix socket has no address; all who come through it share one
/// that nobody trusts.
pub fn peer(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip())
}
