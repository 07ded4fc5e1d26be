//! `/v1/decisions`: who is kept out, for bouncers that ask about each client.

use std::convert::Infallible;

use actix_web::http::header::ContentType;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use ipwarden_core::context::Context;
use ipwarden_core::decisions::{Decision, Filter};
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;

use super::parameters::{About, Parameters};
use super::{Bouncer, Refused, loaded, note, told};

/// Blocks of one look into memory, and so of one chunk of an answer.
pub(super) const BLOCKS: usize = 500;

pub(crate) async fn decisions(
    Bouncer(who): Bouncer,
    request: HttpRequest,
    context: web::Data<Context>,
) -> Result<HttpResponse, Refused> {
    let parameters = Parameters::of(&request)?;
    let (about, filter) = (parameters.about()?, parameters.filter());
    let offset = parameters.count("offset")?.unwrap_or(0);
    let limit = parameters.count("limit")?.unwrap_or(usize::MAX);
    note(&context, who);
    loaded(&context).await?;
    let store_now = context.guard.store_now(Moment::now());
    let held = &context.decisions;
    let found = match about {
        About::Holding(network) => held.holding(network, &filter, store_now),
        About::Inside(network) => held.inside(network, &filter, store_now),
        About::Exactly(value) => held.about(value, &filter, store_now).into_iter().collect(),
        About::Nothing => Vec::new(),
        About::All => {
            let listing =
                Listing { context, filter, store_now, offset, limit, after: None, begun: false };
            let chunks = stream::unfold(Some(listing), |listing| async move {
                let mut listing = listing?;
                let (chunk, more) = listing.chunk();
                Some((Ok::<_, Infallible>(chunk), more.then_some(listing)))
            });
            return Ok(HttpResponse::Ok().content_type(ContentType::json()).streaming(chunks));
        }
    };
    let found: Vec<&Decision> = found.iter().skip(offset).take(limit).collect();
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(array(&found, store_now)))
}

/// An array, or `null`: some bouncers fail on an array without elements.
fn array(decisions: &[&Decision], store_now: i64) -> Vec<u8> {
    if decisions.is_empty() {
        return b"null".to_vec();
    }
    let mut out = vec![b'['];
    for (index, decision) in decisions.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        told::write(&mut out, decision, store_now);
    }
    out.push(b']');
    out
}

/// All decisions, chunk by chunk.
struct Listing {
    context: web::Data<Context>,
    filter: Filter,
    store_now: i64,
    /// Still to be passed over.
    offset: usize,
    /// Still to be told.
    limit: usize,
    after: Option<Network>,
    begun: bool,
}

impl Listing {
    /// The next chunk, and whether more follow.
    fn chunk(&mut self) -> (Bytes, bool) {
        let held = &self.context.decisions;
        let (page, next) = held.page(self.after, BLOCKS, &self.filter, self.store_now);
        let mut out = Vec::new();
        for decision in page {
            if self.offset > 0 {
                self.offset -= 1;
                continue;
            }
            if self.limit == 0 {
                break;
            }
            self.limit -= 1;
            out.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            told::write(&mut out, &decision, self.store_now);
        }
        self.after = next;
        let more = next.is_some() && self.limit > 0;
        if !more {
            out.extend_from_slice(if self.begun { b"]" } else { b"null" });
        }
        (out.into(), more)
    }
}
