//! `/api/v1/request-logs/stream` and `/api/v1/changes/stream`: what happens, as it happens, as
//! server-sent events.
//!
//! Each event has an `id`; whoever comes back with it in `Last-Event-ID` (browsers do by themselves) goes
//! on from there. A stream looks into the store once a second, and for changes only when this process
//! knows of one. It ends with the process, and when the key of its reader counts no longer.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{FutureExt as _, stream};
use ipwarden_core::context::Context;
use ipwarden_core::db::list_changes::{self, Change, List};
use ipwarden_core::db::request_logs::{Filter, Logged};
use ipwarden_core::db::{Db, DbError};
use ipwarden_core::tail::Tail;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{Caller, Reader};
use crate::connections::Unending;
use crate::error::ApiError;
use crate::input::Query;
use crate::paging::Seal;
use crate::routes::now;
use crate::routes::request_logs::filter;

/// The most streams of one process.
const MOST: usize = 16;
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// After so many looks without news a sign of life is sent.
const QUIET_LOOKS: u32 = 15;
/// Changes of one look.
const CHANGES: i64 = 500;

/// Room for streams.
pub(crate) struct Listeners(Arc<Semaphore>);

impl Default for Listeners {
    fn default() -> Listeners {
        Listeners(Arc::new(Semaphore::new(MOST)))
    }
}

impl Listeners {
    fn admit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let detail = "As many streams as this process serves are open. Close one, or try again.";
        self.0.clone().try_acquire_owned().map_err(|_| ApiError::Busy { detail })
    }
}

pub(crate) async fn records(
    request: HttpRequest,
    Reader(caller): Reader,
    context: web::Data<Context>,
    listeners: web::Data<Listeners>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::of(&request)?;
    let filter = filter(&mut query)?;
    let (after, seal) = query.resume::<2>(&request)?;
    let place = listeners.admit()?;
    let tail = match after {
        Some(position) => Tail::from(position),
        None => Tail::at_the_end(&context.db, now()).await?,
    };
    let source = Source::Records { tail, filter };
    Ok(Stream::new(&request, caller, context, place, seal, source).answer())
}

pub(crate) async fn changes(
    request: HttpRequest,
    Reader(caller): Reader,
    context: web::Data<Context>,
    listeners: web::Data<Listeners>,
) -> Result<HttpResponse, ApiError> {
    let (after, seal) = Query::of(&request)?.resume::<1>(&request)?;
    let place = listeners.admit()?;
    let version = match after {
        Some([version]) => version,
        None => context.db.run(|conn| list_changes::version(conn).boxed()).await?,
    };
    let source = Source::Changes { version };
    Ok(Stream::new(&request, caller, context, place, seal, source).answer())
}

/// Where the events of a stream come from.
enum Source {
    Records { tail: Tail, filter: Filter },
    Changes { version: i64 },
}

/// One event, and where whoever has read it stands.
enum Event {
    Record(Box<Logged>),
    Change(Change),
    /// Changes before this version are told no longer: load the lists whole.
    Gap(Gap),
}

#[derive(Serialize)]
struct Gap {
    version: i64,
}

impl Source {
    /// News, if there are any, with the name of where they lead.
    async fn next(&mut self, context: &Context, seal: &Seal) -> Result<String, DbError> {
        let mut text = String::new();
        match self {
            Source::Records { tail, filter } => {
                for (position, row) in tail.next(&context.db, filter, now()).await? {
                    write(&mut text, &Event::Record(Box::new(row)), seal.close(position));
                }
            }
            Source::Changes { version } => {
                if context.feed.status().borrow().version == *version {
                    return Ok(text);
                }
                let (current, changes) = since(&context.db, *version).await?;
                let follows = changes.first().map_or(current, |change| change.version - 1);
                if follows != *version {
                    *version = follows;
                    let gap = Event::Gap(Gap { version: follows });
                    write(&mut text, &gap, seal.close([follows]));
                }
                for change in changes {
                    *version = change.version;
                    if change.is_emptied() {
                        let gap = Event::Gap(Gap { version: *version });
                        write(&mut text, &gap, seal.close([*version]));
                    } else if change.list == List::Blocked.as_str()
                        || change.list == List::Allowed.as_str()
                    {
                        write(&mut text, &Event::Change(change), seal.close([*version]));
                    }
                }
            }
        }
        Ok(text)
    }

    fn position(&self, seal: &Seal) -> Option<String> {
        match self {
            Source::Records { tail, .. } => seal.close(tail.position()),
            Source::Changes { version } => seal.close([*version]),
        }
    }
}

async fn since(db: &Db, version: i64) -> Result<(i64, Vec<Change>), DbError> {
    db.run(move |conn| {
        async move {
            let current = list_changes::version(conn).await?;
            Ok((current, list_changes::since(conn, version, CHANGES).await?))
        }
        .boxed()
    })
    .await
}

fn write(text: &mut String, event: &Event, id: Option<String>) {
    let (name, json) = match event {
        Event::Record(row) => ("record", serde_json::to_string(row)),
        Event::Change(change) => ("change", serde_json::to_string(change)),
        Event::Gap(gap) => ("gap", serde_json::to_string(gap)),
    };
    // JSON of serde has no line breaks.
    let json = json.expect("rows of the store have text for keys");
    text.push_str(&format!("event: {name}\nid: {}\ndata: {json}\n\n", id.unwrap_or_default()));
}

/// One reader.
struct Stream {
    caller: Caller,
    context: web::Data<Context>,
    seal: Seal,
    source: Source,
    connection: Unending,
    _place: OwnedSemaphorePermit,
    begun: bool,
}

impl Stream {
    fn new(
        request: &HttpRequest,
        caller: Caller,
        context: web::Data<Context>,
        place: OwnedSemaphorePermit,
        seal: Seal,
        source: Source,
    ) -> Stream {
        let connection = Unending::on(request);
        Stream { caller, context, seal, source, connection, _place: place, begun: false }
    }

    fn answer(self) -> HttpResponse {
        let events = stream::unfold(self, |mut stream| async move {
            let text = stream.next().await?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), stream))
        });
        HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header((CACHE_CONTROL, "no-store"))
            // nginx would collect it.
            .insert_header(("X-Accel-Buffering", "no"))
            .streaming(Box::pin(events))
    }

    /// What is sent next; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if !self.begun {
            self.begun = true;
            self.connection.goes_on();
            return Some(format!("retry: 2000\n{}", self.sign_of_life()));
        }
        let mut quiet = 0;
        loop {
            let is_over = self.context.is_stopping() || self.connection.was_left();
            if is_over || !self.caller.counts(&self.context) {
                return None;
            }
            match self.source.next(&self.context, &self.seal).await {
                Ok(news) if !news.is_empty() => return Some(news),
                Ok(_) => {}
                // It may come back; the reader stands where he stood.
                Err(error) if error.is_unreachable() => tracing::debug!(%error, "a stream waits"),
                Err(error) => {
                    tracing::error!(%error, "a stream ends");
                    return None;
                }
            }
            quiet += 1;
            if quiet > QUIET_LOOKS {
                return Some(self.sign_of_life());
            }
            tokio::select! {
                () = self.context.until_stopping() => return None,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// An event without data: readers note where they stand and show nothing.
    fn sign_of_life(&self) -> String {
        format!(": alive\nid: {}\n\n", self.source.position(&self.seal).unwrap_or_default())
    }
}
