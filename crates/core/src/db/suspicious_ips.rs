//! `suspicious_ips`: what the scan found, and what a person made of it.
//!
//! There is at most one open row per (address, rule). Reviewed rows stay as they were.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use ipwarden_engine::network::Network;
use serde::{Deserialize, Serialize};

use super::schema::suspicious_ips::{self, dsl};
use super::types::{JsonValue, MaybeTs, NetValue, TsValue};
use super::{Conn, DbError};
use crate::detect::Rule;

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nobody has looked at it yet.
    Open,
    /// It was reviewed and blocked.
    Blocked,
    /// It was reviewed and found harmless.
    Dismissed,
}

impl Status {
    /// The word in the column.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Blocked => "blocked",
            Status::Dismissed => "dismissed",
        }
    }
}

impl std::str::FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Status, UnknownStatus> {
        [Status::Open, Status::Blocked, Status::Dismissed]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| UnknownStatus(word.to_owned()))
    }
}

/// A word that is no status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a status: it is one of open, blocked, dismissed")]
pub struct UnknownStatus(pub String);

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuspiciousIp {
    /// Of the row, never used twice.
    pub id: i64,
    /// An exact address, or the /64 of an IPv6 volume finding. Review blocks just that.
    pub address: Network,
    /// Which rule it broke.
    pub rule: Rule,
    /// What became of it.
    pub status: Status,
    /// The first request that counted.
    pub first_seen: DateTime<Utc>,
    /// The last request that counted.
    pub last_seen: DateTime<Utc>,
    /// For volume the largest count within the span, for sensitive paths the matches from first to
    /// last.
    pub hits: i64,
    /// [`Evidence`](crate::detect::Evidence).
    pub evidence: serde_json::Value,
    /// Who reviewed it.
    pub reviewed_by: Option<String>,
    /// When.
    pub reviewed_at: Option<DateTime<Utc>>,
}

/// A row to be.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSuspiciousIp {
    /// An exact address, or the /64 of an IPv6 volume finding.
    pub address: Network,
    /// Which rule it broke.
    pub rule: Rule,
    /// The first request that counted.
    pub first_seen: DateTime<Utc>,
    /// The last request that counted.
    pub last_seen: DateTime<Utc>,
    /// See [`SuspiciousIp::hits`].
    pub hits: i64,
    /// See [`SuspiciousIp::evidence`].
    pub evidence: serde_json::Value,
    /// `None` for one that a person is to review.
    pub review: Option<Review>,
}

/// What somebody made of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// Blocked or dismissed.
    pub status: Status,
    /// Who: `key:ID`, `cli:USER`, `scan`.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

#[derive(Queryable)]
struct Row {
    id: i64,
    address: NetValue,
    rule: String,
    status: String,
    first_seen: TsValue,
    last_seen: TsValue,
    hits: i64,
    evidence: JsonValue,
    reviewed_by: Option<String>,
    reviewed_at: MaybeTs,
}

// Tuples and `serialize_as` cannot be inserted in batches on SQLite, plain fields can.
#[derive(Insertable)]
#[diesel(table_name = suspicious_ips, treat_none_as_default_value = false)]
struct NewRow {
    address: NetValue,
    rule: &'static str,
    status: &'static str,
    first_seen: TsValue,
    last_seen: TsValue,
    hits: i64,
    evidence: JsonValue,
    reviewed_by: Option<String>,
    reviewed_at: MaybeTs,
}

impl Row {
    fn read(self) -> Result<SuspiciousIp, DbError> {
        let unknown = |error: &dyn std::fmt::Display| {
            DbError::Query(diesel::result::Error::DeserializationError(error.to_string().into()))
        };
        Ok(SuspiciousIp {
            id: self.id,
            address: self.address.0,
            rule: self.rule.parse().map_err(|error| unknown(&error))?,
            status: self.status.parse().map_err(|error| unknown(&error))?,
            first_seen: self.first_seen.0,
            last_seen: self.last_seen.0,
            hits: self.hits,
            evidence: self.evidence.0,
            reviewed_by: self.reviewed_by,
            reviewed_at: self.reviewed_at.into(),
        })
    }
}

/// All rows, reviewed or not, of exactly these networks.
///
/// # Errors
/// As any statement.
pub async fn of(conn: &mut Conn, networks: &[Network]) -> Result<Vec<SuspiciousIp>, DbError> {
    let mut all = Vec::new();
    for chunk in networks.chunks(1_000) {
        let rows =
            dsl::suspicious_ips.filter(dsl::address.eq_any(chunk.iter().copied().map(NetValue)));
        let rows: Vec<Row> = on!(conn, |c| rows.load(c).await)?;
        for row in rows {
            all.push(row.read()?);
        }
    }
    Ok(all)
}

/// Adds rows. The caller has made sure that none is open for any of them.
///
/// # Errors
/// As any statement.
pub async fn insert(conn: &mut Conn, new: Vec<NewSuspiciousIp>) -> Result<(), DbError> {
    let rows: Vec<NewRow> = new.into_iter().map(NewRow::from).collect();
    // PostgreSQL takes 65,535 parameters, SQLite 32,766.
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let chunk: Vec<NewRow> = rows.by_ref().take(1_000).collect();
        let insert = diesel::insert_into(suspicious_ips::table).values(chunk);
        match conn {
            Conn::Postgres(c) => insert.execute(c).await?,
            Conn::Sqlite(c) => insert_batch!(c, insert)?,
        };
    }
    Ok(())
}

impl From<NewSuspiciousIp> for NewRow {
    fn from(new: NewSuspiciousIp) -> NewRow {
        let (status, by, at) = match new.review {
            None => (Status::Open, None, None),
            Some(review) => (review.status, Some(review.by), Some(review.at)),
        };
        NewRow {
            address: NetValue(new.address),
            rule: new.rule.as_str(),
            status: status.as_str(),
            first_seen: TsValue(new.first_seen),
            last_seen: TsValue(new.last_seen),
            hits: new.hits,
            evidence: JsonValue(new.evidence),
            reviewed_by: by,
            reviewed_at: at.into(),
        }
    }
}

/// Sets what is known of an open row; one that was reviewed in between stays as it is.
///
/// # Errors
/// As any statement.
pub async fn update(conn: &mut Conn, id: i64, new: NewSuspiciousIp) -> Result<(), DbError> {
    let row = dsl::suspicious_ips.find(id).filter(dsl::status.eq(Status::Open.as_str()));
    on!(conn, |c| diesel::update(row)
        .set((
            dsl::first_seen.eq(TsValue(new.first_seen)),
            dsl::last_seen.eq(TsValue(new.last_seen)),
            dsl::hits.eq(new.hits),
            dsl::evidence.eq(JsonValue(new.evidence)),
        ))
        .execute(c)
        .await)?;
    Ok(())
}

/// All rows whose address lies within `network`.
///
/// # Errors
/// As any statement.
pub async fn inside(conn: &mut Conn, network: Network) -> Result<Vec<SuspiciousIp>, DbError> {
    let rows = dsl::suspicious_ips
        .filter(dsl::address.ge(NetValue(network)))
        .filter(dsl::address.le(NetValue(Network::from(network.last_address()))))
        .order(dsl::id);
    let rows: Vec<Row> = on!(conn, |c| rows.load(c).await)?;
    rows.into_iter().map(Row::read).collect()
}

/// Deletes a row.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut Conn, id: i64) -> Result<(), DbError> {
    on!(conn, |c| diesel::delete(dsl::suspicious_ips.find(id)).execute(c).await)?;
    Ok(())
}

/// Gives a row, reviewed or not, other evidence.
///
/// # Errors
/// As any statement.
pub async fn set_evidence(
    conn: &mut Conn,
    id: i64,
    evidence: serde_json::Value,
) -> Result<(), DbError> {
    let set = dsl::evidence.eq(JsonValue(evidence));
    on!(conn, |c| diesel::update(dsl::suspicious_ips.find(id)).set(set).execute(c).await)?;
    Ok(())
}

/// Closes an open row; `None` if there is none with this id or it was reviewed before.
///
/// # Errors
/// As any statement.
pub async fn review(
    conn: &mut Conn,
    id: i64,
    review: &Review,
) -> Result<Option<SuspiciousIp>, DbError> {
    let row = dsl::suspicious_ips.find(id).filter(dsl::status.eq(Status::Open.as_str()));
    let row: Option<Row> = on!(conn, |c| diesel::update(row)
        .set((
            dsl::status.eq(review.status.as_str()),
            dsl::reviewed_by.eq(review.by.clone()),
            dsl::reviewed_at.eq(MaybeTs::from(Some(review.at))),
        ))
        .get_result(c)
        .await
        .optional())?;
    row.map(Row::read).transpose()
}

/// The row with this id.
///
/// # Errors
/// As any statement.
pub async fn find(conn: &mut Conn, id: i64) -> Result<Option<SuspiciousIp>, DbError> {
    let row: Option<Row> = on!(conn, |c| dsl::suspicious_ips.find(id).first(c).await.optional())?;
    row.map(Row::read).transpose()
}

/// Up to `limit` rows with ids below `before`, newest first; all of them for no `status`.
///
/// # Errors
/// As any statement.
pub async fn page(
    conn: &mut Conn,
    status: Option<Status>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<SuspiciousIp>, DbError> {
    let wanted: Vec<&'static str> = match status {
        Some(status) => vec![status.as_str()],
        None => vec!["open", "blocked", "dismissed"],
    };
    let rows = dsl::suspicious_ips
        .filter(dsl::status.eq_any(wanted))
        .filter(dsl::id.lt(before.unwrap_or(i64::MAX)))
        .order(dsl::id.desc())
        .limit(limit);
    let rows: Vec<Row> = on!(conn, |c| rows.load(c).await)?;
    rows.into_iter().map(Row::read).collect()
}

/// The rows whose address contains all of `network`, newest first: what a check of it has to tell.
///
/// # Errors
/// As any statement.
pub async fn about(
    conn: &mut Conn,
    network: Network,
    limit: i64,
) -> Result<Vec<SuspiciousIp>, DbError> {
    let wider: Vec<NetValue> = (0..=network.prefix())
        .filter_map(|prefix| Network::new(network.address(), prefix).ok())
        .map(NetValue)
        .collect();
    let rows =
        dsl::suspicious_ips.filter(dsl::address.eq_any(wider)).order(dsl::id.desc()).limit(limit);
    let rows: Vec<Row> = on!(conn, |c| rows.load(c).await)?;
    rows.into_iter().map(Row::read).collect()
}
