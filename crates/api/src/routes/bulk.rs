//! `/api/v1/blocks/bulk`: many blocks and unblocks, all or none.

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::lists::{self, Bulk, Request};
use ipwarden_engine::network::{Network, Parsed};
use serde::{Deserialize, Serialize};

use crate::auth::Operator;
use crate::error::{ApiError, ElementError};
use crate::input::{Body, Object};
use crate::routes::change::{Change, IdempotencyKey, change_in};
use crate::routes::lists::{Wanted, rails, read, target_of};

/// The most that is done at once: nobody else changes a list meanwhile.
const MOST: usize = 200;

/// What to do together.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Many {
    #[serde(default)]
    block: Vec<Object<Wanted>>,
    #[serde(default)]
    unblock: Vec<String>,
}

pub(crate) async fn bulk(
    Operator(caller): Operator,
    key: IdempotencyKey,
    context: web::Data<Context>,
    Body(wanted): Body<Many>,
) -> Result<HttpResponse, ApiError> {
    let (actor, rails) = (caller.actor(), rails(&context));
    let once = key.of(&actor, &wanted);
    let bulk = read_all(wanted)?;
    let patient = lists::patient(&context.db, bulk.block.len() + bulk.unblock.len());
    change_in(&patient, &context, once, move |conn, at| {
        async move {
            let done = lists::bulk_in(conn, bulk, &actor, &rails, at).await?;
            Ok(done.map(|done| Change::of(StatusCode::OK, &done, done.version)).map_err(
                |refused| {
                    let error = |(index, reason): (usize, ipwarden_engine::target::Refused)| {
                        let detail = reason.reason().to_string();
                        let rule = Some(reason.rule());
                        ElementError { list: "block", index, field: "target", detail, rule }
                    };
                    ApiError::Elements {
                        refused: true,
                        errors: refused.into_iter().map(error).collect(),
                    }
                },
            ))
        }
        .boxed()
    })
    .await
}

fn read_all(wanted: Many) -> Result<Bulk, ApiError> {
    let count = wanted.block.len() + wanted.unblock.len();
    if !(1..=MOST).contains(&count) {
        let detail = format!("{count} networks to block and unblock: write 1 to {MOST} together");
        return Err(ApiError::Invalid { field: "body", detail });
    }
    let (mut bulk, mut errors, mut seen) = (Bulk::default(), Vec::new(), Seen::default());
    for (index, Object(wanted)) in wanted.block.into_iter().enumerate() {
        match read(wanted) {
            Ok(request) => {
                seen.note("block", index, "target", &first(&request), &mut errors);
                bulk.block.push(request);
            }
            Err(ApiError::Invalid { field, detail }) => {
                errors.push(ElementError { list: "block", index, field, detail, rule: None });
            }
            Err(other) => return Err(other),
        }
    }
    for (index, target) in wanted.unblock.iter().enumerate() {
        match target_of(target) {
            Ok(target) => {
                seen.note("unblock", index, "", &target, &mut errors);
                bulk.unblock.push(target);
            }
            Err(ApiError::Invalid { detail, .. }) => {
                errors.push(ElementError { list: "unblock", index, field: "", detail, rule: None });
            }
            Err(other) => return Err(other),
        }
    }
    match errors.is_empty() {
        true => Ok(bulk),
        false => Err(ApiError::Elements { refused: false, errors }),
    }
}

fn first(request: &Request) -> Parsed {
    *request.targets.first().expect("one target in each element")
}

/// Where each network stands; one that stands there twice cannot be meant.
#[derive(Default)]
struct Seen(HashMap<Network, (&'static str, usize)>);

impl Seen {
    fn note(
        &mut self,
        list: &'static str,
        index: usize,
        field: &'static str,
        target: &Parsed,
        errors: &mut Vec<ElementError>,
    ) {
        if let Some((other, before)) = self.0.insert(target.network, (list, index)) {
            let detail = format!("{} stands in {other}[{before}] already", target.network);
            errors.push(ElementError { list, index, field, detail, rule: None });
        }
    }
}
