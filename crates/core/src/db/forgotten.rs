//! `forgotten` and `forgotten_nodes`: what nothing is to be kept of, and which nodes have let go of it.
//!
//! The network itself stands in a row until all nodes have confirmed. Its digest stays for [`KEPT`]: a
//! record from before that comes late, out of the spool of a node that was away, is known by it and not
//! stored. Every transaction that writes records reads these rows, and [`lock`] waits for all that did:
//! so whatever is deleted after that cannot be written by somebody who did not know.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use ipwarden_engine::network::{Network, canonical};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::schema::{forgotten, forgotten_nodes};
use super::types::{MaybeNet, MaybeTs, NetValue, TsValue};
use super::{Client, Conn, DbError};

/// For how long late records are known: as long as the position of a segment is remembered.
pub const KEPT: TimeDelta = TimeDelta::days(35);

/// By what a late record is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Tombstone {
    /// What was recorded of it before is to be forgotten; by the store's clock.
    pub at: DateTime<Utc>,
    prefix: i16,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

/// A row without what is secret about it.
#[derive(Clone, Debug, PartialEq, Queryable, Serialize)]
pub struct Forgotten {
    /// Of the row.
    pub id: i64,
    /// `None` once all nodes have confirmed.
    #[diesel(deserialize_as = MaybeNet)]
    pub network: Option<Network>,
    /// What was recorded of it before is to be forgotten; by the store's clock.
    #[diesel(deserialize_as = TsValue)]
    pub at: DateTime<Utc>,
    /// Of the change in `list_changes`.
    pub version: i64,
    /// Who wanted it.
    pub created_by: String,
    /// When the tables held nothing of it any more; `None` while they may.
    #[diesel(deserialize_as = MaybeTs)]
    pub erased_at: Option<DateTime<Utc>>,
    /// When the last node had confirmed.
    #[diesel(deserialize_as = MaybeTs)]
    pub settled_at: Option<DateTime<Utc>>,
}

/// The columns of [`Forgotten`].
const SHOWN: (
    forgotten::id,
    forgotten::network,
    forgotten::at,
    forgotten::version,
    forgotten::created_by,
    forgotten::erased_at,
    forgotten::settled_at,
) = (
    forgotten::id,
    forgotten::network,
    forgotten::at,
    forgotten::version,
    forgotten::created_by,
    forgotten::erased_at,
    forgotten::settled_at,
);

impl Tombstone {
    /// Whether a record of `address` that was made at `at` is to be forgotten.
    pub fn takes(&self, address: IpAddr, at: DateTime<Utc>) -> bool {
        at < self.at && self.covers(Network::from(address))
    }

    /// Whether it is about all of `network`.
    pub fn covers(&self, network: Network) -> bool {
        let prefix = u8::try_from(self.prefix).unwrap_or(u8::MAX);
        network.prefix() >= prefix
            && Network::new(canonical(network.address()), prefix)
                .is_ok_and(|wider| digest(&self.salt, wider) == *self.digest)
    }
}

fn digest(salt: &[u8], network: Network) -> [u8; 32] {
    let (first, _) = network.first_last();
    let mut digest = Sha256::new();
    digest.update(salt);
    digest.update(first.to_be_bytes());
    digest.update([network.prefix(), network.is_ipv6().into()]);
    digest.finalize().into()
}

/// Waits for everybody who reads these rows in a transaction, and lets nobody do so until this one ends.
///
/// # Errors
/// As any statement.
pub async fn lock(conn: &mut Conn) -> Result<(), DbError> {
    match conn {
        Conn::Postgres(_) => conn.batch("lock table forgotten in access exclusive mode").await,
        // There is one writer.
        Conn::Sqlite(_) => Ok(()),
    }
}

/// Adds a row, in place of one of the same network that not all nodes have confirmed. Returns its id.
/// Belongs behind [`lock`].
///
/// # Errors
/// As any statement.
pub async fn insert(
    conn: &mut Conn,
    network: Network,
    salt: [u8; 16],
    (version, created_by): (i64, &str),
    at: DateTime<Utc>,
) -> Result<i64, DbError> {
    let same = forgotten::table.filter(forgotten::network.eq(MaybeNet::from(Some(network))));
    on!(conn, |c| diesel::delete(same).execute(c).await)?;
    let row = (
        forgotten::network.eq(MaybeNet::from(Some(network))),
        forgotten::prefix.eq(i16::from(network.prefix())),
        forgotten::salt.eq(salt.to_vec()),
        forgotten::digest.eq(digest(&salt, network).to_vec()),
        forgotten::at.eq(TsValue(at)),
        forgotten::version.eq(version),
        forgotten::created_by.eq(created_by.to_owned()),
    );
    on!(conn, |c| diesel::insert_into(forgotten::table)
        .values(row)
        .returning(forgotten::id)
        .get_result(c)
        .await)
}

/// What was forgotten after `at`, which is what may take a record of then.
///
/// # Errors
/// As any statement.
pub async fn since(conn: &mut Conn, at: DateTime<Utc>) -> Result<Vec<Tombstone>, DbError> {
    let rows = forgotten::table.filter(forgotten::at.gt(TsValue(at))).select((
        forgotten::at,
        forgotten::prefix,
        forgotten::salt,
        forgotten::digest,
    ));
    let rows: Vec<(TsValue, i16, Vec<u8>, Vec<u8>)> = on!(conn, |c| rows.load(c).await)?;
    let tombstone = |(at, prefix, salt, digest): (TsValue, _, _, _)| Tombstone {
        at: at.0,
        prefix,
        salt,
        digest,
    };
    Ok(rows.into_iter().map(tombstone).collect())
}

/// The same as [`since`], where a batch is copied.
///
/// # Errors
/// As any statement.
pub(super) async fn since_by(
    client: &Client,
    at: DateTime<Utc>,
) -> Result<Vec<Tombstone>, DbError> {
    let sql = "select at, prefix, salt, digest from forgotten where at > $1";
    let rows = client.rows(sql, &[(&at, Type::TIMESTAMPTZ)]).await?;
    let tombstone = |row: Row| Tombstone {
        at: row.get(0),
        prefix: row.get(1),
        salt: row.get(2),
        digest: row.get(3),
    };
    Ok(rows.into_iter().map(tombstone).collect())
}

/// Says that the tables hold nothing of it any more.
///
/// # Errors
/// As any statement.
pub async fn erased(conn: &mut Conn, id: i64, at: DateTime<Utc>) -> Result<(), DbError> {
    let set = forgotten::erased_at.eq(MaybeTs::from(Some(at)));
    on!(conn, |c| diesel::update(forgotten::table.find(id)).set(set).execute(c).await)?;
    Ok(())
}

/// What `node` has not confirmed, the oldest first.
///
/// # Errors
/// As any statement.
pub async fn unconfirmed(conn: &mut Conn, node: &str) -> Result<Vec<Forgotten>, DbError> {
    let confirmed = forgotten_nodes::table
        .filter(forgotten_nodes::node.eq(node.to_owned()))
        .select(forgotten_nodes::forgotten_id);
    let rows =
        forgotten::table.filter(forgotten::id.ne_all(confirmed)).order(forgotten::id).select(SHOWN);
    on!(conn, |c| rows.load(c).await)
}

/// Says that `node` holds nothing of these any more.
///
/// # Errors
/// As any statement.
pub async fn confirm(
    conn: &mut Conn,
    ids: &[i64],
    node: &str,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    for id in ids {
        let row = (
            forgotten_nodes::forgotten_id.eq(*id),
            forgotten_nodes::node.eq(node.to_owned()),
            forgotten_nodes::confirmed_at.eq(TsValue(at)),
        );
        on!(conn, |c| diesel::insert_into(forgotten_nodes::table)
            .values(row)
            .on_conflict_do_nothing()
            .execute(c)
            .await)?;
    }
    Ok(())
}

/// All rows, the newest first.
///
/// # Errors
/// As any statement.
pub async fn all(conn: &mut Conn) -> Result<Vec<Forgotten>, DbError> {
    let rows = forgotten::table.order(forgotten::id.desc()).select(SHOWN);
    on!(conn, |c| rows.load(c).await)
}

/// Which nodes have confirmed a row, and when.
///
/// # Errors
/// As any statement.
pub async fn confirmations(
    conn: &mut Conn,
    id: i64,
) -> Result<Vec<(String, DateTime<Utc>)>, DbError> {
    let rows = forgotten_nodes::table
        .filter(forgotten_nodes::forgotten_id.eq(id))
        .order((forgotten_nodes::confirmed_at, forgotten_nodes::node))
        .select((forgotten_nodes::node, forgotten_nodes::confirmed_at));
    let rows: Vec<(String, TsValue)> = on!(conn, |c| rows.load(c).await)?;
    Ok(rows.into_iter().map(|(node, at)| (node, at.0)).collect())
}

/// Empties the networks of rows that lie within `network`.
///
/// # Errors
/// As any statement.
pub async fn settle(conn: &mut Conn, network: Network, at: DateTime<Utc>) -> Result<(), DbError> {
    let rows = forgotten::table
        .filter(forgotten::network.ge(NetValue(network)))
        .filter(forgotten::network.le(NetValue(Network::from(network.last_address()))));
    let set = (
        forgotten::network.eq(MaybeNet::from(None)),
        forgotten::settled_at.eq(MaybeTs::from(Some(at))),
    );
    on!(conn, |c| diesel::update(rows).set(set).execute(c).await)?;
    Ok(())
}

/// Deletes settled rows from before `before`.
///
/// # Errors
/// As any statement.
pub async fn prune(conn: &mut Conn, before: DateTime<Utc>) -> Result<usize, DbError> {
    let old = forgotten::table
        .filter(forgotten::at.lt(TsValue(before)))
        .filter(forgotten::settled_at.is_not_null())
        .select(forgotten::id);
    let ids: Vec<i64> = on!(conn, |c| old.load(c).await)?;
    let nodes = forgotten_nodes::table.filter(forgotten_nodes::forgotten_id.eq_any(ids.clone()));
    on!(conn, |c| diesel::delete(nodes).execute(c).await)?;
    let rows = forgotten::table.filter(forgotten::id.eq_any(ids));
    on!(conn, |c| diesel::delete(rows).execute(c).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_takes_what_came_before_it_from_its_network_alone() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let of = |text: &str| {
            let network: Network = text.parse().unwrap();
            let salt = vec![7; 16];
            let digest = digest(&salt, network).to_vec();
            Tombstone { at: at(100), prefix: network.prefix().into(), salt, digest }
        };
        for (network, address, taken) in [
            ("203.0.113.9", "203.0.113.9", true),
            ("203.0.113.9", "::ffff:203.0.113.9", true),
            ("203.0.113.9", "203.0.113.8", false),
            ("203.0.113.0/24", "203.0.113.255", true),
            ("203.0.113.0/24", "203.0.112.255", false),
            ("2001:db8::/64", "2001:db8::7", true),
            ("2001:db8::/64", "2001:db8:0:1::7", false),
            ("2001:db8::/64", "203.0.113.9", false),
            ("203.0.113.0/24", "2001:db8::7", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(of(network).takes(address, at(99)), taken, "{network} {address}");
            assert!(!of(network).takes(address, at(100)), "{network} {address}");
        }
        assert!(!of("203.0.113.9").covers("203.0.113.0/24".parse().unwrap()));
    }
}
