//! The record of a request that has not been answered yet.

use std::ops::Range;
use std::rc::Rc;

use actix_web::dev::ServiceRequest;
use actix_web::http::StatusCode;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Admission, Answered, Identity, Worker};

use crate::ask::Question;

/// What nginx calls a request whose client went away before the answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Records its request if it is dropped before the guard has decided: because the client went away, or
/// because finding out who it is panicked. It borrows what it would write.
pub(crate) struct Undecided<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) question: Question<'a>,
    pub(crate) now: Moment,
    pub(crate) decided: bool,
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if self.decided {
            return;
        }
        let Undecided { worker, question: Question { head, user_agent }, now, .. } = *self;
        let answered = Answered {
            method: head.method.as_bytes(),
            path: head.path.as_bytes(),
            status: status_of_none(),
            user_agent,
            identity: head.identity,
        };
        worker.record(&worker.abandon(&head, now), &answered);
    }
}

/// Records its request exactly once: when it is answered, or when it is dropped before.
///
/// It holds copies, because the request itself belongs to the application meanwhile, which cannot
/// route a request that somebody else holds on to.
#[must_use = "dropped, it records a request that nobody answered"]
pub struct Pending {
    worker: Rc<Worker>,
    admission: Admission,
    identity: Option<Identity>,
    text: Vec<u8>,
    method: usize,
    path: usize,
    user_agent: Option<Range<usize>>,
    recorded: bool,
}

impl Pending {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        question: &Question<'_>,
        admission: &Admission,
        identity: Option<Identity>,
    ) -> Pending {
        let method = question.head.method.as_bytes();
        let path = question.head.path.as_bytes();
        let user_agent = question.user_agent;
        let length = method.len() + path.len() + user_agent.map_or(0, <[u8]>::len);
        let mut text = Vec::with_capacity(length);
        text.extend_from_slice(method);
        text.extend_from_slice(path);
        text.extend_from_slice(user_agent.unwrap_or_default());
        let paths_end = method.len() + path.len();
        Pending {
            worker: worker.clone(),
            admission: admission.clone(),
            identity,
            text,
            method: method.len(),
            path: paths_end,
            user_agent: user_agent.map(|_| paths_end..length),
            recorded: false,
        }
    }

    /// Records the request. Call it before the answer leaves.
    pub fn answered(mut self, status: StatusCode) {
        self.record(status.as_u16());
    }

    fn record(&mut self, status: u16) {
        self.recorded = true;
        self.worker.record(
            &self.admission,
            &Answered {
                method: &self.text[..self.method],
                path: &self.text[self.method..self.path],
                status,
                user_agent: self.user_agent.clone().map(|range| &self.text[range]),
                identity: self.identity.as_ref(),
            },
        );
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.recorded {
            self.record(status_of_none());
        }
    }
}

/// The path as received. CONNECT has none and names a host and a port (RFC 9112, 3.2.3).
pub(crate) fn target(request: &ServiceRequest) -> &str {
    match (request.uri().path(), request.uri().authority()) {
        ("", Some(authority)) => authority.as_str().rsplit('@').next().unwrap_or_default(),
        (path, _) => path,
    }
}

/// What a request without an answer is recorded with.
fn status_of_none() -> u16 {
    if std::thread::panicking() { 500 } else { CLIENT_CLOSED_REQUEST }
}
