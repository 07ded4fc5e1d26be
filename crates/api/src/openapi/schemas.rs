//! The shapes of bodies. An answer has these members, all of them, and no others.

use serde_json::{Map, Value, json};

/// A reference to a schema.
pub(super) fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A page of rows.
pub(super) fn page(row: &str) -> Value {
    object(&[("items", array(named(row))), ("next", nullable(text()))])
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn integer() -> Value {
    json!({ "type": "integer" })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn nullable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn network() -> Value {
    json!({ "type": "string", "description": "An address or a CIDR", "examples": ["203.0.113.0/24"] })
}

fn term() -> Value {
    json!({
        "type": ["string", "null"],
        "description": "How long: 90s, 15m, 4h, 30d, 1h30m or permanent, which is the default",
        "examples": ["4h"],
    })
}

fn reason() -> Value {
    json!({ "type": ["string", "null"], "maxLength": 1000 })
}

/// All members are there, and no others.
fn object(members: &[(&str, Value)]) -> Value {
    wanted(members, &members.iter().map(|(name, _)| *name).collect::<Vec<_>>())
}

/// Some members may be left away.
fn wanted(members: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn entry() -> Vec<(&'static str, Value)> {
    vec![
        ("id", integer()),
        ("network", network()),
        ("reason", text()),
        ("origin", text()),
        ("created_by", text()),
        ("created_at", time()),
        ("expires_at", nullable(time())),
    ]
}

fn finding() -> Vec<(&'static str, Value)> {
    vec![
        ("id", integer()),
        ("address", network()),
        ("rule", one_of(&["volume", "sensitive_path"])),
        ("status", one_of(&["open", "blocked", "dismissed"])),
        ("first_seen", time()),
        ("last_seen", time()),
        ("hits", integer()),
        ("evidence", json!({ "type": "object" })),
        ("reviewed_by", nullable(text())),
        ("reviewed_at", nullable(time())),
    ]
}

fn key() -> Vec<(&'static str, Value)> {
    vec![
        ("id", text()),
        ("name", text()),
        ("role", role_of_keys()),
        ("created_by", text()),
        ("created_at", time()),
        ("revoked_at", nullable(time())),
    ]
}

fn with(mut members: Vec<(&'static str, Value)>, more: &[(&'static str, Value)]) -> Value {
    members.extend_from_slice(more);
    object(&members)
}

fn role_of_keys() -> Value {
    one_of(&["user", "reader", "operator", "admin", "bouncer"])
}

fn role_of_people() -> Value {
    one_of(&["user", "reader", "operator", "admin"])
}

fn name_of_a_person() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$" })
}

fn password() -> Value {
    json!({ "type": "string", "format": "password", "minLength": 12, "maxLength": 1024 })
}

fn put() -> Value {
    one_of(&["created", "updated", "unchanged"])
}

/// Every schema that has a name.
pub(super) fn all() -> Value {
    let mut all = answers();
    for (name, schema) in bodies() {
        all.insert(name.to_owned(), schema);
    }
    all.into()
}

fn answers() -> Map<String, Value> {
    let error = wanted(
        &[("field", text()), ("detail", text()), ("rule", text()), ("index", integer())],
        &["field", "detail"],
    );
    let problem = wanted(
        &[
            ("type", text()),
            ("title", text()),
            ("status", integer()),
            ("detail", text()),
            ("errors", array(error)),
            ("reference", text()),
        ],
        &["type", "title", "status", "detail"],
    );
    let notices = || array(text());
    let outcome = with(entry(), &[("put", put()), ("notices", notices())]);
    let removal = object(&[
        ("network", network()),
        ("removed", array(named("Entry"))),
        ("notices", notices()),
    ]);
    let record = object(&[
        ("id", integer()),
        ("at", time()),
        ("address", text()),
        ("method", text()),
        ("path", text()),
        ("status", integer()),
        ("verdict", one_of(&["allowed", "blocked", "throttled"])),
        ("sensitive", boolean()),
        ("identity", nullable(text())),
        ("country", nullable(text())),
        ("city", nullable(text())),
        ("asn", nullable(integer())),
        ("user_agent", nullable(text())),
        ("reference", nullable(text())),
        ("node", text()),
        ("recorded_at", time()),
    ]);
    let checked = object(&[
        ("network", network()),
        ("verdict", one_of(&["allowed", "blocked", "mixed"])),
        (
            "because",
            one_of(&["allowlisted", "blocklisted", "trusted_proxy", "unlisted", "partly_listed"]),
        ),
        ("allowed", array(named("Entry"))),
        ("blocked", array(named("Entry"))),
        ("trusted_proxy", nullable(network())),
        ("suspicious", array(named("Finding"))),
    ]);
    let run = object(&[
        ("window_start", time()),
        ("window_end", time()),
        ("scheduler", text()),
        ("started_at", time()),
        ("finished_at", time()),
        ("findings", integer()),
    ]);
    let verdicts =
        || ["requests", "allowed", "blocked", "throttled"].map(|name| (name, integer())).to_vec();
    let tops = || array(named("Top"));
    let mut top = with(verdicts(), &[("key", text()), ("at_most", integer())]);
    top["description"] =
        "At least `requests`, and no more than `at_most`: of each hour the thousand \
        busiest are kept. Networks are a /24 or /48."
            .into();
    let counted = [
        ("since", time()),
        ("until", time()),
        ("by", one_of(&["hour", "day"])),
        ("pending_hours", integer()),
        ("times", array(with(verdicts(), &[("start", time())]))),
        ("statuses", tops()),
        ("addresses", tops()),
        ("networks", tops()),
        ("paths", tops()),
        ("countries", tops()),
        ("asns", tops()),
    ];
    let mut stats = with(verdicts(), &counted);
    stats["description"] = "Whole hours, as far as they are counted: the newest records of \
        `pending_hours` hours are not."
        .into();
    let audited = object(&[
        ("id", integer()),
        ("at", time()),
        ("actor", text()),
        ("action", text()),
        ("target", text()),
        ("details", json!({ "type": "object" })),
    ]);
    let user = object(&[
        ("name", text()),
        ("role", role_of_people()),
        ("created_by", text()),
        ("created_at", time()),
        ("password_changed_at", time()),
    ]);
    let session = object(&[
        ("name", text()),
        ("role", role_of_keys()),
        ("csrf", nullable(text())),
        ("expires_at", nullable(time())),
    ]);
    let done =
        object(&[("blocked", array(named("Outcome"))), ("unblocked", array(named("Removal")))]);
    let reviewed =
        with(finding(), &[("already", boolean()), ("block", nullable(named("Outcome")))]);
    [
        ("Problem", problem),
        ("Entry", object(&entry())),
        ("Outcome", outcome),
        ("Removal", removal),
        ("BulkDone", done),
        ("Finding", object(&finding())),
        ("Reviewed", reviewed),
        ("Record", record),
        ("Checked", checked),
        ("ScanRun", run),
        ("Stats", stats),
        ("Top", top),
        ("Audited", audited),
        ("Key", object(&key())),
        ("NewKey", with(key(), &[("key", nullable(text()))])),
        ("User", user),
        ("Session", session),
    ]
    .map(|(name, schema)| (name.to_owned(), schema))
    .into_iter()
    .collect()
}

fn bodies() -> Vec<(&'static str, Value)> {
    let target = wanted(
        &[("target", network()), ("for", term()), ("reason", reason()), ("force", boolean())],
        &["target"],
    );
    let mut many =
        wanted(&[("block", array(named("WantedEntry"))), ("unblock", array(network()))], &[]);
    many["description"] = "Both together 1 to 200, none of them twice.".into();
    let review = wanted(
        &[
            ("action", one_of(&["block", "dismiss"])),
            ("for", term()),
            ("reason", reason()),
            ("force", boolean()),
        ],
        &["action"],
    );
    vec![
        ("WantedEntry", target),
        ("WantedBulk", many),
        ("WantedReview", review),
        ("WantedKey", object(&[("name", text()), ("role", role_of_keys())])),
        (
            "WantedUser",
            object(&[
                ("name", name_of_a_person()),
                ("role", role_of_people()),
                ("password", password()),
            ]),
        ),
        ("WantedPassword", object(&[("password", password())])),
        ("Credentials", object(&[("name", text()), ("password", text())])),
    ]
}
