//! `/v1/appsec`: a bouncer asks about each request, and gets the guard's own answer.
//!
//! The protocol is the one by which bouncers ask CrowdSec's application-security component: the request is
//! described in headers, and the answer says what to do. So a bouncer that knows 403 only by the
//! blocklist gives a true 429 here, and every request is recorded, once.
//!
//! # Security
//! The key is in the question's own header. A wrong one is 401 here, not 403: that would be a ban. Whose
//! key counts is believed which client it asks about.

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderName;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use futures_util::StreamExt as _;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{RequestHead, Verdict};
use ipwarden_engine::network::parse_address;
use ipwarden_guard::{Question, Refusal, admission_fields, ask};
use serde_json::json;

use super::Refused;
use crate::auth::key_of_bouncer;
use crate::routes::gate::forward_auth::Asker;
use crate::routes::gate::original::{Convention, original};

const IP: HeaderName = HeaderName::from_static("x-crowdsec-appsec-ip");
const API_KEY: HeaderName = HeaderName::from_static("x-crowdsec-appsec-api-key");
const USER_AGENT: HeaderName = HeaderName::from_static("x-crowdsec-appsec-user-agent");
/// Bouncers send the client's body along. It is not looked at, and of a larger one not all is taken.
const LARGEST_BODY: usize = 16 << 20;

pub(crate) async fn appsec(
    request: HttpRequest,
    asker: web::Data<Asker>,
    body: Payload,
) -> HttpResponse {
    match answer(&request, &asker, body).await {
        Ok(answer) => answer,
        Err(Refused::Forbidden) => {
            let message = json!({ "message": Refused::Forbidden.to_string() });
            HttpResponse::Unauthorized().json(message)
        }
        Err(refused) => refused.error_response(),
    }
}

async fn answer(
    request: &HttpRequest,
    asker: &Asker,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    let headers = request.headers();
    let key = headers.get(&API_KEY).and_then(|key| key.to_str().ok());
    key_of_bouncer(request, key)?;
    let mut named = headers.get_all(&IP);
    let client = match (named.next(), named.next()) {
        (Some(address), None) => parse_address(without_zone(address.as_bytes())),
        _ => None,
    };
    let client = client.ok_or_else(|| {
        Refused::Malformed(format!("{IP}: must be there once, with the client's address"))
    })?;
    let original = original(request, Convention::Appsec)?;
    let head = RequestHead {
        peer: client,
        forwarded: &[],
        method: original.method,
        path: original.path(),
        identity: None,
    };
    let user_agent = headers.get(&USER_AGENT).map(|agent| agent.as_bytes());
    // Before the decision, which is not undone if the rest of the question does not come.
    pass_over(body).await?;
    let question = Question { head, user_agent };
    let (admission, pending) = ask(asker.worker(), question, || None, Moment::now()).await;
    let (mut answer, status) = match admission.verdict {
        Verdict::Allowed => (HttpResponse::Ok().json(json!({ "action": "allow" })), StatusCode::OK),
        Verdict::Blocked(_) | Verdict::Throttled => {
            let status = Refusal::of(&admission).status;
            let told = json!({ "action": "ban", "http_status": status.as_u16() });
            (HttpResponse::Forbidden().json(told), status)
        }
    };
    admission_fields(answer.headers_mut(), &admission);
    pending.answered(status);
    Ok(answer)
}

/// Caddy names the interface of a link-local client as well (RFC 4007, 11).
fn without_zone(address: &[u8]) -> &[u8] {
    address.split(|byte| *byte == b'%').next().unwrap_or_default()
}

/// Reads a body to its end, so that the connection can bring the next question.
async fn pass_over(mut body: Payload) -> Result<(), Refused> {
    let mut passed = 0;
    while let Some(chunk) = body.next().await {
        passed += chunk.map_err(|error| Refused::Malformed(format!("body: {error}")))?.len();
        if passed > LARGEST_BODY {
            return Err(Refused::TooLarge { limit: LARGEST_BODY });
        }
    }
    Ok(())
}
