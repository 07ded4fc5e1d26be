//! Makes text that any log and any database can hold out of whatever bytes a client sent.

use std::ops::RangeInclusive;

/// The longest method that is stored, in bytes.
pub const MAX_METHOD: usize = 32;
/// The longest path that is stored, in bytes after escaping.
pub const MAX_PATH: usize = 2048;
/// The longest user agent that is stored, in bytes after escaping.
pub const MAX_USER_AGENT: usize = 512;
/// The longest identity that is stored, in bytes of UTF-8 after escaping.
pub const MAX_IDENTITY: usize = 256;

pub(super) const VISIBLE: RangeInclusive<u8> = 0x21..=0x7e;
pub(super) const PRINTABLE: RangeInclusive<u8> = 0x20..=0x7e;

/// The path of a request target: no query, no fragment, what is not visible ASCII as `%XX`.
///
/// Escapes that are there already are kept as they are, and none is ever cut in two.
pub fn escape_path(target: &[u8]) -> String {
    ascii(|out| put_path(target, out))
}

/// A user agent, what is not printable ASCII as `%XX`.
pub fn escape_user_agent(value: &[u8]) -> String {
    ascii(|out| put_user_agent(value, out))
}

/// A method, what is not visible ASCII as `%XX`.
pub fn escape_method(method: &[u8]) -> String {
    ascii(|out| put_method(method, out))
}

/// An identity, with control characters, and those that reorder or break a line, as `%XX`.
pub fn escape_identity(identity: &str) -> String {
    let mut out = Vec::with_capacity(identity.len());
    put_identity(identity, &mut out);
    String::from_utf8(out).expect("whole characters and ASCII escapes are UTF-8")
}

pub(super) fn put_path(target: &[u8], out: &mut Vec<u8>) {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    put(&target[..end], VISIBLE, MAX_PATH, out);
}

pub(super) fn put_user_agent(value: &[u8], out: &mut Vec<u8>) {
    put(value, PRINTABLE, MAX_USER_AGENT, out);
}

pub(super) fn put_method(method: &[u8], out: &mut Vec<u8>) {
    put(method, VISIBLE, MAX_METHOD, out);
}

pub(super) fn put_identity(identity: &str, out: &mut Vec<u8>) {
    let end = out.len() + MAX_IDENTITY;
    for character in identity.chars() {
        let mut utf8 = [0; 4];
        let bytes = character.encode_utf8(&mut utf8).as_bytes();
        let escaped = is_unfit(character);
        if out.len() + bytes.len() * if escaped { 3 } else { 1 } > end {
            return;
        }
        if escaped {
            bytes.iter().for_each(|&byte| out.extend(escape(byte)));
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

/// Whether a character would change how the rest of its line is shown.
pub(super) fn is_unfit(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn ascii(fill: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    fill(&mut out);
    String::from_utf8(out).expect("escaped bytes are ASCII")
}

fn put(raw: &[u8], kept: RangeInclusive<u8>, limit: usize, out: &mut Vec<u8>) {
    // Of every byte, without leaving early, which the compiler turns into vectors: nearly every text is
    // kept as it is, and this look was half of what encoding a record cost.
    let fits = raw.iter().fold(true, |fits, byte| fits & kept.contains(byte));
    if fits && raw.len() <= limit {
        out.extend_from_slice(raw);
        return;
    }
    let end = out.len() + limit;
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        let unit = if is_escape(rest) { 3 } else { 1 };
        let escaped = !kept.contains(byte);
        if out.len() + if escaped { 3 } else { unit } > end {
            return;
        }
        if escaped {
            out.extend(escape(*byte));
            rest = tail;
        } else {
            out.extend_from_slice(&rest[..unit]);
            rest = &rest[unit..];
        }
    }
}

fn is_escape(bytes: &[u8]) -> bool {
    matches!(bytes, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

fn escape(byte: u8) -> [u8; 3] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    [b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}
