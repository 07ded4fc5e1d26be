//! The elements of the header, from the right, and what an element may look like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::MAX_BYTES;
use crate::network::canonical;

/// What lies past [`MAX_BYTES`], whole or in part, and is therefore not read.
pub(super) struct BeyondBound;

/// The elements of all lines that are not empty, trimmed of space and tab, from right to left.
///
/// The last is [`BeyondBound`] if there is more than may be looked at; an element that straddles
/// the bound is not read in part.
pub(super) fn from_the_right<'a>(
    lines: &'a [&'a [u8]],
) -> impl Iterator<Item = Result<&'a [u8], BeyondBound>> {
    let mut room = MAX_BYTES;
    let elements = lines.iter().rev().flat_map(move |line| {
        let (whole, beyond) = within(line, room);
        // A line costs the comma that would join it to its neighbour.
        room = room.saturating_sub(line.len() + 1);
        whole.rsplit(|byte| *byte == b',').map(trim).map(Ok).chain(beyond.map(Err))
    });
    elements.filter(|element| !matches!(element, Ok([])))
}

/// The whole elements in the last `room` bytes of a line, and whether anything lies left of them.
fn within(line: &[u8], room: usize) -> (&[u8], Option<BeyondBound>) {
    let Some(from) = line.len().checked_sub(room).filter(|from| *from > 0) else {
        return (line, None);
    };
    let seen = &line[from..];
    let whole = match line[from - 1] {
        b',' => seen,
        _ => match seen.iter().position(|byte| *byte == b',') {
            Some(comma) => &seen[comma..],
            None => &[],
        },
    };
    (whole, Some(BeyondBound))
}

fn trim(mut element: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = element {
        element = rest;
    }
    element
}

/// Reads an IPv4 dotted quad or an IPv6 address, the latter perhaps in brackets and with a zone,
/// each perhaps with a port. The unspecified addresses name nobody and are refused.
pub(super) fn parse(element: &[u8]) -> Option<IpAddr> {
    let address = match element.strip_prefix(b"[") {
        Some(inside) => {
            let close = inside.iter().position(|byte| *byte == b']')?;
            let behind = &inside[close + 1..];
            if !(behind.is_empty() || is_port(behind.strip_prefix(b":")?)) {
                return None;
            }
            parse_v6(&inside[..close])?
        }
        None => match element.iter().position(|byte| *byte == b':') {
            None => parse_v4(element)?,
            Some(colon) if element[colon + 1..].contains(&b':') => parse_v6(element)?,
            Some(colon) if is_port(&element[colon + 1..]) => parse_v4(&element[..colon])?,
            Some(_) => return None,
        },
    };
    Some(address).filter(|address| !address.is_unspecified())
}

fn parse_v4(text: &[u8]) -> Option<IpAddr> {
    let address: Ipv4Addr = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(address.into())
}

fn parse_v6(text: &[u8]) -> Option<IpAddr> {
    let (address, zone) = match text.iter().position(|byte| *byte == b'%') {
        Some(percent) => (&text[..percent], Some(&text[percent + 1..])),
        None => (text, None),
    };
    if address.len() > 45 || zone.is_some_and(|zone| !is_zone(zone)) {
        return None;
    }
    let address: Ipv6Addr = std::str::from_utf8(address).ok()?.parse().ok()?;
    Some(canonical(address.into()))
}

/// A zone means something on one machine only (RFC 4007, 11), so it is checked and dropped.
fn is_zone(zone: &[u8]) -> bool {
    let in_name = |byte: &u8| byte.is_ascii_graphic() && !b"%[]/\",".contains(byte);
    !zone.is_empty() && zone.iter().all(in_name)
}

fn is_port(digits: &[u8]) -> bool {
    let is_short = (1..=5).contains(&digits.len());
    let plain = is_short && digits.iter().all(u8::is_ascii_digit);
    plain
        && (1..=65_535)
            .contains(&digits.iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0')))
}
