//! How the store's rows look in listings.

use chrono::{DateTime, Utc};
use ipwarden_core::db::api_keys::ApiKey;
use ipwarden_core::db::entries::Entry;
use ipwarden_core::db::request_logs::Logged;
use ipwarden_core::db::suspicious_ips::{Status, SuspiciousIp};
use ipwarden_core::db::users::User;
use ipwarden_core::detect::Evidence;
use serde::Serialize;

use crate::output::{
    Column, ColumnKind, Object, Row, Tint, bounded, clean, ends, minute, place, time,
};

pub(super) const fn plain(name: &'static str) -> Column {
    Column { name, kind: ColumnKind::Plain }
}

pub(super) const fn number(name: &'static str) -> Column {
    Column { name, kind: ColumnKind::Number }
}

pub(super) const fn prose(name: &'static str) -> Column {
    Column { name, kind: ColumnKind::Prose }
}

pub(super) const fn cut(name: &'static str) -> Column {
    Column { name, kind: ColumnKind::Cut }
}

pub(super) fn untinted<const N: usize>(cells: [String; N]) -> Vec<(String, Tint)> {
    cells.into_iter().map(|cell| (cell, Tint::None)).collect()
}

impl Object for Entry {
    const FIELDS: &'static [&'static str] =
        &["id", "network", "reason", "origin", "created_by", "created_at", "expires_at"];
}

impl Row for Entry {
    const COLUMNS: &'static [Column] = &[
        plain("NETWORK"),
        plain("ENDS"),
        plain("ORIGIN"),
        plain("BY"),
        plain("SINCE"),
        prose("REASON"),
    ];

    fn cells(&self, now: DateTime<Utc>) -> Vec<(String, Tint)> {
        untinted([
            self.network.to_string(),
            ends(self.expires_at, now),
            clean(&self.origin),
            bounded(&clean(&self.created_by), 24),
            minute(self.created_at),
            clean(&self.reason),
        ])
    }
}

/// A finding, and where its newest request came from.
#[derive(Serialize)]
pub(super) struct Suspicious {
    #[serde(flatten)]
    pub(super) row: SuspiciousIp,
    country: Option<String>,
    city: Option<String>,
    #[serde(skip)]
    evidence: Option<Evidence>,
}

impl From<SuspiciousIp> for Suspicious {
    fn from(row: SuspiciousIp) -> Suspicious {
        let evidence: Option<Evidence> = serde_json::from_value(row.evidence.clone()).ok();
        let newest = evidence.as_ref().and_then(|evidence| evidence.requests.first());
        let country = newest.and_then(|request| request.country.clone());
        let city = newest.and_then(|request| request.city.clone());
        Suspicious { row, country, city, evidence }
    }
}

impl Object for Suspicious {
    const FIELDS: &'static [&'static str] = &[
        "id",
        "address",
        "rule",
        "status",
        "first_seen",
        "last_seen",
        "hits",
        "country",
        "city",
        "evidence",
        "reviewed_by",
        "reviewed_at",
    ];
}

/// The requests of the evidence that a table shows.
const SHOWN: usize = 2;

impl Row for Suspicious {
    const COLUMNS: &'static [Column] = &[
        number("ID"),
        plain("ADDRESS"),
        plain("PLACE"),
        plain("RULE"),
        number("HITS"),
        plain("FIRST, LAST SEEN"),
        plain("STATUS"),
        cut("EVIDENCE"),
    ];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let row = &self.row;
        let rule = match row.rule.as_str() {
            "sensitive_path" => "path".to_owned(),
            other => other.to_owned(),
        };
        let status = match row.status {
            Status::Open => Tint::Odd,
            Status::Blocked => Tint::Bad,
            Status::Dismissed => Tint::Good,
        };
        let mut cells = untinted([
            row.id.to_string(),
            row.address.to_string(),
            bounded(&place(self.city.as_deref(), self.country.as_deref()), 20),
            rule,
            row.hits.to_string(),
            format!("{}\n{}", time(row.first_seen), time(row.last_seen)),
            row.status.as_str().to_owned(),
            self.sample(),
        ]);
        cells[6].1 = status;
        cells
    }
}

impl Suspicious {
    fn sample(&self) -> String {
        let Some(evidence) = &self.evidence else { return String::new() };
        let requests = evidence.requests.iter().take(SHOWN).map(|request| {
            let path = bounded(&clean(&request.path), 100);
            format!("{} {} {path}", request.status, clean(&request.method))
        });
        let note = evidence.note.iter().map(|note| clean(note));
        requests.chain(note).collect::<Vec<_>>().join("\n")
    }
}

impl Object for Logged {
    const FIELDS: &'static [&'static str] = &[
        "at",
        "address",
        "method",
        "path",
        "status",
        "verdict",
        "sensitive",
        "identity",
        "country",
        "city",
        "asn",
        "user_agent",
        "reference",
        "node",
        "recorded_at",
        "id",
    ];
}

impl Row for Logged {
    const COLUMNS: &'static [Column] =
        &[plain("TIME"), plain("ADDRESS"), plain("PLACE"), plain("VERDICT"), cut("REQUEST")];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let tint = match self.verdict.as_str() {
            "blocked" => Tint::Bad,
            "throttled" => Tint::Odd,
            _ => Tint::None,
        };
        let mark = if self.sensitive { " (sensitive)" } else { "" };
        let path = bounded(&clean(&self.path), 200);
        let mut cells = untinted([
            time(self.at),
            self.address.to_string(),
            bounded(&place(self.city.as_deref(), self.country.as_deref()), 20),
            format!("{} {}", self.verdict, self.status),
            format!("{} {path}{mark}", clean(&self.method)),
        ]);
        cells[3].1 = tint;
        cells
    }
}

impl Object for ApiKey {
    const FIELDS: &'static [&'static str] =
        &["id", "name", "role", "created_by", "created_at", "revoked_at"];
}

impl Row for ApiKey {
    const COLUMNS: &'static [Column] =
        &[plain("ID"), plain("ROLE"), plain("STATE"), plain("BY"), plain("SINCE"), prose("NAME")];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let (state, tint) = match self.revoked_at {
            None => ("active", Tint::Good),
            Some(_) => ("revoked", Tint::Bad),
        };
        let mut cells = untinted([
            self.id.clone(),
            self.role.clone(),
            state.to_owned(),
            clean(&self.created_by),
            minute(self.created_at),
            clean(&self.name),
        ]);
        cells[2].1 = tint;
        cells
    }
}

impl Object for User {
    const FIELDS: &'static [&'static str] =
        &["name", "role", "created_by", "created_at", "password_changed_at"];
}

impl Row for User {
    const COLUMNS: &'static [Column] =
        &[plain("NAME"), plain("ROLE"), plain("BY"), plain("SINCE"), plain("PASSWORD SINCE")];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        untinted([
            clean(&self.name),
            self.role.clone(),
            bounded(&clean(&self.created_by), 24),
            minute(self.created_at),
            minute(self.password_changed_at),
        ])
    }
}
