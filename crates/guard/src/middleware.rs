//! The one middleware: asks the guard, answers for it when it refuses, and records what was answered.

use std::future::{self, Ready};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, USER_AGENT};
use actix_web::{Error, HttpMessage as _, HttpRequest};
use futures_util::future::LocalBoxFuture;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Admission, Guard, Identity, RequestHead, Verdict, Worker};
use ipwarden_engine::pass::Passes;
use pin_project_lite::pin_project;
use smallvec::SmallVec;

use crate::ask::{Asked, Question, ask_at_once};
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
        future::ready(match HeaderName::from_bytes(self.guard.client_ip_header().as_bytes()) {
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
    type Future = Answering<S, B>;

    forward_ready!(service);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let now = Moment::now();
        let passes = self.passes.as_deref();
        let taken = passes
            .and_then(|passes| pass::take(passes, &self.worker, &mut request, &self.header, now));
        if let Some(admission) = taken {
            return go_on(&*self.service, request, admission, None);
        }
        match self.ask(&request, now) {
            Asked::Settled(admission, pending) => {
                go_on(&*self.service, request, admission, Some(pending))
            }
            Asked::Unsettled(asking) => {
                let (service, worker) = (self.service.clone(), self.worker.clone());
                let answer = Box::pin(async move {
                    let (admission, pending) = asking.settle(&worker).await;
                    go_on(&*service, request, admission, Some(pending)).await
                });
                Answering::Asking { answer }
            }
        }
    }
}

impl<S> Guarded<S> {
    /// Asks the guard, and whoever knows, about who it is.
    fn ask(&self, request: &ServiceRequest, now: Moment) -> Asked {
        let forwarded = lines(request, &self.header);
        let head = RequestHead {
            peer: peer(request.request()),
            forwarded: &forwarded,
            method: request.method().as_str(),
            path: target(request),
            identity: None,
        };
        let user_agent = request.headers().get(USER_AGENT).map(|value| value.as_bytes());
        let identify = || self.identify.as_ref().and_then(|identify| identify(request.request()));
        ask_at_once(&self.worker, Question { head, user_agent }, identify, now)
    }
}

pin_project! {
    /// The answer to a guarded request.
    ///
    /// Written out, and not an `async` block in a box, because it is the guard's own part in every request:
    /// most need nobody to be asked, and the state of who waits for Redis is several times larger.
    #[project = Way]
    pub enum Answering<S, B>
    where
        S: Service<ServiceRequest>,
    {
        /// The guard has answered.
        Refused { answer: Option<ServiceResponse<EitherBody<B>>> },
        /// The application does.
        Served { #[pin] answer: S::Future, admission: Rc<Admission>, pending: Option<Pending> },
        /// Redis is asked first.
        Asking { answer: LocalBoxFuture<'static, Result<ServiceResponse<EitherBody<B>>, Error>> },
    }
}

/// Answers for the application, or hands the request on to it.
fn go_on<S, B>(
    service: &S,
    request: ServiceRequest,
    admission: Admission,
    pending: Option<Pending>,
) -> Answering<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    if admission.verdict != Verdict::Allowed {
        let answer = refusal(request.headers(), &admission);
        answered(pending, answer.status());
        return Answering::Refused {
            answer: Some(request.into_response(answer).map_into_right_body()),
        };
    }
    let admission = Rc::new(admission);
    request.extensions_mut().insert(admission.clone());
    Answering::Served { answer: service.call(request), admission, pending }
}

impl<S, B> Future for Answering<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Output = Result<ServiceResponse<EitherBody<B>>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (answer, admission, pending) = match self.project() {
            Way::Served { answer, admission, pending } => {
                // Held here, so that a handler that panics finds it on its way out.
                let held = pending.take();
                match answer.poll(context) {
                    Poll::Ready(answer) => (answer, admission, held),
                    Poll::Pending => {
                        *pending = held;
                        return Poll::Pending;
                    }
                }
            }
            Way::Asking { answer } => return answer.as_mut().poll(context),
            Way::Refused { answer } => {
                return Poll::Ready(Ok(answer
                    .take()
                    .expect("nobody polls an answer that is there")));
            }
        };
        Poll::Ready(match answer {
            Ok(mut response) => {
                admission_fields(response.headers_mut(), admission);
                answered(pending, response.status());
                Ok(response.map_into_left_body())
            }
            Err(error) => {
                let mut answer = error.error_response();
                admission_fields(answer.headers_mut(), admission);
                answered(pending, answer.status());
                Err(InternalError::from_response(error, answer).into())
            }
        })
    }
}

fn answered(pending: Option<Pending>, status: StatusCode) {
    if let Some(pending) = pending {
        pending.answered(status);
    }
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
