//! One line of an access log, taken apart: `host ident user [date] "request" status size "referer" "agent"`.
//!
//! Promises: whatever the client could write into the line (user, request, referer, agent) cannot
//! move the fields around it, because servers escape quotes and the fields are found by the quotes.
//! Does not judge: a request that is no HTTP is still a request from that address.

use std::borrow::Cow;
use std::net::IpAddr;

use super::date::{self, DATE_BYTES};

/// Why a line is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The line is not kept in memory whole.
    #[error("longer than 64 KiB")]
    TooLong,
    /// The first word is a host name, `unix:`, or nothing at all; names are never looked up.
    #[error("does not begin with an address")]
    Address,
    /// No `[17/May/2015:10:05:03 +0000]` stands before the first quote.
    #[error("has no date such as [17/May/2015:10:05:03 +0000] before its request")]
    Date,
    /// The quote after the request is missing.
    #[error("its request does not end")]
    Request,
    /// Neither three digits nor `-`.
    #[error("has no status after its request")]
    Status,
    /// A line that begins with `{` and is no object.
    #[error("is no JSON object")]
    Json,
    /// None of the fields that name a client is there, or it holds no address.
    #[error("has no field with the client's address, such as remote_addr or client_ip")]
    JsonAddress,
    /// None of the fields that tell the time is there, or it holds no date.
    #[error("has no field with its time, such as time_iso8601, ts or StartUTC")]
    JsonTime,
    /// Neither digits nor `-`; a line that was cut off here may have lost part of its status.
    #[error("has no size after its status")]
    Size,
}

/// What one line says, unescaped, as bytes: servers log whatever bytes a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Microseconds since the Unix epoch.
    pub at: i64,
    pub address: IpAddr,
    pub user: Option<Cow<'a, [u8]>>,
    pub request: Cow<'a, [u8]>,
    /// 0 where the server logged `-`.
    pub status: u16,
    pub user_agent: Option<Cow<'a, [u8]>>,
}

/// Takes a line apart, without its line break.
pub(super) fn parse(line: &[u8]) -> Result<Line<'_>, Unreadable> {
    let (host, rest) = split_once(line, b' ').ok_or(Unreadable::Address)?;
    let address = parse_host(host).ok_or(Unreadable::Address)?;

    let quote = request_quote(rest).ok_or(Unreadable::Date)?;
    let date_from = quote.checked_sub(DATE_BYTES + 2).ok_or(Unreadable::Date)?;
    let at = date::parse(&rest[date_from..quote - 2]).ok_or(Unreadable::Date)?;
    let names = rest[..date_from - 1].trim_ascii_end();
    let user = split_once(names, b' ').map(|(_ident, user)| user).and_then(present);

    let after_quote = &rest[quote + 1..];
    let request_end = find_quote(after_quote).ok_or(Unreadable::Request)?;
    let request = unescape(&after_quote[..request_end]);
    let tail = after_quote[request_end + 1..].strip_prefix(b" ").ok_or(Unreadable::Status)?;

    let (status, tail) = split_once(tail, b' ').ok_or(Unreadable::Size)?;
    let status = parse_status(status).ok_or(Unreadable::Status)?;
    let (size, tail) = split_once(tail, b' ').unwrap_or((tail, b""));
    if size != b"-" && (size.is_empty() || !size.iter().all(u8::is_ascii_digit)) {
        return Err(Unreadable::Size);
    }
    Ok(Line { at, address, user, request, status, user_agent: user_agent(tail) })
}

/// Splits a request line into method and target; `None` where it is none, such as the bytes of a
/// TLS handshake that reached a plain port.
pub(super) fn method_and_target(request: &[u8]) -> Option<(&[u8], &[u8])> {
    let (method, rest) = split_once(request, b' ')?;
    // Without a version it is HTTP/0.9.
    let target = match rest.iter().rposition(|byte| *byte == b' ') {
        Some(space) if rest[space + 1..].starts_with(b"HTTP/") => &rest[..space],
        _ => rest,
    };
    let is_token = !method.is_empty() && method.len() <= 32 && method.iter().all(is_token_byte);
    let is_target = target.first().is_some_and(|first| first.is_ascii_graphic());
    (is_token && is_target).then_some((method, target))
}

/// The path in a request target: without scheme and authority (RFC 9112, 3.2.2), query and fragment.
pub(super) fn path_of(target: &[u8]) -> &[u8] {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let target = &target[..end];
    let authority = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    match authority {
        None => target,
        Some(rest) => rest.iter().position(|byte| *byte == b'/').map_or(b"/", |at| &rest[at..]),
    }
}

fn parse_host(host: &[u8]) -> Option<IpAddr> {
    // 0.0.0.0 and :: are nobody's address.
    ipwarden_engine::network::parse_address(host).filter(|address| !address.is_unspecified())
}

fn parse_status(text: &[u8]) -> Option<u16> {
    match text {
        b"-" => Some(0),
        [a, b, c] if text.iter().all(u8::is_ascii_digit) => {
            Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => None,
    }
}

/// Finds the quote that opens the request: the first one of the line, since a quote in a user's
/// name is escaped. A forged `[date] \"GET ..` in the name therefore stays a name.
fn request_quote(rest: &[u8]) -> Option<usize> {
    let first = find_quote(rest)?;
    // Apache writes an empty user as `""`.
    let quote = match rest[first..].strip_prefix(b"\"\" ") {
        Some(after) if !rest[..first].ends_with(b"] ") => first + 3 + find_quote(after)?,
        _ => first,
    };
    let before = rest[..quote].strip_suffix(b"] ")?;
    let open = before.len().checked_sub(DATE_BYTES + 1)?;
    (before[open] == b'[' && open > 0 && before[open - 1] == b' ').then_some(quote)
}

/// The second quoted field after the size. One that does not end, because a line was cut, is what
/// is left of it.
fn user_agent(tail: &[u8]) -> Option<Cow<'_, [u8]>> {
    let tail = tail.strip_prefix(b"\"")?;
    let tail = tail[find_quote(tail)? + 1..].strip_prefix(b" \"")?;
    present(&tail[..find_quote(tail).unwrap_or(tail.len())])
}

/// `-` and nothing both say that there was nothing.
fn present(field: &[u8]) -> Option<Cow<'_, [u8]>> {
    (!matches!(field, b"-" | b"" | b"\"\"")).then(|| unescape(field))
}

/// Finds the first quote that no backslash escapes.
fn find_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Undoes what nginx (`\xHH`) and Apache (`\"`, `\\`, `\n`, ...) do to quotes, backslashes,
/// control characters and bytes beyond ASCII. Text without a backslash is not copied.
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = text.iter().position(|byte| *byte == b'\\') else {
        return Cow::Borrowed(text);
    };
    let mut plain = text[..first].to_vec();
    let mut rest = &text[first..];
    while let Some((&byte, after)) = rest.split_first() {
        let (plain_byte, used) = if byte == b'\\' { unescape_one(after) } else { (byte, 0) };
        plain.push(plain_byte);
        rest = &after[used..];
    }
    Cow::Owned(plain)
}

/// The byte that an escape stands for and how many bytes it has after its backslash.
fn unescape_one(after: &[u8]) -> (u8, usize) {
    match after {
        [b'x', high, low, ..] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => (high << 4 | low, 3),
            _ => (b'\\', 0),
        },
        [byte @ (b'"' | b'\\'), ..] => (*byte, 1),
        [b'n', ..] => (b'\n', 1),
        [b'r', ..] => (b'\r', 1),
        [b't', ..] => (b'\t', 1),
        [b'b', ..] => (0x08, 1),
        [b'v', ..] => (0x0b, 1),
        _ => (b'\\', 0),
    }
}

fn hex(digit: u8) -> Option<u8> {
    // A hexadecimal digit is below 16.
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
#[path = "line/tests.rs"]
mod tests;
