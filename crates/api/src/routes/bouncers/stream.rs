//! `/v1/decisions/stream`: everything at first, then what changed.
//!
//! The answer is made while it is written, some hundred decisions at a time, so that it takes no more
//! memory for a million. When all of it was handed to the connection, the bouncer's cursor moves, and
//! only then the answer ends: who has seen its end is not told the same again, and whom it did not reach
//! is.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::ContentType;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{FutureExt as _, stream};
use ipwarden_core::context::Context;
use ipwarden_core::db::bouncers::{self, Pulled, Who};
use ipwarden_core::decisions::{self, Filter, Pull};
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;

use super::decisions::BLOCKS;
use super::parameters::Parameters;
use super::{Bouncer, Refused, told};
use crate::routes::now;

/// How long the end of an answer waits for the store, which has answered just before.
const LAST: Duration = Duration::from_secs(2);

pub(crate) async fn stream(
    Bouncer(who): Bouncer,
    request: HttpRequest,
    context: web::Data<Context>,
) -> Result<HttpResponse, Refused> {
    let parameters = Parameters::of(&request)?;
    // The Lua bouncer says `nil` when it has forgotten: what it was told before, it has still.
    let startup = matches!(parameters.flag("startup"), Ok(Some(true)));
    let filter = parameters.filter();
    let mut answer = HttpResponse::Ok();
    answer.content_type(ContentType::json());
    if request.method() == Method::HEAD {
        return Ok(answer.finish());
    }
    let pull = decisions::pull(&context.db, &context.decisions, who.clone(), startup, now()).await;
    let pull = match pull {
        Ok(pull) => pull,
        Err(error) if context.decisions.version().is_none() => {
            return Err(Refused::unavailable(&error));
        }
        Err(error) => {
            tracing::debug!(%error, startup, "a bouncer is answered without the store");
            Pull::without_store(startup)
        }
    };
    let cursor = pull.pulled.map(|pulled| (who, pulled));
    let store_now = context.guard.store_now(Moment::now());
    let part = if pull.everything { Part::All(None) } else { Part::Changed(0) };
    let told = Telling { context, filter, store_now, pull, cursor, part, begun: false };
    Ok(answer.streaming(stream::unfold(told, |mut told| async move {
        match told.chunk() {
            Some(chunk) => Some((Ok::<_, Infallible>(chunk), told)),
            None => {
                told.arrived().await;
                None
            }
        }
    })))
}

/// An answer that is being made.
struct Telling {
    context: web::Data<Context>,
    filter: Filter,
    store_now: i64,
    pull: Pull,
    /// Whose cursor moves when everything is told, and where to.
    cursor: Option<(Who, Pulled)>,
    part: Part,
    /// Whether the array of this part has an element.
    begun: bool,
}

/// What is told next.
#[derive(Clone, Copy)]
enum Part {
    /// Every decision behind this block.
    All(Option<Network>),
    /// The changed ones, from this one on.
    Changed(usize),
    /// Those that have ended, from this one on.
    Ended(usize),
    Over,
}

impl Telling {
    fn chunk(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        if !self.begun && matches!(self.part, Part::All(None) | Part::Changed(0)) {
            out.extend_from_slice(br#"{"new":"#);
        }
        self.part = match self.part {
            Part::All(after) => self.some_of_all(&mut out, after),
            Part::Changed(from) => self.some_changed(&mut out, from),
            Part::Ended(from) => self.some_ended(&mut out, from),
            Part::Over => return None,
        };
        Some(out.into())
    }

    fn some_of_all(&mut self, out: &mut Vec<u8>, after: Option<Network>) -> Part {
        let held = &self.context.decisions;
        let (page, next) = held.page(after, BLOCKS, &self.filter, self.store_now);
        for decision in page {
            element(out, &mut self.begun);
            told::write(out, &decision, self.store_now);
        }
        match next {
            Some(_) => Part::All(next),
            None => self.new_is_told(out),
        }
    }

    fn some_changed(&mut self, out: &mut Vec<u8>, from: usize) -> Part {
        let (held, changed) = (&self.context.decisions, &self.pull.changed);
        let to = changed.len().min(from + BLOCKS);
        for value in &changed[from..to] {
            if let Some(decision) = held.about(*value, &self.filter, self.store_now) {
                element(out, &mut self.begun);
                told::write(out, &decision, self.store_now);
            }
        }
        match to < changed.len() {
            true => Part::Changed(to),
            false => self.new_is_told(out),
        }
    }

    fn some_ended(&mut self, out: &mut Vec<u8>, from: usize) -> Part {
        let (held, values) = (&self.context.decisions, &self.pull.maybe_ended);
        let to = values.len().min(from + BLOCKS);
        for value in values[from..to].iter().filter(|value| self.filter.wants_value(value)) {
            if held.about(*value, &self.filter, self.store_now).is_some() {
                continue;
            }
            let ended = held.ended(*value).into_iter();
            for decision in ended.filter(|one| self.filter.wants_origin(&one.cause.origin)) {
                element(out, &mut self.begun);
                told::write_ended(out, &decision);
            }
        }
        if to < values.len() {
            return Part::Ended(to);
        }
        self.close_array(out);
        out.push(b'}');
        Part::Over
    }

    fn new_is_told(&mut self, out: &mut Vec<u8>) -> Part {
        self.close_array(out);
        out.extend_from_slice(br#","deleted":"#);
        Part::Ended(0)
    }

    /// An array without elements is `null`.
    fn close_array(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.begun { b"]" } else { b"null" });
        self.begun = false;
    }

    /// The whole answer was taken.
    async fn arrived(&mut self) {
        let Some((who, pulled)) = self.cursor.take() else { return };
        let db = self.context.db.with_timeout(LAST);
        let moved =
            db.run(move |conn| async move { bouncers::pulled(conn, &who, pulled).await }.boxed());
        if let Err(error) = moved.await {
            tracing::debug!(%error, "a bouncer is told the same once more");
        }
    }
}

fn element(out: &mut Vec<u8>, begun: &mut bool) {
    out.push(if *begun { b',' } else { b'[' });
    *begun = true;
}
