//! How every change is made: in one transaction behind the lock of the lists, and at most once for one
//! `Idempotency-Key`.
//!
//! The answer is kept in the transaction of its change. So whoever got none, because the store or the
//! network went away, sends the same again and gets it; and two who send at once get one change and the
//! same answer. What was refused is not kept, because nothing was done.

use std::fmt::Write as _;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ipwarden_core::context::Context;
use ipwarden_core::db::idempotency_keys::{self, Answer, Known, Once};
use ipwarden_core::db::{Conn, Db, DbError};
use ipwarden_core::lists::{self, Actor};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;
use crate::routes::now;

/// The longest key of a change, in bytes.
const LONGEST_KEY: usize = 255;
/// The field of the draft draft-ietf-httpapi-idempotency-key-header.
const KEY: &str = "Idempotency-Key";

/// What a change answers when it was made.
pub(crate) struct Change {
    status: StatusCode,
    /// Nothing for an answer without a body.
    body: Option<Value>,
    /// What is kept of it, if that is not all.
    kept: Option<Value>,
    version: Option<i64>,
}

impl Change {
    /// An answer with a body; the version is announced.
    pub(crate) fn of(status: StatusCode, body: &impl Serialize, version: Option<i64>) -> Change {
        let body = serde_json::to_value(body).expect("rows of the store have text for keys");
        Change { status, body: Some(body), kept: None, version }
    }

    /// An answer without one.
    pub(crate) fn empty(version: Option<i64>) -> Change {
        Change { status: StatusCode::NO_CONTENT, body: None, kept: None, version }
    }

    /// The same, of which a member is shown once and never kept.
    #[must_use]
    pub(crate) fn secret(mut self, member: &str) -> Change {
        let mut kept = self.body.clone();
        if let Some(value) = kept.as_mut().and_then(|body| body.get_mut(member)) {
            *value = Value::Null;
        }
        self.kept = kept;
        self
    }

    fn answer(&self, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        Answer { status: self.status.as_u16(), body }
    }
}

/// Makes a change and announces it.
///
/// The body gets the store's time behind the lock of the lists. An [`ApiError`] of it means that nothing
/// was written.
pub(crate) async fn change<F>(
    context: &Context,
    once: Option<Once>,
    body: F,
) -> Result<HttpResponse, ApiError>
where
    F: for<'c> FnOnce(
            &'c mut Conn,
            DateTime<Utc>,
        ) -> BoxFuture<'c, Result<Result<Change, ApiError>, DbError>>
        + Send
        + 'static,
{
    change_in(&context.db, context, once, body).await
}

/// The same on a store with more time.
pub(crate) async fn change_in<F>(
    db: &Db,
    context: &Context,
    once: Option<Once>,
    body: F,
) -> Result<HttpResponse, ApiError>
where
    F: for<'c> FnOnce(
            &'c mut Conn,
            DateTime<Utc>,
        ) -> BoxFuture<'c, Result<Result<Change, ApiError>, DbError>>
        + Send
        + 'static,
{
    let now = now();
    let made = db.transaction(move |conn| {
        async move {
            let at = lists::lock(conn, now).await?;
            if let Some(once) = &once {
                match idempotency_keys::find(conn, once, at).await? {
                    Known::New => {}
                    Known::Made(answer) => {
                        return Ok(Ok(Made { answer, version: None, again: true }));
                    }
                    Known::Otherwise => return Ok(Err(otherwise())),
                }
            }
            let change = match body(conn, at).await? {
                Ok(change) => change,
                Err(refused) => return Ok(Err(refused)),
            };
            if let Some(once) = &once {
                let kept = change.answer(change.kept.as_ref().or(change.body.as_ref()));
                idempotency_keys::keep(conn, once, &kept, at).await?;
            }
            let answer = change.answer(change.body.as_ref());
            Ok(Ok(Made { answer, version: change.version, again: false }))
        }
        .boxed()
    });
    let made = made.await??;
    context.announce(made.version);
    Ok(made.response())
}

struct Made {
    answer: Answer,
    version: Option<i64>,
    again: bool,
}

impl Made {
    fn response(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.answer.status).unwrap_or(StatusCode::OK);
        let mut response = HttpResponse::build(status);
        if self.again {
            response.insert_header(("Idempotent-Replayed", "true"));
        }
        match self.answer.body.is_empty() {
            true => response.finish(),
            false => {
                response.insert_header((CONTENT_TYPE, "application/json")).body(self.answer.body)
            }
        }
    }
}

fn otherwise() -> ApiError {
    let detail = "this key was sent with another request within the last 24 hours";
    ApiError::Invalid { field: KEY, detail: detail.to_owned() }
}

/// The `Idempotency-Key` of a request, as an argument of a handler.
pub(crate) struct IdempotencyKey {
    key: Option<String>,
    /// Method, path and query.
    target: String,
}

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = Ready<Result<IdempotencyKey, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut target = request.method().to_string();
        let _infallible = write!(target, " {}?{}", request.path(), request.query_string());
        ready(key_of(request).map(|key| IdempotencyKey { key, target }))
    }
}

fn key_of(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    let mut lines = request.headers().get_all(KEY);
    let Some(line) = lines.next() else { return Ok(None) };
    let detail = format!("one key of 1 to {LONGEST_KEY} visible characters of ASCII is wanted");
    let bad = || ApiError::Invalid { field: KEY, detail };
    if lines.next().is_some() {
        return Err(bad());
    }
    let text = line.to_str().unwrap_or_default().trim();
    // The draft has it in quotation marks; most clients have not.
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    let is_key = (1..=LONGEST_KEY).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_key { Ok(Some(key.to_owned())) } else { Err(bad()) }
}

impl IdempotencyKey {
    /// The change that this key stands for, if there is one.
    pub(crate) fn of(self, actor: &Actor, wanted: &impl Serialize) -> Option<Once> {
        let wanted = serde_json::to_string(wanted).expect("what was read as JSON is JSON");
        let request = Sha256::digest(format!("{}\n{wanted}", self.target)).into();
        self.key.map(|key| Once { actor: actor.name.clone(), key, request })
    }

    /// Refuses a key where no answer is kept.
    pub(crate) fn refuse(self, why: &str) -> Result<(), ApiError> {
        match self.key {
            None => Ok(()),
            Some(_) => Err(ApiError::Invalid { field: KEY, detail: why.to_owned() }),
        }
    }
}
