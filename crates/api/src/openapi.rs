//! What the control listener answers, as OpenAPI 3.1: for programs at `/api/v1/openapi.json`, for people at
//! `/api/docs`.
//!
//! It is written by hand, because half of the types belong to crates that know no HTTP. Tests hold it equal
//! to `routes.rs`, and `schemathesis` holds the answers to it.

mod operations;
mod page;
mod schemas;

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use serde_json::{Map, Value, json};

use crate::auth::Reader;
use crate::html::{self, Forms};

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
static PAGE: LazyLock<String> = LazyLock::new(|| page::of(&DOCUMENT));

/// The document.
pub(crate) async fn json(_: Reader) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(&*DOCUMENT)
}

/// The page.
pub(crate) async fn page(_: Reader) -> HttpResponse {
    html::answer(StatusCode::OK, page::STYLE, Forms::None, &PAGE)
}

/// One thing that can be asked for.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// What it takes; nothing for what is open.
    role: Option<&'static str>,
    parameters: Vec<Value>,
    /// The name of a schema, and the statuses of bodies that are refused come with it.
    body: Option<&'static str>,
    /// Status, and what is in its body.
    answers: Vec<(u16, Content)>,
    /// Statuses of problems besides those that everything has.
    problems: &'static [u16],
}

/// What is in a body.
enum Content {
    Nothing,
    Json(Value),
    Text(&'static str),
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations::all() {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = operation.described();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ipwarden",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control listener. Lists are pages: `next` is the `cursor` of the page \
                behind it, null at the end. Errors are application/problem+json (RFC 9457) and name \
                the field. Changes take an Idempotency-Key: the same request with the same key within \
                24 hours is made once and answered alike.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "key": [] }, { "session": [], "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                "key": { "type": "http", "scheme": "bearer" },
                "session": { "type": "apiKey", "in": "cookie", "name": "ipwarden_control" },
                "token": { "type": "apiKey", "in": "header", "name": "X-Csrf-Token" },
            },
        },
    })
}

/// What everything may answer that takes a key.
const USUAL: [u16; 5] = [401, 403, 429, 500, 503];
/// What comes with a body.
const OF_BODIES: [u16; 5] = [400, 408, 413, 415, 422];

impl Operation {
    fn described(&self) -> Value {
        let mut answers = Map::new();
        for (status, content) in &self.answers {
            answers.insert(status.to_string(), content.described());
        }
        let usual: &[u16] = if self.role.is_some() { &USUAL } else { &[] };
        let of_bodies: &[u16] = if self.body.is_some() { &OF_BODIES } else { &[] };
        let in_query = |one: &Value| one["in"] == "query" || one["in"] == "header";
        let of_queries: &[u16] =
            if self.parameters.iter().any(in_query) { &[400, 422] } else { &[] };
        for status in [usual, of_bodies, of_queries, self.problems].concat() {
            answers.entry(status.to_string()).or_insert_with(problem);
        }
        let mut described = json!({
            "summary": self.summary,
            "operationId": self.id(),
            "responses": answers,
        });
        if !self.parameters.is_empty() {
            described["parameters"] = self.parameters.clone().into();
        }
        if let Some(name) = self.body {
            let schema = schemas::named(name);
            described["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        match self.role {
            Some(role) => described["description"] = format!("Takes the role {role}.").into(),
            None => described["security"] = json!([]),
        }
        described
    }

    fn id(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric());
        let words = words.filter(|word| !word.is_empty() && *word != "api" && *word != "v1");
        std::iter::once(self.method).chain(words).collect::<Vec<_>>().join("_")
    }
}

impl Content {
    fn described(&self) -> Value {
        match self {
            Content::Nothing => json!({ "description": "Done" }),
            Content::Json(schema) => json!({
                "description": "Done",
                "content": { "application/json": { "schema": schema } },
            }),
            Content::Text(kind) => json!({
                "description": "Done",
                "content": { *kind: { "schema": { "type": "string" } } },
            }),
        }
    }
}

fn problem() -> Value {
    json!({
        "description": "What is wrong",
        "content": { "application/problem+json": { "schema": schemas::named("Problem") } },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Methods and paths of the control listener as `routes.rs` writes them.
    fn written() -> BTreeSet<String> {
        let source = include_str!("routes.rs");
        let (_, door) = source.split_once("fn door(").unwrap();
        let (door, rest) = door.split_once("\n}\n").unwrap();
        let (_, control) = rest.split_once("pub(crate) fn control(").unwrap();
        let (control, _) = control.split_once("\n}\n").unwrap();
        let (open, keyed) = control.split_once("scope(\"/api/v1\")").unwrap();
        let mut all = BTreeSet::new();
        for (part, prefix) in [(door, ""), (open, ""), (keyed, "/api/v1")] {
            let texts: Vec<&str> = part.split('"').skip(1).step_by(2).collect();
            for path in texts.iter().filter(|text| text.starts_with('/')) {
                let after = part.split(&format!("\"{path}\"")).nth(1).unwrap();
                let own = after.split_once("(\"/").map_or(after, |(own, _)| own);
                for method in ["get", "post", "put", "delete"] {
                    if own.contains(&format!(".{method}(")) {
                        let path = path.replace(":.*", "");
                        all.insert(format!("{method} {prefix}{path}"));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let described: BTreeSet<String> = operations::all()
            .iter()
            .map(|operation| format!("{} {}", operation.method, operation.path))
            .collect();
        assert!(described.len() > 30, "{described:?}");
        assert_eq!(written(), described);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
        let text = DOCUMENT.to_string();
        let referred: BTreeSet<&str> = text
            .split("#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
        assert_eq!(referred, schemas.keys().map(String::as_str).collect());
    }

    #[test]
    fn every_parameter_of_a_path_is_described() {
        for operation in operations::all() {
            let in_path = operation.path.matches('{').count();
            let described =
                operation.parameters.iter().filter(|parameter| parameter["in"] == "path");
            assert_eq!(described.count(), in_path, "{}", operation.path);
        }
    }

    #[test]
    fn ids_of_operations_differ() {
        let all = operations::all();
        let ids: BTreeSet<String> = all.iter().map(Operation::id).collect();
        assert_eq!(ids.len(), all.len());
    }
}
