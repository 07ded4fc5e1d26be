//! What the scan asks of `request_logs`: who sent how much, and who tried sensitive paths.
//!
//! The statements are written for each database in its own words, with every bound a literal: so
//! PostgreSQL plans for the partitions that matter and no others. Text that came from a client
//! never becomes part of them.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, SmallInt, Text};
use diesel_async::RunQueryDsl;
use ipwarden_engine::network::Network;

use super::schema::request_logs;
use super::types::{Addr, AddrValue, Net, NetValue, Ts, TsValue};
use super::words::Words;
use super::{Conn, DbError, anonymised};
use crate::detect::{Counted, Rules, SAMPLE_SIZE, Sampled, Traffic, Window};

/// Counts what the rules judge in one window. Requests of trusted proxies do not count, nor do those whose
/// address was cut.
///
/// # Errors
/// As any statement.
pub async fn of_window(
    conn: &mut Conn,
    window: Window,
    rules: &Rules,
    trusted: &[Network],
) -> Result<Traffic, DbError> {
    let mut others = Words::of(conn).without(trusted);
    let cut = anonymised::until(conn).await?;
    if cut.is_some_and(|until| window.start() - rules.span < until) {
        // An address that was the first of its network before is taken for one that was cut.
        others.push_str(" and address <> ");
        others.push_str(anonymised::cut(conn));
    }
    let mut volume = volume(conn, window, rules, &others).await?;
    for counted in &mut volume {
        counted.sample = sample(conn, counted, &others).await?;
    }
    Ok(Traffic { volume, sensitive: sensitive(conn, window, &others).await? })
}

/// The requests of one address for sensitive paths from `first` to `last`, both included.
///
/// # Errors
/// As any statement.
pub async fn sensitive_hits(
    conn: &mut Conn,
    address: IpAddr,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
) -> Result<i64, DbError> {
    let hits = request_logs::table
        .filter(request_logs::address.eq(AddrValue(address)))
        .filter(request_logs::at.ge(TsValue(first)))
        .filter(request_logs::at.le(TsValue(last)))
        .filter(request_logs::sensitive)
        .filter(request_logs::verdict.ne("blocked"))
        .count();
    on!(conn, |c| hits.get_result(c).await)
}

#[derive(QueryableByName)]
struct PostgresVolume {
    #[diesel(sql_type = Net)]
    network: NetValue,
    #[diesel(sql_type = BigInt)]
    requests: i64,
    #[diesel(sql_type = Ts)]
    first_seen: TsValue,
    #[diesel(sql_type = Ts)]
    last_seen: TsValue,
}

#[derive(QueryableByName)]
struct SqliteVolume {
    /// The 17 bytes of an IPv4 address, or the first 9 of an IPv6 address: family and /64.
    #[diesel(sql_type = Binary)]
    network: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    requests: i64,
    #[diesel(sql_type = Ts)]
    first_seen: TsValue,
    #[diesel(sql_type = Ts)]
    last_seen: TsValue,
}

/// The networks with more requests within some span than the rule admits, in two steps: first who sent so
/// many at all, at the price of one count by address; only their requests, which the index by address
/// gives in order, are then counted span by span.
async fn volume(
    conn: &mut Conn,
    window: Window,
    rules: &Rules,
    others: &str,
) -> Result<Vec<Counted>, DbError> {
    let words = Words::of(conn);
    let Words { network, first_address, last_address, .. } = words;
    let limit = rules.max_requests;
    let from = words.instant(window.start() - rules.span);
    let (start, end) = (words.instant(window.start()), words.instant(window.end()));
    // Less than the span apart, which is a whole number of microseconds.
    let within = words.microseconds(rules.span - TimeDelta::microseconds(1));
    let judged = format!("at > {from} and at < {end} and verdict <> 'blocked'{others}");
    let query = format!(
        "with busy as (
            select {network} as network
            from (
                select address, count(*) as requests from request_logs where {judged} group by address
            ) each
            group by 1 having sum(requests) > {limit}
        ), spans as (
            select network, at, count(*) over span as requests, min(at) over span as first_seen
            from busy cross join request_logs
            where address between {first_address} and {last_address} and {judged}
            window span as (
                partition by network order by at range between {within} preceding and current row)
        )
        select network, max(requests) as requests, min(first_seen) as first_seen,
            max(at) as last_seen
        from spans where at >= {start} and requests > {limit} group by network"
    );
    match conn {
        Conn::Postgres(c) => {
            let rows: Vec<PostgresVolume> = diesel::sql_query(query).load(c).await?;
            Ok(rows
                .into_iter()
                .map(|row| counted(row.network.0, row.requests, row.first_seen.0, row.last_seen.0))
                .collect())
        }
        Conn::Sqlite(c) => {
            let rows: Vec<SqliteVolume> = diesel::sql_query(query).load(c).await?;
            Ok(rows
                .into_iter()
                .filter_map(|row| {
                    let network = network_of(&row.network)?;
                    Some(counted(network, row.requests, row.first_seen.0, row.last_seen.0))
                })
                .collect())
        }
    }
}

fn counted(network: Network, requests: i64, first: DateTime<Utc>, last: DateTime<Utc>) -> Counted {
    Counted { network, requests: requests.unsigned_abs(), first, last, sample: Vec::new() }
}

/// `None` for what is no address at all, which nothing here writes.
fn network_of(bytes: &[u8]) -> Option<Network> {
    let (family, octets) = bytes.split_first()?;
    match (family, octets.len()) {
        (4, 16) => {
            let octets: [u8; 4] = octets[12..].try_into().ok()?;
            Some(Network::from(IpAddr::from(octets)))
        }
        (6, 8) => {
            let mut first = [0; 16];
            first[..8].copy_from_slice(octets);
            Network::new(IpAddr::from(first), 64).ok()
        }
        _ => None,
    }
}

/// The newest requests that were counted.
async fn sample(conn: &mut Conn, counted: &Counted, others: &str) -> Result<Vec<Sampled>, DbError> {
    // A proxy may live in the /64 of its clients.
    let of_others = format!("true{others}");
    let newest = request_logs::table
        .filter(request_logs::address.ge(AddrValue(counted.network.address())))
        .filter(request_logs::address.le(AddrValue(counted.network.last_address())))
        .filter(request_logs::at.ge(TsValue(counted.first)))
        .filter(request_logs::at.le(TsValue(counted.last)))
        .filter(request_logs::verdict.ne("blocked"))
        .filter(sql::<Bool>(&of_others))
        .order((request_logs::at.desc(), request_logs::id.desc()))
        .limit(SAMPLE_SIZE as i64)
        .select((
            request_logs::at,
            request_logs::address,
            request_logs::method,
            request_logs::path,
            request_logs::status,
            request_logs::verdict,
            request_logs::country,
            request_logs::city,
        ));
    let rows: Vec<SampledRow> = on!(conn, |c| newest.load(c).await)?;
    Ok(rows.into_iter().map(Sampled::from).collect())
}

#[derive(Queryable)]
struct SampledRow {
    at: TsValue,
    address: AddrValue,
    method: String,
    path: String,
    status: i16,
    verdict: String,
    country: Option<String>,
    city: Option<String>,
}

impl From<SampledRow> for Sampled {
    fn from(row: SampledRow) -> Sampled {
        Sampled {
            at: row.at.0,
            address: row.address.0,
            method: row.method,
            path: row.path,
            status: row.status.unsigned_abs(),
            verdict: row.verdict,
            country: row.country,
            city: row.city,
        }
    }
}

#[derive(QueryableByName)]
struct SensitiveRow {
    #[diesel(sql_type = Addr)]
    address: AddrValue,
    #[diesel(sql_type = BigInt)]
    requests: i64,
    #[diesel(sql_type = Ts)]
    first_seen: TsValue,
    #[diesel(sql_type = Ts)]
    last_seen: TsValue,
    #[diesel(sql_type = Ts)]
    at: TsValue,
    #[diesel(sql_type = Text)]
    method: String,
    #[diesel(sql_type = Text)]
    path: String,
    #[diesel(sql_type = SmallInt)]
    status: i16,
    #[diesel(sql_type = Text)]
    verdict: String,
    #[diesel(sql_type = Nullable<Text>)]
    country: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    city: Option<String>,
}

/// The addresses that asked for sensitive paths, with their newest such requests, in one pass.
async fn sensitive(conn: &mut Conn, window: Window, others: &str) -> Result<Vec<Counted>, DbError> {
    let words = Words::of(conn);
    let (start, end) = (words.instant(window.start()), words.instant(window.end()));
    let query = format!(
        "select * from (
            select address, at, method, path, status, verdict, country, city,
                count(*) over (partition by address) as requests,
                min(at) over (partition by address) as first_seen,
                max(at) over (partition by address) as last_seen,
                row_number() over (partition by address order by at desc, id desc) as place
            from request_logs
            where at >= {start} and at < {end} and sensitive and verdict <> 'blocked'{others}
        ) tried where place <= {SAMPLE_SIZE} order by address, place"
    );
    let rows: Vec<SensitiveRow> = on!(conn, |c| diesel::sql_query(query).load(c).await)?;
    let mut all: Vec<Counted> = Vec::new();
    for row in rows {
        let network = Network::from(row.address.0);
        if all.last().is_none_or(|last| last.network != network) {
            all.push(counted(network, row.requests, row.first_seen.0, row.last_seen.0));
        }
        let of_address = all.last_mut().expect("one was just put there");
        of_address.sample.push(
            SampledRow {
                at: row.at,
                address: row.address,
                method: row.method,
                path: row.path,
                status: row.status,
                verdict: row.verdict,
                country: row.country,
                city: row.city,
            }
            .into(),
        );
    }
    Ok(all)
}
