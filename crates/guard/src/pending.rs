//! The record of a request that has not been answered yet.

use std::rc::Rc;

use actix_web::dev::ServiceRequest;
use actix_web::http::StatusCode;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Admission, Worker};
use ipwarden_engine::spool::Draft;

use crate::ask::Question;

/// What nginx calls a request whose client went away before the answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Records its request if it is dropped before it is known who asks, because finding that out panicked. It
/// borrows what it would write.
pub(crate) struct Unidentified<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) question: Question<'a>,
    pub(crate) now: Moment,
}

impl Unidentified<'_> {
    /// It is known now, and somebody else records the request.
    pub(crate) fn identified(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unidentified<'_> {
    fn drop(&mut self) {
        let Question { head, user_agent } = &self.question;
        let admission = self.worker.unjudged(head, self.now);
        self.worker.record(self.worker.draft(&admission, head, *user_agent), status_of_none());
    }
}

/// Records its request exactly once: when it is answered, or when it is dropped before.
///
/// It holds a record that is put together already, because the request itself belongs to the application
/// meanwhile, which cannot route a request that somebody else holds on to.
#[must_use = "dropped, it records a request that nobody answered"]
pub struct Pending {
    worker: Rc<Worker>,
    /// Taken when it is recorded.
    draft: Option<Draft>,
}

impl Pending {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        question: &Question<'_>,
        admission: &Admission,
    ) -> Pending {
        let draft = worker.draft(admission, &question.head, question.user_agent);
        Pending { worker: worker.clone(), draft: Some(draft) }
    }

    /// Says what became of it, if that was not known at first.
    pub(crate) fn settled(&mut self, admission: &Admission) {
        if let Some(draft) = &mut self.draft {
            draft.set_verdict(admission.verdict.recorded());
        }
    }

    /// Records the request. Call it before the answer leaves.
    pub fn answered(mut self, status: StatusCode) {
        self.record(status.as_u16());
    }

    fn record(&mut self, status: u16) {
        if let Some(draft) = self.draft.take() {
            self.worker.record(draft, status);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.draft.is_some() {
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
