//! A batch in the binary format of `COPY`: see "COPY" in PostgreSQL's documentation.

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use super::NewLogged;
use crate::db::types;

/// With the columns in the order of [`Rows::row`].
pub(super) const COPY: &str = "copy request_logs (id, at, address, method, path, status, verdict, \
    sensitive, identity, country, city, asn, user_agent, reference, node, recorded_at) \
    from stdin (format binary)";

const COLUMNS: i16 = 16;

/// Two or three are on their way at a time: enough for the server while the next batch is prepared.
const PIECE: usize = 256 * 1024;

/// The batch, whose ids count from `first_id`, in pieces of about [`PIECE`] bytes.
///
/// Ids are in the order of the batch, rows in that of addresses: neighbours then go into the same
/// pages of the index by address, which saves the server a fifth of all it does for a row.
pub(super) fn pieces(batch: &[NewLogged], first_id: i64) -> impl Iterator<Item = Vec<u8>> + Send {
    let mut order: Vec<(IpAddr, usize)> =
        batch.iter().enumerate().map(|(at, new)| (new.address, at)).collect();
    order.sort_unstable();
    let mut order = order.into_iter().peekable();
    let mut rows = Rows::default();
    let (flags, extension) = ([0; 4], [0; 4]);
    rows.put(b"PGCOPY\n\xff\r\n\0");
    rows.put(&flags);
    rows.put(&extension);
    std::iter::from_fn(move || {
        order.peek()?;
        while rows.0.len() < PIECE
            && let Some((_, at)) = order.next()
        {
            rows.row(first_id + at as i64, &batch[at]);
        }
        if order.peek().is_none() {
            let end: i16 = -1;
            rows.put(&end.to_be_bytes());
        }
        Some(std::mem::replace(&mut rows.0, Vec::with_capacity(PIECE + 4096)))
    })
}

#[derive(Default)]
struct Rows(Vec<u8>);

impl Rows {
    fn row(&mut self, id: i64, new: &NewLogged) {
        self.put(&COLUMNS.to_be_bytes());
        self.column(&id.to_be_bytes());
        self.instant(new.at);
        self.address(new.address);
        self.text(&new.method);
        self.text(&new.path);
        self.column(&new.status.to_be_bytes());
        self.text(new.verdict);
        self.column(&[u8::from(new.sensitive)]);
        self.maybe_text(new.identity.as_deref());
        self.maybe_text(new.country.as_deref());
        self.maybe_text(new.city.as_deref());
        match new.asn {
            Some(asn) => self.column(&asn.to_be_bytes()),
            None => self.null(),
        }
        self.maybe_text(new.user_agent.as_deref());
        self.maybe_text(new.reference.as_deref());
        self.text(&new.node);
        self.instant(new.recorded_at);
    }

    /// Microseconds since 2000-01-01.
    fn instant(&mut self, at: DateTime<Utc>) {
        const EPOCH: i64 = 946_684_800_000_000;
        self.column(&(at.timestamp_micros() - EPOCH).to_be_bytes());
    }

    fn address(&mut self, address: IpAddr) {
        let mut value = [0; 20];
        let mut rest = &mut value[..];
        types::write_address(&mut rest, address).expect("four bytes and an address fit");
        let length = 20 - rest.len();
        self.column(&value[..length]);
    }

    fn text(&mut self, text: &str) {
        self.column(text.as_bytes());
    }

    fn maybe_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    fn null(&mut self) {
        self.put(&(-1_i32).to_be_bytes());
    }

    fn column(&mut self, value: &[u8]) {
        self.put(&(value.len() as i32).to_be_bytes());
        self.put(value);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}
