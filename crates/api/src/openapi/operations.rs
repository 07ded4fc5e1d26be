//! Every operation of the control listener.

use serde_json::{Value, json};

use super::schemas::{named, page};
use super::{Content, Operation};

const READER: Option<&str> = Some("reader");
const OPERATOR: Option<&str> = Some("operator");
const ADMIN: Option<&str> = Some("admin");

pub(super) fn all() -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, of_one, words) in [
        (
            "/api/v1/blocks",
            "/api/v1/blocks/{target}",
            ["Show the blocklist", "Block a network", "Unblock a network"],
        ),
        (
            "/api/v1/allows",
            "/api/v1/allows/{target}",
            ["Show the allowlist", "Allow a network", "Take a network off the allowlist"],
        ),
    ] {
        all.push(get(path, words[0], READER, &PAGING, Content::Json(page("Entry"))));
        all.push(Operation {
            body: Some("WantedEntry"),
            answers: vec![(200, json_of("Outcome")), (201, json_of("Outcome"))],
            problems: &[409],
            ..change("post", path, words[1], OPERATOR)
        });
        let mut remove = change("delete", of_one, words[2], OPERATOR);
        remove.parameters.push(in_path("target", "An address or a CIDR, its slash as it is"));
        all.push(Operation {
            answers: vec![(200, json_of("Removal"))],
            problems: &[422],
            ..remove
        });
    }
    all.push(Operation {
        body: Some("WantedBulk"),
        answers: vec![(200, json_of("BulkDone"))],
        problems: &[409],
        ..change("post", "/api/v1/blocks/bulk", "Block and unblock many, all or none", OPERATOR)
    });
    all.extend(findings());
    all.extend(log());
    all.extend(callers());
    all.extend(open());
    all
}

fn findings() -> Vec<Operation> {
    let status = json!({ "type": "string", "enum": ["open", "blocked", "dismissed", "all"] });
    let mut listing =
        get("/api/v1/suspicious", "Show what the scan found", READER, &PAGING, pages("Finding"));
    listing.parameters.push(in_query("status", "What became of it; open by default", status));
    let mut one = get("/api/v1/suspicious/{id}", "Show a finding", READER, &[], json_of("Finding"));
    one.parameters.push(in_path("id", "Of the finding"));
    one.problems = &[404, 422];
    let mut review = change("post", "/api/v1/suspicious/{id}/review", "Judge a finding", OPERATOR);
    review.parameters.push(in_path("id", "Of the finding"));
    let review = Operation {
        body: Some("WantedReview"),
        answers: vec![(200, json_of("Reviewed"))],
        problems: &[404, 409],
        ..review
    };
    vec![listing, one, review]
}

fn log() -> Vec<Operation> {
    let text = || json!({ "type": "string" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let filters = || {
        let verdict = json!({ "type": "string", "enum": ["allowed", "blocked", "throttled"] });
        let status = json!({ "type": "string", "pattern": "^([1-9]xx|[1-9][0-9]{2})$" });
        let country = json!({ "type": "string", "pattern": "^[A-Za-z]{2}$" });
        vec![
            in_query("ip", "Only from this address or CIDR", text()),
            in_query("path", "Only paths that begin so; every character means itself", text()),
            in_query("verdict", "Only what the guard answered so", verdict),
            in_query("status", "Only this status, as 404 or 4xx", status),
            in_query("country", "Only from this country, of ISO 3166-1", country),
        ]
    };
    let mut records =
        get("/api/v1/request-logs", "Show the request log", READER, &PAGING, pages("Record"));
    records.parameters.extend(filters());
    records.parameters.push(in_query("since", "Only from then on", time()));
    records.parameters.push(in_query("until", "Only before then", time()));
    let stream = |path, summary| {
        let mut stream = get(path, summary, READER, &[], Content::Text("text/event-stream"));
        stream.parameters.push(in_query(
            "cursor",
            "The id of the last event that was read",
            text(),
        ));
        stream.parameters.push(json!({
            "name": "Last-Event-ID", "in": "header", "schema": text(),
            "description": "The same, as browsers send it when they come back",
        }));
        stream
    };
    let mut live = stream("/api/v1/request-logs/stream", "Follow the request log");
    live.parameters.extend(filters());
    let mut stats = get("/api/v1/stats", "Count requests", READER, &[], json_of("Stats"));
    let steps = json!({ "type": "string", "enum": ["hour", "day"] });
    let top = json!({ "type": "integer", "minimum": 0, "maximum": 1000, "default": 10 });
    stats.parameters = vec![
        in_query("since", "From the hour of then on; the last 24 hours by default", time()),
        in_query("until", "Up to the end of the hour before then", time()),
        in_query("by", "Steps of time, UTC; by the hour for up to two days by default", steps),
        in_query("top", "So many of the busiest of each kind", top),
    ];
    let mut check = get(
        "/api/v1/check/{target}",
        "Ask every list about a network",
        READER,
        &[],
        json_of("Checked"),
    );
    check.parameters.push(in_path("target", "An address or a CIDR, its slash as it is"));
    check.problems = &[422];
    vec![
        records,
        live,
        stats,
        stream("/api/v1/changes/stream", "Follow the changes of both lists"),
        get("/api/v1/scans", "Show which hours were judged", READER, &PAGING, pages("ScanRun")),
        get("/api/v1/audit", "Show who changed what", READER, &PAGING, pages("Audited")),
        check,
    ]
}

fn callers() -> Vec<Operation> {
    let of_key = || in_path("id", "Of the key");
    let of_user = || in_path("name", "Of the user");
    let nothing = || vec![(204, Content::Nothing)];
    let mut revoke = change("delete", "/api/v1/keys/{id}", "End a key at once", ADMIN);
    revoke.parameters.push(of_key());
    let mut remove = change("delete", "/api/v1/users/{name}", "Remove a user", ADMIN);
    remove.parameters.push(of_user());
    let mut password = change("put", "/api/v1/users/{name}/password", "Set a password", ADMIN);
    password.parameters = vec![of_user()];
    let mut add = change("post", "/api/v1/users", "Add a user", ADMIN);
    add.parameters.clear();
    vec![
        get("/api/v1/keys", "Show the API keys", ADMIN, &[], pages("Key")),
        Operation {
            body: Some("WantedKey"),
            answers: vec![(201, json_of("NewKey"))],
            ..change("post", "/api/v1/keys", "Make a key; it is shown this once", ADMIN)
        },
        Operation { answers: nothing(), problems: &[404, 422], ..revoke },
        get("/api/v1/users", "Show the users", ADMIN, &[], pages("User")),
        Operation {
            body: Some("WantedUser"),
            answers: vec![(201, json_of("User"))],
            problems: &[409],
            ..add
        },
        Operation { answers: nothing(), problems: &[404, 422], ..remove },
        Operation {
            body: Some("WantedPassword"),
            answers: nothing(),
            problems: &[404],
            ..password
        },
        get("/api/v1/session", "Tell who the caller is", Some("user"), &[], json_of("Session")),
        get("/api/v1/openapi.json", "This document", READER, &[], {
            Content::Json(json!({ "type": "object" }))
        }),
        get("/api/docs", "This document for people", READER, &[], Content::Text("text/html")),
    ]
}

fn open() -> Vec<Operation> {
    let text = || Content::Text("text/plain");
    let mut ready =
        get("/readyz", "Whether it can decide; `verbose` says what is degraded", None, &[], text());
    ready.answers.push((503, text()));
    let metrics = Content::Text("application/openmetrics-text");
    vec![
        get("/livez", "Whether the process lives", None, &[], text()),
        ready,
        get("/metrics", "Figures for Prometheus", None, &[], metrics),
        get("/login", "The page to sign in on", None, &[], Content::Text("text/html")),
        Operation {
            body: Some("Credentials"),
            answers: vec![(200, json_of("Session"))],
            problems: &[401, 403, 429, 500, 503],
            ..get("/login", "Sign in: the answer has a cookie", None, &[], Content::Nothing)
        }
        .by("post"),
        Operation {
            answers: vec![(204, Content::Nothing)],
            problems: &[400, 403, 413, 500, 503],
            ..get("/logout", "Sign out, everywhere", None, &[], Content::Nothing)
        }
        .by("post"),
    ]
}

impl Operation {
    fn by(self, method: &'static str) -> Operation {
        Operation { method, ..self }
    }
}

const PAGING: [&str; 2] = ["limit", "cursor"];

fn get(
    path: &'static str,
    summary: &'static str,
    role: Option<&'static str>,
    paging: &[&str],
    content: Content,
) -> Operation {
    let parameter = |name: &&str| match *name {
        "limit" => {
            let schema = json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 50 });
            in_query("limit", "Rows of the page", schema)
        }
        _ => in_query("cursor", "The `next` of the page before", json!({ "type": "string" })),
    };
    Operation {
        method: "get",
        path,
        summary,
        role,
        parameters: paging.iter().map(parameter).collect(),
        body: None,
        answers: vec![(200, content)],
        problems: &[],
    }
}

fn change(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    role: Option<&'static str>,
) -> Operation {
    let key = json!({
        "name": "Idempotency-Key", "in": "header",
        "description": "The same request with the same key is made once",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
    });
    Operation { parameters: vec![key], ..get(path, summary, role, &[], Content::Nothing) }
        .by(method)
}

fn json_of(schema: &str) -> Content {
    Content::Json(named(schema))
}

fn pages(row: &str) -> Content {
    Content::Json(page(row))
}

fn in_query(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": { "type": "string", "minLength": 1 },
    })
}
