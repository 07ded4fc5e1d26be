//! The client address against a second reading of docs/DESIGN.md, written without the first.
//!
//! An input is text: trusted proxies (with `!` in front, everyone may be trusted), the peer, and
//! then the header's lines. A line `*N text` stands for N times the text, so that small inputs
//! reach the bounds. What is judged: which lists are refused, every field of the answer, and that
//! neither the division into lines nor anything left of the deciding element changes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipwarden_engine::client_ip::{
    ClientIp, ClientIpResolver, DEFAULT_HEADER, MAX_BYTES, MAX_ELEMENTS, Source, TRUST_EVERYONE,
};

/// Judges one input.
///
/// # Panics
/// If the resolver breaks a promise.
pub(crate) fn client_ip(input: &[u8]) {
    let mut rows = input.split(|byte| *byte == b'\n');
    let Some(Ok(trusted)) = rows.next().map(std::str::from_utf8) else { return };
    let Some(Ok(peer)) = rows.next().map(|row| String::from_utf8_lossy(row).parse::<IpAddr>())
    else {
        return;
    };
    let lines: Vec<Vec<u8>> = rows.map(repeated).collect();
    let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();

    let everyone = trusted.starts_with('!');
    let entries: Vec<&str> = trusted.trim_start_matches('!').split(',').collect();
    let entries = if entries == [""] { Vec::new() } else { entries };
    let word = if everyone { TRUST_EVERYONE } else { "" };
    let resolver = ClientIpResolver::from_strings(DEFAULT_HEADER, &entries, word);
    let reference = Reference::new(&entries, everyone);
    assert_eq!(resolver.is_ok(), reference.is_some(), "{entries:?}: {resolver:?}");
    let (Ok(resolver), Some(reference)) = (resolver, reference) else { return };

    let found = resolver.resolve(peer, &lines);
    assert_eq!(found, reference.resolve(peer, &lines));
    assert_eq!(resolver.is_trusted(peer), reference.is_trusted(canonical(peer)));
    assert_eq!(found.ip, canonical(found.ip), "an answer is canonical");

    let joined = lines.join(&b',');
    assert_eq!(resolver.resolve(peer, &[&joined]), found, "all lines are one list");
    // With everyone trusted, an address that ended the walk is known by that, not by its flag.
    let decided = !reference.is_trusted(found.ip) || found.degraded;
    if decided {
        for left in [&b"192.0.2.1"[..], b"junk", b"", b",, ,", b"[::1]:1"] {
            let more: Vec<&[u8]> = [left].into_iter().chain(lines.iter().copied()).collect();
            let again = resolver.resolve(peer, &more);
            assert_eq!(again, found, "what stands left of the deciding element is never read");
        }
    }
}

/// `*N text` as N times the text; anything else as it is.
fn repeated(row: &[u8]) -> Vec<u8> {
    let many = row.strip_prefix(b"*").and_then(|rest| {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let times: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        Some(rest[space + 1..].repeat(times.min(9_000 / (rest.len() - space).max(1))))
    });
    many.unwrap_or_else(|| row.to_vec())
}

/// Networks as pairs of address and prefix, searched one by one.
struct Reference {
    trusted: Vec<(IpAddr, u32)>,
    known: Vec<(IpAddr, u32)>,
}

impl Reference {
    /// The trusted proxies; none where they must be refused.
    fn new(entries: &[&str], everyone: bool) -> Option<Reference> {
        let trusted: Option<Vec<_>> = entries.iter().map(|entry| network(entry.trim())).collect();
        let trusted = trusted?;
        let narrow = |entry: &&(IpAddr, u32)| match entry.0 {
            IpAddr::V4(_) => entry.1 >= 8,
            IpAddr::V6(v6) => {
                let private = v6.octets()[0] & 0xfe == 0xfc && entry.1 >= 7;
                let link_local = v6.segments()[0] & 0xffc0 == 0xfe80 && entry.1 >= 10;
                entry.1 >= 16 || private || link_local
            }
        };
        let known: Vec<_> = trusted.iter().filter(narrow).copied().collect();
        (everyone || known.len() == trusted.len()).then_some(Reference { trusted, known })
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| holds(network, address))
    }

    fn resolve(&self, peer: IpAddr, lines: &[&[u8]]) -> ClientIp {
        let mut answer = ClientIp {
            ip: canonical(peer),
            source: Source::Peer,
            hops: 0,
            degraded: false,
            trusted: false,
        };
        if !self.is_trusted(answer.ip) {
            return answer;
        }
        let list = lines.join(&b',');
        for element in elements(&list) {
            if answer.hops == MAX_ELEMENTS || element.is_none() {
                answer.degraded = true;
                break;
            }
            let Some(address) = element.and_then(parse) else {
                answer.degraded = true;
                break;
            };
            (answer.ip, answer.source, answer.hops) = (address, Source::Header, answer.hops + 1);
            if !self.is_trusted(address) {
                break;
            }
        }
        answer.trusted =
            answer.hops == 0 || self.known.iter().any(|network| holds(network, answer.ip));
        answer
    }
}

/// The elements that are not empty, from the right; `None` for what lies beyond the bound.
fn elements(list: &[u8]) -> Vec<Option<&[u8]>> {
    let mut found = Vec::new();
    let mut end = list.len();
    loop {
        let start = list[..end].iter().rposition(|byte| *byte == b',').map_or(0, |comma| comma + 1);
        let element = list[start..end].trim_ascii_with(b" \t");
        let beyond = list.len() - start > MAX_BYTES;
        if beyond {
            found.push(None);
            return found;
        }
        if !element.is_empty() {
            found.push(Some(element));
        }
        if start == 0 {
            return found;
        }
        end = start - 1;
    }
}

trait TrimWith {
    fn trim_ascii_with(&self, blanks: &[u8]) -> &[u8];
}

impl TrimWith for [u8] {
    fn trim_ascii_with(&self, blanks: &[u8]) -> &[u8] {
        let Some(first) = self.iter().position(|byte| !blanks.contains(byte)) else { return &[] };
        let last = self.iter().rposition(|byte| !blanks.contains(byte)).unwrap_or(first);
        &self[first..=last]
    }
}

fn parse(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let address =
        if let Some((inside, port)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
            if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
                return None;
            }
            v6_without_zone(inside)?
        } else if let Ok(v4) = text.parse::<Ipv4Addr>() {
            v4.into()
        } else if let Some((v4, _)) = text.split_once(':').filter(|(_, port)| is_port(port)) {
            v4.parse::<Ipv4Addr>().ok()?.into()
        } else {
            v6_without_zone(text)?
        };
    let address = canonical(address);
    (address != IpAddr::from([0; 4]) && address != IpAddr::from([0; 16])).then_some(address)
}

fn v6_without_zone(text: &str) -> Option<IpAddr> {
    let (address, zone) = text.split_once('%').unwrap_or((text, "x"));
    let is_zone = zone.chars().all(|c| ('!'..='~').contains(&c) && !"%[]/\",".contains(c));
    (is_zone && !zone.is_empty())
        .then(|| address.parse::<Ipv6Addr>().ok())
        .flatten()
        .map(IpAddr::V6)
}

fn is_port(digits: &str) -> bool {
    digits.len() <= 5
        && digits.chars().all(|c| c.is_ascii_digit())
        && digits.parse::<u16>().is_ok_and(|port| port > 0)
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = match text.split_once('/') {
        None => (text.parse::<IpAddr>().ok()?, None),
        Some((address, prefix)) => (address.parse::<IpAddr>().ok()?, Some(prefix)),
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(digits) => {
            let prefix: u32 = digits.parse().ok()?;
            (prefix <= longest && prefix.to_string() == digits).then_some(prefix)?
        }
    };
    match canonical(address) {
        v4 @ IpAddr::V4(_) if address.is_ipv6() && prefix >= 96 => Some((v4, prefix - 96)),
        _ => Some((address, prefix)),
    }
}

fn holds((network, prefix): &(IpAddr, u32), address: IpAddr) -> bool {
    let (network, address) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u128::from(network.to_bits()) << 96, u128::from(address.to_bits()) << 96)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits()),
        _ => return false,
    };
    (0..*prefix).all(|bit| (network ^ address) >> (127 - bit) & 1 == 0)
}

fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.segments()[..6] == [0, 0, 0, 0, 0, 0xffff] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::from([a, b, c, d])
        }
        other => other,
    }
}
