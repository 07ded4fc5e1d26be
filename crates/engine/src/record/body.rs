//! The bytes of a record in a frame of the spool.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | flags: verdict in bits 0-1, then sensitive, has identity, has user agent, is IPv6 |
//! | 2 | status |
//! | 8 | at, signed |
//! | 4 or 16 | address, network order |
//! | 8 | reference |
//! | 2 + n | method, path, then identity and user agent if there are any |
//!
//! Numbers are little-endian. A field is added by a new version, never by a new meaning of an old one:
//! a segment outlives the program that wrote it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Range, RangeInclusive};

use super::text::{
    MAX_IDENTITY, MAX_METHOD, MAX_PATH, MAX_USER_AGENT, PRINTABLE, VISIBLE, is_unfit, put_identity,
    put_method, put_path, put_user_agent,
};
use super::{Record, RecordRef, RecordVerdict, Reference};

const VERSION: u8 = 1;

const VERDICT: u8 = 0b11;
const SENSITIVE: u8 = 1 << 2;
const IDENTITY: u8 = 1 << 3;
const USER_AGENT: u8 = 1 << 4;
const IPV6: u8 = 1 << 5;
const KNOWN: u8 = VERDICT | SENSITIVE | IDENTITY | USER_AGENT | IPV6;

/// Where the flags stand in a body.
const FLAGS: usize = 1;
/// Where the status stands in a body.
const STATUS: Range<usize> = 2..4;

/// What a body holds in front of its texts, with their lengths, in bytes.
const BEFORE_TEXTS: usize = 1 + 1 + 2 + 8 + 16 + 8 + 4 * 2;

/// The longest body that a record of this version becomes, in bytes.
pub const MAX_BODY: usize = BEFORE_TEXTS + MAX_METHOD + MAX_PATH + MAX_IDENTITY + MAX_USER_AGENT;

/// Why bytes are not the body of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the named field does.
    #[error("the record ends within its {0}")]
    Truncated(&'static str),
    /// A version that this program does not know, probably of a newer one.
    #[error("the record has version {0}, and this program reads version {VERSION}")]
    Version(u8),
    /// Flags without a meaning.
    #[error("the record has the unknown flags {0:#010b}")]
    Flags(u8),
    /// A reference of more than 60 bits.
    #[error("the record's reference has more than 60 bits")]
    Reference,
    /// An IPv4 address that is written as IPv6, under which nobody would look for it.
    #[error("the record's address is not canonical")]
    Address,
    /// A path with the query that the writer leaves out.
    #[error("the record's path holds a query")]
    Query,
    /// A text that the writer would have cut.
    #[error("the record's {0} is too long")]
    TooLong(&'static str),
    /// A text with bytes that the writer would have escaped.
    #[error("the record's {0} holds bytes that must be escaped")]
    Unescaped(&'static str),
    /// Bytes after the last field.
    #[error("{0} bytes follow the record")]
    Trailing(usize),
}

impl RecordRef<'_> {
    /// How long the body is if nothing has to be escaped, in bytes; at most [`MAX_BODY`].
    pub(crate) fn expected_length(&self) -> usize {
        let identity = self.identity.map_or(0, str::len);
        let user_agent = self.user_agent.map_or(0, <[u8]>::len);
        BEFORE_TEXTS
            + self.method.len().min(MAX_METHOD)
            + self.path.len().min(MAX_PATH)
            + identity.min(MAX_IDENTITY)
            + user_agent.min(MAX_USER_AGENT)
    }

    /// Appends the body of this record to `out`: at most [`MAX_BODY`] bytes, and no other allocation.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let address = self.address.to_canonical();
        let flags = verdict_bits(self.verdict)
            | if self.sensitive { SENSITIVE } else { 0 }
            | if self.identity.is_some() { IDENTITY } else { 0 }
            | if self.user_agent.is_some() { USER_AGENT } else { 0 }
            | if address.is_ipv6() { IPV6 } else { 0 };
        out.extend_from_slice(&[VERSION, flags]);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        match address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
        out.extend_from_slice(&self.reference.bits().to_le_bytes());
        put_text(out, |out| put_method(self.method, out));
        put_text(out, |out| put_path(self.path, out));
        if let Some(identity) = self.identity {
            put_text(out, |out| put_identity(identity, out));
        }
        if let Some(user_agent) = self.user_agent {
            put_text(out, |out| put_user_agent(user_agent, out));
        }
    }
}

/// Says in a body what was answered.
pub(crate) fn set_status(body: &mut [u8], status: u16) {
    body[STATUS].copy_from_slice(&status.to_le_bytes());
}

/// Says in a body what the guard said.
pub(crate) fn set_verdict(body: &mut [u8], verdict: RecordVerdict) {
    body[FLAGS] = body[FLAGS] & !VERDICT | verdict_bits(verdict);
}

/// What a body that was encoded here says that the guard said.
pub(crate) fn verdict(body: &[u8]) -> RecordVerdict {
    verdict_of(body[FLAGS] & VERDICT).expect("only known verdicts are encoded")
}

impl Record {
    /// Reads the body of a record; only what [`RecordRef::encode`] can have written is accepted.
    pub fn decode(body: &[u8]) -> Result<Record, RecordError> {
        let mut rest = body;
        let [version] = take(&mut rest, "version")?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let [flags] = take(&mut rest, "flags")?;
        let verdict = verdict_of(flags).ok_or(RecordError::Flags(flags))?;
        let status = u16::from_le_bytes(take(&mut rest, "status")?);
        let at = i64::from_le_bytes(take(&mut rest, "time")?);
        let address = if flags & IPV6 == 0 {
            IpAddr::V4(Ipv4Addr::from(take::<4>(&mut rest, "address")?))
        } else {
            IpAddr::V6(Ipv6Addr::from(take::<16>(&mut rest, "address")?))
        };
        if address != address.to_canonical() {
            return Err(RecordError::Address);
        }
        let bits = u64::from_le_bytes(take(&mut rest, "reference")?);
        let reference = Reference::from_bits(bits).ok_or(RecordError::Reference)?;
        let method = take_ascii(&mut rest, "method", MAX_METHOD, VISIBLE)?;
        let path = take_ascii(&mut rest, "path", MAX_PATH, VISIBLE)?;
        if path.contains(['?', '#']) {
            return Err(RecordError::Query);
        }
        let identity = (flags & IDENTITY != 0).then(|| take_identity(&mut rest)).transpose()?;
        let user_agent = (flags & USER_AGENT != 0)
            .then(|| take_ascii(&mut rest, "user agent", MAX_USER_AGENT, PRINTABLE))
            .transpose()?;
        if !rest.is_empty() {
            return Err(RecordError::Trailing(rest.len()));
        }
        let sensitive = flags & SENSITIVE != 0;
        Ok(Record {
            at,
            address,
            method,
            path,
            status,
            verdict,
            sensitive,
            identity,
            user_agent,
            reference,
        })
    }
}

fn verdict_bits(verdict: RecordVerdict) -> u8 {
    match verdict {
        RecordVerdict::Allowed => 0,
        RecordVerdict::Blocked => 1,
        RecordVerdict::Throttled => 2,
    }
}

fn verdict_of(flags: u8) -> Option<RecordVerdict> {
    match (flags & !KNOWN, flags & VERDICT) {
        (0, 0) => Some(RecordVerdict::Allowed),
        (0, 1) => Some(RecordVerdict::Blocked),
        (0, 2) => Some(RecordVerdict::Throttled),
        _ => None,
    }
}

fn put_text(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    fill(out);
    let length = u16::try_from(out.len() - start - 2).expect("every text has a limit below 64 KiB");
    out[start..start + 2].copy_from_slice(&length.to_le_bytes());
}

fn take<const N: usize>(rest: &mut &[u8], field: &'static str) -> Result<[u8; N], RecordError> {
    let (head, tail) = rest.split_first_chunk().ok_or(RecordError::Truncated(field))?;
    *rest = tail;
    Ok(*head)
}

fn take_text<'a>(
    rest: &mut &'a [u8],
    field: &'static str,
    limit: usize,
) -> Result<&'a str, RecordError> {
    let length = usize::from(u16::from_le_bytes(take(rest, field)?));
    if length > limit {
        return Err(RecordError::TooLong(field));
    }
    let (text, tail) = rest.split_at_checked(length).ok_or(RecordError::Truncated(field))?;
    *rest = tail;
    std::str::from_utf8(text).map_err(|_| RecordError::Unescaped(field))
}

fn take_ascii(
    rest: &mut &[u8],
    field: &'static str,
    limit: usize,
    kept: RangeInclusive<u8>,
) -> Result<String, RecordError> {
    let text = take_text(rest, field, limit)?;
    if text.bytes().all(|byte| kept.contains(&byte)) {
        Ok(text.to_owned())
    } else {
        Err(RecordError::Unescaped(field))
    }
}

fn take_identity(rest: &mut &[u8]) -> Result<String, RecordError> {
    let text = take_text(rest, "identity", MAX_IDENTITY)?;
    if text.chars().any(is_unfit) {
        return Err(RecordError::Unescaped("identity"));
    }
    Ok(text.to_owned())
}
