//! One question to the guard, and the one record that comes of it.
//!
//! The middleware asks about the request that it is called with. Who answers a proxy's questions asks about
//! another request than the one that brings the question; nothing else is different.

use std::rc::Rc;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Admission, Identity, Judgement, RequestHead, Unsettled, Worker};

use crate::pending::{Pending, Unidentified};

/// What the guard is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The request; its identity is found out by [`ask`].
    pub head: RequestHead<'a>,
    /// As received.
    pub user_agent: Option<&'a [u8]>,
}

/// A question as far as it can be answered at once.
pub(crate) enum Asked {
    /// All of it.
    Settled(Admission, Pending),
    /// Redis has to be asked, for which the request is not needed any more.
    Unsettled(Asking),
}

/// A question whose answer Redis has.
pub(crate) struct Asking {
    unsettled: Unsettled,
    pending: Pending,
}

/// Asks the guard, and `identify` about who it is. Exactly one record comes of it: by
/// [`Pending::answered`], or when [`Pending`], or the future of this, is dropped before.
///
/// # Security
/// `identify` returns an identity only for a credential that was verified.
pub async fn ask(
    worker: &Rc<Worker>,
    question: Question<'_>,
    identify: impl FnOnce() -> Option<Identity>,
    now: Moment,
) -> (Admission, Pending) {
    match ask_at_once(worker, question, identify, now) {
        Asked::Settled(admission, pending) => (admission, pending),
        Asked::Unsettled(asking) => asking.settle(worker).await,
    }
}

/// The same as far as nothing has to be waited for.
pub(crate) fn ask_at_once(
    worker: &Rc<Worker>,
    question: Question<'_>,
    identify: impl FnOnce() -> Option<Identity>,
    now: Moment,
) -> Asked {
    let unidentified = Unidentified { worker, question, now };
    let identity = identify();
    unidentified.identified();
    let head = RequestHead { identity: identity.as_ref(), ..question.head };
    let question = Question { head, ..question };
    match worker.judge(&question.head, now) {
        Judgement::Settled(admission) => {
            let pending = Pending::new(worker, &question, &admission);
            Asked::Settled(admission, pending)
        }
        Judgement::Unsettled(unsettled) => {
            let pending = Pending::new(worker, &question, unsettled.admission());
            Asked::Unsettled(Asking { unsettled, pending })
        }
    }
}

impl Asking {
    /// Asks Redis.
    pub(crate) async fn settle(self, worker: &Worker) -> (Admission, Pending) {
        let Asking { unsettled, mut pending } = self;
        let admission = worker.settle(unsettled).await;
        pending.settled(&admission);
        (admission, pending)
    }
}
