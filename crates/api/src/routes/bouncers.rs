//! The bouncer API: what programs that enforce blocks elsewhere ask, by the protocol of version 1 of
//! CrowdSec's local API.
//!
//! Answered from memory ([`decisions`](ipwarden_core::decisions)); the store is asked for the cursor of a
//! streaming bouncer only. While it is away, look-ups go on, and streams have nothing new to tell.
//!
//! # Security
//! A key is checked as everywhere ([`crate::auth`]). A bouncer is believed what it says of a client, which
//! is its own business: it asks for itself.

pub(crate) mod appsec;
pub(crate) mod decisions;
mod parameters;
pub(crate) mod stream;
mod told;
pub(crate) mod usage;

use std::fmt;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, USER_AGENT};
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError, web};
use futures_util::FutureExt as _;
use futures_util::future::{Ready, ready};
use ipwarden_core::context::Context;
use ipwarden_core::db::DbError;
use ipwarden_core::db::bouncers::{self, Who};
use ipwarden_core::keys::Role;
use ipwarden_engine::network::canonical;

use crate::auth::key_of_bouncer;
use crate::error::ApiError;
use crate::routes::now;

/// Where a bouncer sends its key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What a bouncer says of itself is kept no longer.
const LONGEST_WORD: usize = 64;

/// A bouncer whose key counts, as an argument of a handler.
pub(crate) struct Bouncer(pub(crate) Who);

impl FromRequest for Bouncer {
    type Error = Refused;
    type Future = Ready<Result<Bouncer, Refused>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(bouncer(request))
    }
}

fn bouncer(request: &HttpRequest) -> Result<Bouncer, Refused> {
    let key = request.headers().get(&API_KEY).and_then(|key| key.to_str().ok());
    let identity = key_of_bouncer(request, key)?;
    let Some(peer) = request.peer_addr() else { return Err(Refused::Forbidden) };
    let (kind, version) = user_agent(request.headers());
    let address = canonical(peer.ip());
    Ok(Bouncer(Who { key_id: identity.id.to_string(), address, kind, version }))
}

/// `name/version`, and whatever stands behind a blank.
fn user_agent(headers: &HeaderMap) -> (Option<String>, Option<String>) {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let first = agent.and_then(|agent| agent.split(' ').next()).unwrap_or_default();
    let (kind, version) = first.split_once('/').unwrap_or((first, ""));
    let word = |text: &str| {
        let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_word.then(|| text.chars().take(LONGEST_WORD).collect())
    };
    (word(kind), word(version))
}

/// Notes that a bouncer asked, for whoever looks at the list of them. Nobody waits for it.
fn note(context: &web::Data<Context>, who: Who) {
    if !context.look_ups.is_due(&who, ipwarden_engine::clock::Moment::now()) {
        return;
    }
    let db = context.db.clone();
    context.spawn(|_| async move {
        let at = now();
        let seen = db.run(move |conn| {
            async move {
                let at = conn.clock(at).await?;
                bouncers::seen(conn, who, at).await
            }
            .boxed()
        });
        if let Err(error) = seen.await {
            tracing::debug!(%error, "a bouncer's look-up was not noted");
        }
    });
}

/// The decisions are there, from now or from before the store went away.
async fn loaded(context: &Context) -> Result<(), Refused> {
    match context.decisions.version() {
        Some(_) => Ok(()),
        None => match context.decisions.refresh(now()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Refused::unavailable(&error)),
        },
    }
}

/// Why a bouncer does not get what it asked for, in the form that bouncers read.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No key, or none that counts.
    Forbidden,
    /// Too many wrong keys from this address; seconds until the next try.
    TooManyWrongKeys { seconds: u64 },
    /// A parameter or a body cannot be understood.
    Malformed(String),
    /// More was sent than is taken, in bytes.
    TooLarge { limit: usize },
    /// The store does not answer, and nothing is known from before.
    Unavailable,
}

impl Refused {
    fn unavailable(error: &DbError) -> Refused {
        tracing::warn!(%error, "a bouncer is not answered");
        Refused::Unavailable
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Refused {
        match error {
            ApiError::TooManyGuesses { seconds } => Refused::TooManyWrongKeys { seconds },
            ApiError::TooLarge { limit } => Refused::TooLarge { limit },
            ApiError::Unauthorized | ApiError::Forbidden { needed: Role::Bouncer } => {
                Refused::Forbidden
            }
            error => Refused::Malformed(error.to_string()),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Forbidden => f.write_str("access forbidden"),
            Refused::TooManyWrongKeys { seconds } => {
                write!(f, "too many wrong keys came from your address: try again in {seconds} s")
            }
            Refused::Malformed(detail) => f.write_str(detail),
            Refused::TooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Refused::Unavailable => f.write_str("the store does not answer: try again"),
        }
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        match self {
            Refused::Forbidden => StatusCode::FORBIDDEN,
            Refused::TooManyWrongKeys { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refused::Malformed(_) => StatusCode::BAD_REQUEST,
            Refused::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refused::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        if let Refused::TooManyWrongKeys { seconds } = self {
            answer.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        answer.json(serde_json::json!({ "message": self.to_string() }))
    }
}

/// `/health`: that this process answers.
pub(crate) async fn health() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "up" }))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_bouncer_says_in_its_user_agent_what_it_is() {
        for (agent, kind, version) in [
            (
                "crowdsec-firewall-bouncer/v0.0.25-debian",
                Some("crowdsec-firewall-bouncer"),
                Some("v0.0.25-debian"),
            ),
            ("python-bouncer/1.0 (linux)", Some("python-bouncer"), Some("1.0")),
            ("curl", Some("curl"), None),
            ("/1", None, Some("1")),
            ("", None, None),
            ("a\tb/1", None, Some("1")),
        ] {
            let request = TestRequest::get().insert_header((USER_AGENT, agent)).to_http_request();
            let (read_kind, read_version) = user_agent(request.headers());
            assert_eq!((read_kind.as_deref(), read_version.as_deref()), (kind, version), "{agent}");
        }
    }
}
