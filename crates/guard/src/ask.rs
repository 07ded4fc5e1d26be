//! One question to the guard, and the one record that comes of it.
//!
//! The middleware asks about the request that it is called with. Who answers a proxy's questions asks about
//! another request than the one that brings the question; nothing else is different.

use std::rc::Rc;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Admission, Identity, RequestHead, Worker};

use crate::pending::{Pending, Undecided};

/// What the guard is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The request; its identity is found out by [`ask`].
    pub head: RequestHead<'a>,
    /// As received.
    pub user_agent: Option<&'a [u8]>,
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
    #[expect(clippy::needless_late_init, reason = "what is undecided borrows it, and goes first")]
    let identity: Option<Identity>;
    let mut undecided = Undecided { worker, question, now, decided: false };
    identity = identify();
    undecided.question.head.identity = identity.as_ref();
    let admission = worker.admit(&undecided.question.head, now).await;
    undecided.decided = true;
    drop(undecided);
    let pending = Pending::new(worker, &question, &admission, identity);
    (admission, pending)
}
