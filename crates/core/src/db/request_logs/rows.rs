//! A batch as one value of PostgreSQL: an array of `request_log_row` (see `migrations`), in the binary
//! format that its `array_recv` and `record_recv` read.
//!
//! One array a column would need no type, but the server then walks 16 lists side by side, which takes it
//! half as long again. The array is written here because Diesel looks a named type up by writing all
//! values twice. `COPY` would cost less still, but needs a client that Diesel does not lend, and the batch
//! has to be in the transaction that marks it as written.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::query_builder::QueryId;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::SqlType;

use super::NewLogged;
use crate::db::types;

/// A parameter whose type the server takes from the statement: the cast there names it.
#[derive(QueryId, SqlType)]
#[diesel(postgres_type(oid = 0, array_oid = 0))]
pub(super) struct FromStatement;

/// An array of `request_log_row`.
#[derive(AsExpression, Debug)]
#[diesel(sql_type = FromStatement)]
pub(super) struct Rows(Vec<u8>);

impl ToSql<FromStatement, Pg> for Rows {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        std::io::Write::write_all(out, &self.0)?;
        Ok(IsNull::No)
    }
}

/// The columns of a `request_log_row`.
const COLUMNS: i32 = 16;

/// Types that every PostgreSQL has under the same number (`pg_type.dat`).
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const TEXT: u32 = 25;
    pub(super) const INET: u32 = 869;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
}

impl Rows {
    /// The batch, whose ids count from `first_id`; `row` is what this database calls `request_log_row`.
    ///
    /// Ids are in the order of the batch, rows in that of addresses: neighbours then go into the same
    /// pages of the index by address, which saves the server a fifth of all it does for a row.
    pub(super) fn of(batch: &[NewLogged], first_id: i64, row: u32) -> Rows {
        let mut rows = Rows(Vec::with_capacity(20 + 384 * batch.len()));
        let (dimensions, has_nulls, first) = (1_i32, 0_i32, 1_i32);
        rows.put(&dimensions.to_be_bytes());
        rows.put(&has_nulls.to_be_bytes());
        rows.put(&row.to_be_bytes());
        rows.put(&(batch.len() as i32).to_be_bytes());
        rows.put(&first.to_be_bytes());
        let mut order: Vec<(IpAddr, usize)> =
            batch.iter().enumerate().map(|(at, new)| (new.address, at)).collect();
        order.sort_unstable();
        for (_, at) in order {
            rows.sized(|rows| rows.row(first_id + at as i64, &batch[at]));
        }
        rows
    }

    fn row(&mut self, id: i64, new: &NewLogged) {
        self.put(&COLUMNS.to_be_bytes());
        self.column(oid::INT8, &id.to_be_bytes());
        self.instant(new.at);
        self.address(new.address);
        self.text(&new.method);
        self.text(&new.path);
        self.column(oid::INT2, &new.status.to_be_bytes());
        self.text(new.verdict);
        self.column(oid::BOOL, &[u8::from(new.sensitive)]);
        self.maybe_text(new.identity.as_deref());
        self.maybe_text(new.country.as_deref());
        self.maybe_text(new.city.as_deref());
        match new.asn {
            Some(asn) => self.column(oid::INT8, &asn.to_be_bytes()),
            None => self.null(oid::INT8),
        }
        self.maybe_text(new.user_agent.as_deref());
        self.maybe_text(new.reference.as_deref());
        self.text(&new.node);
        self.instant(new.recorded_at);
    }

    /// Microseconds since 2000-01-01.
    fn instant(&mut self, at: DateTime<Utc>) {
        const EPOCH: i64 = 946_684_800_000_000;
        self.column(oid::TIMESTAMPTZ, &(at.timestamp_micros() - EPOCH).to_be_bytes());
    }

    fn address(&mut self, address: IpAddr) {
        self.put(&oid::INET.to_be_bytes());
        self.sized(|rows| {
            types::write_address(&mut rows.0, address).expect("memory takes what is written");
        });
    }

    fn text(&mut self, text: &str) {
        self.column(oid::TEXT, text.as_bytes());
    }

    fn maybe_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.null(oid::TEXT),
        }
    }

    fn null(&mut self, oid: u32) {
        self.put(&oid.to_be_bytes());
        self.put(&(-1_i32).to_be_bytes());
    }

    fn column(&mut self, oid: u32, value: &[u8]) {
        self.put(&oid.to_be_bytes());
        self.put(&(value.len() as i32).to_be_bytes());
        self.put(value);
    }

    /// What `write` puts, after its length.
    fn sized(&mut self, write: impl FnOnce(&mut Rows)) {
        let length = self.0.len();
        self.put(&[0; 4]);
        write(self);
        let written = (self.0.len() - length - 4) as i32;
        self.0[length..length + 4].copy_from_slice(&written.to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}
