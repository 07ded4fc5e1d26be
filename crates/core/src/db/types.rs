//! SQL types of our own, each mapped to what the two databases have.
//!
//! | type | PostgreSQL | SQLite | Rust |
//! |---|---|---|---|
//! | [`Addr`] | `inet` | 17 bytes: family (4 or 6), 16 bytes (IPv4 mapped) | [`IpAddr`] |
//! | [`Net`] | `cidr` | 18 bytes: the same, and the prefix length | [`Network`] |
//! | [`Ts`] | `timestamptz` | microseconds since the Unix epoch | [`DateTime<Utc>`] |
//! | [`Json`] | `jsonb` | text | [`serde_json::Value`] |
//!
//! The bytes in SQLite sort as the addresses do, so "inside a network" is a range in both databases,
//! served by the index. PostgreSQL's types are named by oid, which spares a look-up per connection.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, Utc};
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{self, Nullable, SqlType};
use diesel::sqlite::Sqlite;
use ipwarden_engine::network::Network;

/// One address: `inet` or 17 bytes.
#[derive(Debug, Clone, Copy, SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(oid = 869, array_oid = 1041))]
#[diesel(sqlite_type(name = "Binary"))]
pub struct Addr;

/// An address or a CIDR: `cidr` or 18 bytes.
#[derive(Debug, Clone, Copy, SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(oid = 650, array_oid = 651))]
#[diesel(sqlite_type(name = "Binary"))]
pub struct Net;

/// An instant in UTC: `timestamptz` or microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Long"))]
pub struct Ts;

/// A JSON value: `jsonb` or text.
#[derive(Debug, Clone, Copy, SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(oid = 3802, array_oid = 3807))]
#[diesel(sqlite_type(name = "Text"))]
pub struct Json;

impl sql_types::SqlOrd for Ts {}

/// Rows hold plain Rust types; these stand between them and the SQL types (`serialize_as`,
/// `deserialize_as`, and as arguments of statements).
macro_rules! value {
    ($(#[$doc:meta])* $name:ident($rust:ty) as $sql:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, AsExpression, FromSqlRow)]
        #[diesel(sql_type = $sql)]
        pub struct $name(pub $rust);

        impl From<$rust> for $name {
            fn from(value: $rust) -> Self {
                $name(value)
            }
        }
        impl From<$name> for $rust {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

value! {
    /// An address on its way in or out of a statement.
    AddrValue(IpAddr) as Addr
}
value! {
    /// A network on its way in or out of a statement.
    NetValue(Network) as Net
}
value! {
    /// An instant on its way in or out of a statement.
    TsValue(DateTime<Utc>) as Ts
}
value! {
    /// A JSON value on its way in or out of a statement.
    JsonValue(serde_json::Value) as Json
}
/// The same for a value that may be missing.
macro_rules! nullable {
    ($(#[$doc:meta])* $name:ident($value:ident of $rust:ty) as $sql:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, AsExpression, FromSqlRow)]
        #[diesel(sql_type = Nullable<$sql>)]
        pub struct $name(Option<$value>);

        impl From<Option<$rust>> for $name {
            fn from(value: Option<$rust>) -> Self {
                $name(value.map($value))
            }
        }
        impl From<$name> for Option<$rust> {
            fn from(value: $name) -> Self {
                value.0.map(|value| value.0)
            }
        }
        impl<DB: Backend> ToSql<Nullable<$sql>, DB> for $name
        where
            $value: ToSql<$sql, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
                match &self.0 {
                    Some(value) => ToSql::<$sql, DB>::to_sql(value, out),
                    None => Ok(IsNull::Yes),
                }
            }
        }
        impl<DB: Backend> FromSql<Nullable<$sql>, DB> for $name
        where
            $value: FromSql<$sql, DB>,
        {
            fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
                Ok($name(Some($value::from_sql(value)?)))
            }
            fn from_nullable_sql(value: Option<DB::RawValue<'_>>) -> deserialize::Result<Self> {
                value.map_or(Ok($name(None)), Self::from_sql)
            }
        }
    };
}

nullable! {
    /// A network that may be missing.
    MaybeNet(NetValue of Network) as Net
}
nullable! {
    /// An instant that may be missing.
    MaybeTs(TsValue of DateTime<Utc>) as Ts
}

const PG_INET: u8 = 2;
const PG_INET6: u8 = 3;

/// An address as `inet` is sent.
pub(super) fn write_address(out: &mut impl Write, address: IpAddr) -> io::Result<()> {
    write_inet(out, address, if address.is_ipv4() { 32 } else { 128 }, 0)
}

fn write_inet(out: &mut impl Write, address: IpAddr, prefix: u8, is_cidr: u8) -> io::Result<()> {
    match address {
        IpAddr::V4(v4) => {
            out.write_all(&[PG_INET, prefix, is_cidr, 4])?;
            out.write_all(&v4.octets())
        }
        IpAddr::V6(v6) => {
            out.write_all(&[PG_INET6, prefix, is_cidr, 16])?;
            out.write_all(&v6.octets())
        }
    }
}

fn read_inet(bytes: &[u8]) -> deserialize::Result<(IpAddr, u8)> {
    match bytes {
        [PG_INET, prefix, _, 4, rest @ ..] => Ok((<[u8; 4]>::try_from(rest)?.into(), *prefix)),
        [PG_INET6, prefix, _, 16, rest @ ..] => Ok((<[u8; 16]>::try_from(rest)?.into(), *prefix)),
        _ => Err("not an inet value".into()),
    }
}

fn family_and_octets(address: IpAddr) -> [u8; 17] {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (4, v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => (6, v6.octets()),
    };
    let mut bytes = [0; 17];
    bytes[0] = family;
    bytes[1..].copy_from_slice(&octets);
    bytes
}

pub(super) fn from_family_and_octets(bytes: &[u8]) -> deserialize::Result<IpAddr> {
    let (family, octets) = bytes.split_first().ok_or("an address without bytes")?;
    let octets = <[u8; 16]>::try_from(octets)?;
    match family {
        4 => Ok(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]).into()),
        6 => Ok(Ipv6Addr::from(octets).into()),
        other => Err(format!("an address of family {other}").into()),
    }
}

impl ToSql<Addr, Pg> for AddrValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        write_address(out, self.0)?;
        Ok(IsNull::No)
    }
}

impl FromSql<Addr, Pg> for AddrValue {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(AddrValue(read_inet(value.as_bytes())?.0))
    }
}

impl ToSql<Addr, Sqlite> for AddrValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(family_and_octets(self.0).to_vec());
        Ok(IsNull::No)
    }
}

impl FromSql<Addr, Sqlite> for AddrValue {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let bytes = <Vec<u8> as FromSql<sql_types::Binary, Sqlite>>::from_sql(value)?;
        Ok(AddrValue(from_family_and_octets(&bytes)?))
    }
}

impl ToSql<Net, Pg> for NetValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        write_inet(out, self.0.address(), self.0.prefix(), 1)?;
        Ok(IsNull::No)
    }
}

impl FromSql<Net, Pg> for NetValue {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let (address, prefix) = read_inet(value.as_bytes())?;
        Ok(NetValue(Network::new(address, prefix)?))
    }
}

impl ToSql<Net, Sqlite> for NetValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        let mut bytes = family_and_octets(self.0.address()).to_vec();
        bytes.push(self.0.prefix());
        out.set_value(bytes);
        Ok(IsNull::No)
    }
}

impl FromSql<Net, Sqlite> for NetValue {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let bytes = <Vec<u8> as FromSql<sql_types::Binary, Sqlite>>::from_sql(value)?;
        let (prefix, address) = bytes.split_last().ok_or("a network without bytes")?;
        Ok(NetValue(Network::new(from_family_and_octets(address)?, *prefix)?))
    }
}

impl ToSql<Ts, Pg> for TsValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<sql_types::Timestamptz, Pg>::to_sql(&self.0, out)
    }
}

impl FromSql<Ts, Pg> for TsValue {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        FromSql::<sql_types::Timestamptz, Pg>::from_sql(value).map(TsValue)
    }
}

impl ToSql<Ts, Sqlite> for TsValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.timestamp_micros());
        Ok(IsNull::No)
    }
}

impl FromSql<Ts, Sqlite> for TsValue {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let micros = <i64 as FromSql<sql_types::BigInt, Sqlite>>::from_sql(value)?;
        DateTime::from_timestamp_micros(micros)
            .map(TsValue)
            .ok_or_else(|| "a time out of range".into())
    }
}

impl ToSql<Json, Pg> for JsonValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<sql_types::Jsonb, Pg>::to_sql(&self.0, out)
    }
}

impl FromSql<Json, Pg> for JsonValue {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        FromSql::<sql_types::Jsonb, Pg>::from_sql(value).map(JsonValue)
    }
}

impl ToSql<Json, Sqlite> for JsonValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.to_string());
        Ok(IsNull::No)
    }
}

impl FromSql<Json, Sqlite> for JsonValue {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<sql_types::Text, Sqlite>>::from_sql(value)?;
        Ok(JsonValue(serde_json::from_str(&text)?))
    }
}
