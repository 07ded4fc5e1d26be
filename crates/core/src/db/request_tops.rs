//! `request_tops` and `request_floors`: the busiest of each hour, and how many requests one may have had that
//! is not among them.
//!
//! Statements on the log are written for each database in its own words, with every bound a literal, as
//! those of the scan are.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use ipwarden_engine::network::Network;
use serde::Serialize;

use super::request_hours::{COUNTS, Counts, Part};
use super::schema::{request_floors, request_tops};
use super::types::{Ts, TsValue, from_family_and_octets};
use super::words::{Words, blob};
use super::{Conn, DbError, forgotten};
use crate::stats::Dimension;

/// Of each dimension so many are kept an hour. All statuses are fewer.
const KEPT: usize = 1_000;

/// Rows of one statement: far below the 32,766 parameters of SQLite.
const AT_ONCE: usize = 500;

/// What is kept of one dimension of one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tops {
    dimension: Dimension,
    rows: Vec<Counted>,
    /// Nothing that is not among the rows had more requests.
    floor: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
struct Counted {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(embed)]
    counts: Counts,
}

/// One of the busiest of some hours.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct Busiest {
    /// As people write it.
    #[diesel(sql_type = Text)]
    pub key: String,
    /// At least so many.
    #[diesel(embed)]
    pub counts: Counts,
    /// The floors of the hours that it was kept of, together.
    #[diesel(sql_type = BigInt)]
    pub floors: i64,
}

/// A row about addresses.
#[derive(Clone, Debug, PartialEq, QueryableByName, Serialize)]
pub struct OfHour {
    /// `address` or `network`.
    #[diesel(sql_type = Text)]
    pub dimension: String,
    /// Its start, UTC.
    #[diesel(sql_type = Ts, deserialize_as = TsValue)]
    pub hour: DateTime<Utc>,
    /// As people write it.
    #[diesel(sql_type = Text)]
    pub key: String,
    /// Of every verdict.
    #[diesel(sql_type = BigInt)]
    pub requests: i64,
    /// Answered with 403.
    #[diesel(sql_type = BigInt)]
    pub blocked: i64,
    /// Answered with 429.
    #[diesel(sql_type = BigInt)]
    pub throttled: i64,
}

#[derive(Insertable)]
#[diesel(table_name = request_tops, treat_none_as_default_value = false)]
struct NewTop {
    dimension: &'static str,
    hour: TsValue,
    key: String,
    requests: i64,
    blocked: i64,
    throttled: i64,
}

/// Counts one dimension of a part of the log.
///
/// # Errors
/// As any statement.
pub async fn count(conn: &mut Conn, dimension: Dimension, part: Part) -> Result<Tops, DbError> {
    let words = Words::of(conn);
    let grouped = grouped(&words, dimension, part);
    let most = KEPT + 1;
    let grouped = format!("{grouped} order by requests desc, raw limit {most}");
    let query = named(&words, dimension, &grouped, "");
    let mut rows: Vec<Counted> = on!(conn, |c| diesel::sql_query(query).load(c).await)?;
    rows.sort_by_key(|row| -row.counts.requests);
    let floor = rows.get(KEPT).map_or(0, |first_left_away| first_left_away.counts.requests);
    rows.truncate(KEPT);
    Ok(Tops { dimension, rows, floor })
}

/// Keeps what was counted of an hour, of which nothing is kept: [`remove_hour`] comes before. What was
/// forgotten while it was counted, in that hour or later, is left out.
///
/// # Errors
/// As any statement.
pub async fn put(conn: &mut Conn, hour: DateTime<Utc>, tops: Tops) -> Result<(), DbError> {
    let Tops { dimension, rows, floor } = tops;
    let forgotten = match dimension.is_of_addresses() {
        true => forgotten::since(conn, hour).await?,
        false => Vec::new(),
    };
    let of_sqlite = matches!(conn, Conn::Sqlite(_));
    let is_kept = |row: &Counted| {
        let read = || if of_sqlite { network_of(&row.key) } else { row.key.parse().ok() };
        forgotten.is_empty()
            || read().is_none_or(|network| !forgotten.iter().any(|one| one.covers(network)))
    };
    let dimension = dimension.as_str();
    let mut rows = rows.into_iter().filter(is_kept).peekable();
    while rows.peek().is_some() {
        let some = rows.by_ref().take(AT_ONCE).map(|Counted { key, counts }| NewTop {
            dimension,
            hour: TsValue(hour),
            key,
            requests: counts.requests,
            blocked: counts.blocked,
            throttled: counts.throttled,
        });
        let insert = diesel::insert_into(request_tops::table).values(some.collect::<Vec<_>>());
        match conn {
            Conn::Postgres(c) => insert.execute(c).await?,
            Conn::Sqlite(c) => insert_batch!(c, insert)?,
        };
    }
    if floor > 0 {
        let row = (
            request_floors::dimension.eq(dimension),
            request_floors::hour.eq(TsValue(hour)),
            request_floors::floor.eq(floor),
        );
        let insert = diesel::insert_into(request_floors::table).values(row);
        on!(conn, |c| insert.execute(c).await)?;
    }
    Ok(())
}

/// Forgets an hour.
///
/// # Errors
/// As any statement.
pub async fn remove_hour(conn: &mut Conn, hour: DateTime<Utc>) -> Result<(), DbError> {
    // The keys begin with the dimension.
    let all = Dimension::ALL.map(Dimension::as_str);
    let tops = request_tops::table
        .filter(request_tops::dimension.eq_any(all))
        .filter(request_tops::hour.eq(TsValue(hour)));
    on!(conn, |c| diesel::delete(tops).execute(c).await)?;
    let floors = request_floors::table
        .filter(request_floors::dimension.eq_any(all))
        .filter(request_floors::hour.eq(TsValue(hour)));
    on!(conn, |c| diesel::delete(floors).execute(c).await)?;
    Ok(())
}

/// Forgets which addresses were the busiest of the hours before `before`; their networks stay. What
/// `request_log.anonymise_after` asks for.
///
/// # Errors
/// As any statement.
pub async fn anonymise(conn: &mut Conn, before: DateTime<Utc>) -> Result<usize, DbError> {
    let rows = request_tops::table
        .filter(request_tops::dimension.eq(Dimension::Address.as_str()))
        .filter(request_tops::hour.lt(TsValue(before)));
    on!(conn, |c| diesel::delete(rows).execute(c).await)
}

/// Forgets addresses: returns how many rows that were, of all hours.
///
/// # Errors
/// As any statement.
pub async fn forget(conn: &mut Conn, network: Network) -> Result<usize, DbError> {
    let condition = within(&Words::of(conn), network);
    let query = format!("delete from request_tops where {condition}");
    on!(conn, |c| diesel::sql_query(query).execute(c).await)
}

/// How often addresses asked in the hours of which they were among the busiest, oldest first.
///
/// # Errors
/// As any statement.
pub async fn inside(conn: &mut Conn, network: Network) -> Result<Vec<OfHour>, DbError> {
    let words = Words::of(conn);
    let condition = within(&words, network);
    let query = format!(
        "select dimension, hour, key, requests, blocked, throttled from request_tops \
         where {condition} order by hour, dimension, key"
    );
    let mut rows: Vec<OfHour> = on!(conn, |c| diesel::sql_query(query).load(c).await)?;
    for row in rows.iter_mut().filter(|_| !words.postgres) {
        row.key = network_of(&row.key).map_or_else(String::new, |network| network.to_string());
    }
    Ok(rows)
}

/// Of which rows the key lies within `network`.
fn within(words: &Words, network: Network) -> String {
    if words.postgres {
        // The cast is for the keys of these dimensions alone.
        return format!(
            "dimension in ('address', 'network') and case when dimension in ('address', 'network') \
                then key::inet <<= '{network}'::inet end"
        );
    }
    let (first, last) = (blob(network.address()), blob(network.last_address()));
    let mut condition =
        format!("dimension = 'address' and key between hex({first}) and hex({last})");
    let (prefix, length) = if network.is_ipv6() { (48, 14) } else { (24, 32) };
    if network.prefix() <= prefix {
        condition += &format!(
            " or dimension = 'network' and key between substr(hex({first}), 1, {length}) \
                and substr(hex({last}), 1, {length})"
        );
    }
    condition
}

/// The busiest of the hours that start in `[from, to)` as they were counted, together with `parts` of the
/// log as it is.
///
/// # Errors
/// As any statement.
pub async fn busiest(
    conn: &mut Conn,
    dimension: Dimension,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    parts: &[Part],
    limit: u32,
) -> Result<Vec<Busiest>, DbError> {
    let words = Words::of(conn);
    let of = dimension.as_str();
    let (from, to) = (words.instant(from), words.instant(to));
    let mut sources = vec![format!(
        "select top.key as key, top.requests as requests, top.blocked as blocked, \
            top.throttled as throttled, coalesce(kept.floor, 0) as floor \
         from request_tops top left join request_floors kept \
            on kept.dimension = top.dimension and kept.hour = top.hour \
         where top.dimension = '{of}' and top.hour >= {from} and top.hour < {to}"
    )];
    sources.extend(parts.iter().map(|part| {
        let grouped = grouped(&words, dimension, *part);
        named(&words, dimension, &grouped, ", 0 as floor")
    }));
    let sources = sources.join(" union all ");
    let query = format!(
        "select key, cast(sum(requests) as bigint) as requests, \
            cast(sum(blocked) as bigint) as blocked, \
            cast(sum(throttled) as bigint) as throttled, cast(sum(floor) as bigint) as floors \
         from ({sources}) sources group by key order by 2 desc, 1 limit {limit}"
    );
    let mut rows: Vec<Busiest> = on!(conn, |c| diesel::sql_query(query).load(c).await)?;
    if !words.postgres {
        for row in &mut rows {
            if let (true, Some(network)) = (dimension.is_of_addresses(), network_of(&row.key)) {
                row.key = network.to_string();
            }
        }
    }
    Ok(rows)
}

/// The floors of a dimension in the hours that start in `[from, to)`, together.
///
/// # Errors
/// As any statement.
pub async fn floors(
    conn: &mut Conn,
    dimension: Dimension,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<i64, DbError> {
    let floors = request_floors::table
        .filter(request_floors::dimension.eq(dimension.as_str()))
        .filter(request_floors::hour.ge(TsValue(from)))
        .filter(request_floors::hour.lt(TsValue(to)))
        .select(request_floors::floor);
    let floors: Vec<i64> = on!(conn, |c| floors.load(c).await)?;
    Ok(floors.iter().sum())
}

/// What a part of the log comes to by the raw value of a dimension.
fn grouped(words: &Words, dimension: Dimension, part: Part) -> String {
    let (column, raw) = match (dimension, words.postgres) {
        (Dimension::Network, true) => (
            "address",
            "network(set_masklen(address, case family(address) when 4 then 24 else 48 end))",
        ),
        (Dimension::Network, false) => (
            "address",
            "case substr(address, 1, 1) when x'04' then substr(address, 1, 16) \
                else substr(address, 1, 7) end",
        ),
        (dimension, _) => (dimension.as_str(), dimension.as_str()),
    };
    let condition = part.condition(words);
    format!(
        "select {raw} as raw, {COUNTS} from request_logs \
         where {condition} and {column} is not null group by 1"
    )
}

/// The same by its text, which is made of the few groups and not of every record.
fn named(words: &Words, dimension: Dimension, grouped: &str, more: &str) -> String {
    let key = match (dimension, words.postgres) {
        (Dimension::Address, true) => "host(raw)",
        (dimension, false) if dimension.is_of_addresses() => "hex(raw)",
        _ => "cast(raw as text)",
    };
    format!("select {key} as key, requests, blocked, throttled{more} from ({grouped}) grouped")
}

/// A network by the hex of the bytes that it fixes, the family's first; `None` for what is none.
fn network_of(hex: &str) -> Option<Network> {
    let octet = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let mut bytes = (0..hex.len()).step_by(2).map(octet).collect::<Option<Vec<u8>>>()?;
    let prefix = match (bytes.split_first()?.0, bytes.len()) {
        (4, 17) => 32,
        (4, 16) => 24,
        (6, 17) => 128,
        (6, 7) => 48,
        _ => return None,
    };
    bytes.resize(17, 0);
    Network::new(from_family_and_octets(&bytes).ok()?, prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_from_the_bytes_that_it_fixes() {
        for (hex, network) in [
            ("0400000000000000000000FFFFCB007109", Some("203.0.113.9")),
            ("0400000000000000000000FFFFCB0071", Some("203.0.113.0/24")),
            ("0620010DB8000000000000000000000007", Some("2001:db8::7")),
            ("0620010DB80001", Some("2001:db8:1::/48")),
            ("0620010DB8", None),
            ("04", None),
            ("xx", None),
            ("", None),
        ] {
            let read = network_of(hex).map(|network| network.to_string());
            assert_eq!(read.as_deref(), network, "{hex}");
        }
    }
}
