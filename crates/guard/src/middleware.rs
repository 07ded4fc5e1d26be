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
use smallvec::SmallVec;

use crate::fields::admission_fields;
use crate::pending::{Pending, Undecided, target};
use crate::refusal::refusal;

type Identify = dyn Fn(&HttpRequest) -> Option<Identity> + Send + Sync;

/// Wraps an application: `App::new().wrap(guard.clone())`.
#[derive(Clone)]
pub struct GuardMiddleware {
    guard: Arc<Guard>,
    identify: Option<Arc<Identify>>,
}

impl GuardMiddleware {
    /// A middleware that asks `guard`; everybody is anonymous.
    pub fn new(guard: Arc<Guard>) -> GuardMiddleware {
        GuardMiddleware { guard, identify: None }
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

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let now = Moment::now();
        let service = self.service.clone();
        let worker = self.worker.clone();
        let identify = self.identify.clone();
        let header = self.header.clone();
        Box::pin(async move {
            let (admission, identity) =
                admit(&worker, &request, &header, identify.as_deref(), now).await;
            let pending = Pending::new(&worker, &request, &admission, identity);
            if admission.verdict != Verdict::Allowed {
                let answer = refusal(request.request(), &admission);
                pending.answered(answer.status());
                return Ok(request.into_response(answer).map_into_right_body());
            }
            request.extensions_mut().insert(admission.clone());
            match service.call(request).await {
                Ok(mut response) => {
                    admission_fields(response.headers_mut(), &admission);
                    pending.answered(response.status());
                    Ok(response.map_into_left_body())
                }
                Err(error) => {
                    let mut answer = error.error_response();
                    admission_fields(answer.headers_mut(), &admission);
                    pending.answered(answer.status());
                    Err(InternalError::from_response(error, answer).into())
                }
            }
        })
    }
}

/// Asks the guard, and whoever knows, about who it is.
async fn admit(
    worker: &Worker,
    request: &ServiceRequest,
    header: &HeaderName,
    identify: Option<&Identify>,
    now: Moment,
) -> (Admission, Option<Identity>) {
    let forwarded: SmallVec<[&[u8]; 4]> =
        request.headers().get_all(header).map(|line| line.as_bytes()).collect();
    let head = RequestHead {
        peer: peer(request.request()),
        forwarded: &forwarded,
        method: request.method().as_str(),
        path: target(request),
        identity: None,
    };
    let user_agent = request.headers().get(USER_AGENT).map(|value| value.as_bytes());
    #[expect(clippy::needless_late_init, reason = "what is undecided borrows it, and goes first")]
    let identity: Option<Identity>;
    let mut undecided = Undecided { worker, head, user_agent, now, decided: false };
    identity = identify.and_then(|identify| identify(request.request()));
    undecided.head.identity = identity.as_ref();
    let admission = worker.admit(&undecided.head, now).await;
    undecided.decided = true;
    drop(undecided);
    (admission, identity)
}

/// The other end of the connection. A Unix socket has no address; all who come through it share one
/// that nobody trusts.
fn peer(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip())
}
