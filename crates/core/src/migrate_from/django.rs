//! The tables of the Django application that ipwarden was first written as: `ip_tracking_requestlog`,
//! `ip_tracking_blockedip`, `ip_tracking_suspiciousip`.
//!
//! Its requests become a log of JSON lines, which is imported like any other: so they have places,
//! the hours that they touch are scanned, and no line goes in twice.

use std::collections::BTreeMap;
use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use ipwarden_engine::network::{Network, parse_address};
use serde_json::json;

use super::{Blocks, LeftOut, instant};
use crate::db::foreign::{Foreign, ForeignError};
use crate::db::suspicious_ips::NewSuspiciousIp;
use crate::detect::{Evidence, Rule};

/// Rows of one look.
const PAGE: usize = 5_000;

const NOTHING: &str = "cast(null as text)";

/// Why the tables were not read.
#[derive(Debug, thiserror::Error)]
pub enum DjangoError {
    /// The database.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// None of the tables is there.
    #[error(
        "{name} has none of the tables {app}_requestlog, {app}_blockedip and {app}_suspiciousip"
    )]
    NoTables {
        /// The database.
        name: String,
        /// The application's label.
        app: String,
    },
    /// What was read cannot be kept.
    #[error("cannot keep what was read: {0}")]
    Output(#[from] io::Error),
}

/// The tables of one application.
pub struct Django {
    foreign: Foreign,
    app: String,
    requests: Vec<String>,
    blocked: Vec<String>,
    suspicious: Vec<String>,
}

impl Django {
    /// Looks which tables there are. `app` is the application's label: letters, digits and `_`.
    ///
    /// # Errors
    /// [`DjangoError::NoTables`] if none is.
    pub async fn look(foreign: Foreign, app: &str) -> Result<Django, DjangoError> {
        let requests = foreign.columns(&format!("{app}_requestlog")).await?;
        let blocked = foreign.columns(&format!("{app}_blockedip")).await?;
        let suspicious = foreign.columns(&format!("{app}_suspiciousip")).await?;
        if requests.is_empty() && blocked.is_empty() && suspicious.is_empty() {
            let name = foreign.name().to_owned();
            return Err(DjangoError::NoTables { name, app: app.to_owned() });
        }
        Ok(Django { foreign, app: app.to_owned(), requests, blocked, suspicious })
    }

    /// What the database is called.
    pub fn name(&self) -> &str {
        self.foreign.name()
    }

    /// Everybody who is blocked.
    ///
    /// # Errors
    /// The database's.
    pub async fn blocks(&self) -> Result<Blocks, DjangoError> {
        let mut blocks = Blocks::default();
        if self.blocked.is_empty() {
            return Ok(blocks);
        }
        let reason = self.text(&self.blocked, &["reason"]);
        let columns = format!("{}, {reason} as c, {}", self.address(), self.rest(3));
        let mut after = 0;
        while let Some(rows) = self.page("blockedip", &columns, &mut after).await? {
            for [_, address, reason, ..] in rows {
                blocks.take(&address.unwrap_or_default(), reason.filter(|r| !r.is_empty()), None);
            }
        }
        Ok(blocks)
    }

    /// Writes the requests as JSON lines, in the order in which they were recorded; says how many, and
    /// what was left out.
    ///
    /// # Errors
    /// The database's, and those of `out`.
    pub async fn write_requests(
        &self,
        out: &mut impl Write,
        mut report: impl FnMut(u64),
    ) -> Result<(u64, LeftOut), DjangoError> {
        let (mut written, mut left_out) = (0, LeftOut::new());
        if self.requests.is_empty() {
            return Ok((written, left_out));
        }
        let columns = format!(
            "{}, {} as c, {} as d, {} as e, {} as f",
            self.address(),
            self.time(&self.requests, &["timestamp", "created_at", "at", "time"]),
            self.text(&self.requests, &["path"]),
            self.text(&self.requests, &["country"]),
            self.text(&self.requests, &["city"]),
        );
        let mut after = 0;
        while let Some(rows) = self.page("requestlog", &columns, &mut after).await? {
            for [_, address, at, path, country, city] in rows {
                let address = address.as_deref().and_then(|text| parse_address(text.as_bytes()));
                let at = at.as_deref().and_then(instant);
                let (Some(address), Some(at)) = (address, at) else {
                    let why =
                        if address.is_none() { "it has no address" } else { "it has no time" };
                    *left_out.entry(why.to_owned()).or_default() += 1;
                    continue;
                };
                // It recorded neither method nor status.
                let line = json!({
                    "at": at.to_rfc3339_opts(SecondsFormat::Micros, true),
                    "address": address,
                    "method": "-",
                    "path": path.unwrap_or_else(|| "/".to_owned()),
                    "country": country.filter(|country| country.len() == 2),
                    "city": city.filter(|city| !city.is_empty() && city != "Unknown"),
                });
                writeln!(out, "{line}")?;
                written += 1;
            }
            report(written);
        }
        Ok((written, left_out))
    }

    /// What it found suspicious, one for each address and rule.
    ///
    /// # Errors
    /// The database's.
    pub async fn findings(&self) -> Result<(Vec<NewSuspiciousIp>, LeftOut), DjangoError> {
        let (mut found, mut left_out) = (BTreeMap::new(), LeftOut::new());
        if self.suspicious.is_empty() {
            return Ok((Vec::new(), left_out));
        }
        let times = ["detected_at", "flagged_at", "timestamp", "created_at", "first_seen"];
        let columns = format!(
            "{}, {} as c, {} as d, {}",
            self.address(),
            self.text(&self.suspicious, &["reason"]),
            self.time(&self.suspicious, &times),
            self.rest(4),
        );
        let mut after = 0;
        while let Some(rows) = self.page("suspiciousip", &columns, &mut after).await? {
            for [_, address, reason, at, ..] in rows {
                let address = address.as_deref().and_then(|text| parse_address(text.as_bytes()));
                let at = at.as_deref().and_then(instant);
                let reason = reason.unwrap_or_default();
                let why = match (address, at, rule(&reason)) {
                    (Some(address), Some(at), Some(rule)) => {
                        // As the scan itself counts them.
                        let network = match rule {
                            Rule::Volume => Network::of_client(address, 64),
                            Rule::SensitivePath => Network::from(address),
                        };
                        add(&mut found, (network, rule), at, reason);
                        continue;
                    }
                    (None, ..) => "it has no address",
                    (_, None, _) => "it has no time",
                    (.., None) => "its reason names neither a volume nor a path",
                };
                *left_out.entry(why.to_owned()).or_default() += 1;
            }
        }
        Ok((found.into_values().collect(), left_out))
    }

    /// The next rows; `None` when all have been there.
    async fn page(
        &self,
        table: &str,
        columns: &str,
        after: &mut i64,
    ) -> Result<Option<Vec<crate::db::foreign::Texts>>, DjangoError> {
        let app = &self.app;
        let sql = format!(
            "select cast(id as text) as a, {columns} from {app}_{table} where id > {after} \
             order by id limit {PAGE}"
        );
        let rows = self.foreign.rows(sql).await?;
        let last = rows.last().and_then(|[id, ..]| id.as_ref()?.parse().ok());
        *after = last.unwrap_or(*after);
        Ok((!rows.is_empty() && last.is_some()).then_some(rows))
    }

    fn address(&self) -> &'static str {
        match self.foreign.is_sqlite() {
            true => "cast(ip_address as text) as b",
            false => "host(ip_address::inet) as b",
        }
    }

    fn text(&self, columns: &[String], names: &[&str]) -> String {
        match names.iter().find(|name| columns.iter().any(|column| column == *name)) {
            Some(name) => format!("cast({name} as text)"),
            None => NOTHING.to_owned(),
        }
    }

    fn time(&self, columns: &[String], names: &[&str]) -> String {
        let Some(name) = names.iter().find(|name| columns.iter().any(|column| column == *name))
        else {
            return NOTHING.to_owned();
        };
        match self.foreign.is_sqlite() {
            true => format!("cast(\"{name}\" as text)"),
            false => {
                format!("to_char(\"{name}\" at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')")
            }
        }
    }

    /// The columns of a row that are not asked for, after so many that are.
    fn rest(&self, asked: usize) -> String {
        let names = ["a", "b", "c", "d", "e", "f"];
        let rest: Vec<String> =
            names[asked..].iter().map(|name| format!("{NOTHING} as {name}")).collect();
        rest.join(", ")
    }
}

/// Which of our rules a reason in somebody's words is about.
fn rule(reason: &str) -> Option<Rule> {
    let reason = reason.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&["path", "sensitive", "admin", "login", "endpoint"]) {
        return Some(Rule::SensitivePath);
    }
    says(&["request", "rate", "volume", "exceed", "many", "traffic"]).then_some(Rule::Volume)
}

fn add(
    found: &mut BTreeMap<(Network, &'static str), NewSuspiciousIp>,
    (address, rule): (Network, Rule),
    at: DateTime<Utc>,
    reason: String,
) {
    let new = || NewSuspiciousIp {
        address,
        rule,
        first_seen: at,
        last_seen: at,
        hits: 0,
        evidence: json!(Evidence {
            requests: Vec::new(),
            note: Some(format!("taken over from Django: {reason}")),
        }),
        review: None,
    };
    let one = found.entry((address, rule.as_str())).or_insert_with(new);
    one.first_seen = one.first_seen.min(at);
    one.last_seen = one.last_seen.max(at);
    one.hits += 1;
}
