//! `ipctl export blocklist` for programs that enforce it: nftables, ipset, nginx, HAProxy, Caddy.
//!
//! None of them knows an allowlist, and most refuse networks that overlap. So what is written is disjoint,
//! holds no allowed address, and is as short as it can be. Where a program can forget by itself, it is
//! told when; the others hold what was true when the file was written.

use std::io::{self, BufWriter, Write};
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipwarden_core::lists::{BlockedRange, blocked_ranges};
use ipwarden_engine::network::Network;

use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::Data;

/// ipset takes no longer timeout, in seconds.
const LONGEST_IN_IPSET: i64 = 2_147_483;
/// A set cannot be made larger later, and two of different size cannot be swapped in by one file.
const ROOM_IN_IPSET: usize = 1 << 20;

/// A program that enforces a blocklist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Nft,
    Ipset,
    Nginx,
    Haproxy,
    Caddy,
}

pub(super) async fn blocklist(given: Invocation, program: Program) -> Result<(), Failure> {
    let opened = given.open().await?;
    let (ranges, at) = blocked_ranges(&opened.db, given.now).await?;
    let mut out = BufWriter::new(Data);
    render(&mut out, &ranges, at, program)?;
    Ok(out.flush()?)
}

fn render(
    out: &mut impl Write,
    ranges: &[BlockedRange],
    at: i64,
    program: Program,
) -> io::Result<()> {
    let written = DateTime::<Utc>::from_timestamp_micros(at).unwrap_or_default();
    writeln!(
        out,
        "# The blocklist of ipwarden at {}, without what is allowed.",
        written.format("%Y-%m-%dT%H:%M:%SZ")
    )?;
    match program {
        Program::Nft => nft(out, ranges, at),
        Program::Ipset => ipset(out, ranges, at),
        Program::Nginx => nginx(out, ranges),
        Program::Haproxy => haproxy(out, ranges),
        Program::Caddy => caddy(out, ranges),
    }
}

/// Seconds that are left, rounded up, at least one; `None` for ever.
fn left(range: &BlockedRange, at: i64) -> Option<i64> {
    range
        .ends
        .map(|ends| ends.saturating_sub(at).saturating_add(999_999).div_euclid(1_000_000).max(1))
}

fn of_family(ranges: &[BlockedRange], ipv4: bool) -> impl Iterator<Item = &BlockedRange> {
    ranges.iter().filter(move |range| range.first.is_ipv4() == ipv4)
}

fn networks(ranges: &[BlockedRange]) -> impl Iterator<Item = Network> {
    ranges.iter().flat_map(BlockedRange::networks)
}

fn nft(out: &mut impl Write, ranges: &[BlockedRange], at: i64) -> io::Result<()> {
    writeln!(out, "# Load it with `nft -f`: the table is replaced at once, or not at all.")?;
    writeln!(out, "table inet ipwarden\ndelete table inet ipwarden\ntable inet ipwarden {{")?;
    for (name, kind, ipv4) in [("blocked4", "ipv4_addr", true), ("blocked6", "ipv6_addr", false)] {
        writeln!(out, "\tset {name} {{\n\t\ttype {kind}\n\t\tflags interval, timeout")?;
        let mut elements = of_family(ranges, ipv4).peekable();
        if elements.peek().is_some() {
            writeln!(out, "\t\telements = {{")?;
            for range in elements {
                let timeout = left(range, at).map(|left| format!(" timeout {left}s"));
                writeln!(out, "\t\t\t{}{},", span(range), timeout.unwrap_or_default())?;
            }
            writeln!(out, "\t\t}}")?;
        }
        writeln!(out, "\t}}")?;
    }
    writeln!(
        out,
        "\tchain blocked {{\n\t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tip saddr @blocked4 drop\n\t\tip6 saddr @blocked6 drop\n\t}}\n}}"
    )
}

/// One network where it is one: nft prints it the same way.
fn span(range: &BlockedRange) -> String {
    match range.networks()[..] {
        [network] => network.to_string(),
        _ => format!("{}-{}", range.first, range.last),
    }
}

fn ipset(out: &mut impl Write, ranges: &[BlockedRange], at: i64) -> io::Result<()> {
    writeln!(out, "# Load it with `ipset restore -exist`: each set is swapped whole.")?;
    let room = networks(ranges).count().saturating_mul(2).next_power_of_two().max(ROOM_IN_IPSET);
    for (name, family, ipv4) in [("ipwarden4", "inet", true), ("ipwarden6", "inet6", false)] {
        let kind = format!("hash:net family {family} timeout 0 maxelem {room}");
        writeln!(out, "create {name} {kind}\ncreate {name}-next {kind}\nflush {name}-next")?;
        for range in of_family(ranges, ipv4) {
            // Nothing is for ever; 0 is.
            let timeout = left(range, at).map_or(0, |left| left.min(LONGEST_IN_IPSET));
            for network in range.networks().into_iter().flat_map(no_zero) {
                writeln!(out, "add {name}-next {network} timeout {timeout}")?;
            }
        }
        writeln!(out, "swap {name}-next {name}\ndestroy {name}-next")?;
    }
    Ok(())
}

/// `hash:net` has no networks of length 0.
fn no_zero(network: Network) -> Vec<Network> {
    match network.prefix() {
        0 => [network.address(), network.last_address()]
            .into_iter()
            .filter_map(|address: IpAddr| Network::new(address, 1).ok())
            .collect(),
        _ => vec![network],
    }
}

fn nginx(out: &mut impl Write, ranges: &[BlockedRange]) -> io::Result<()> {
    writeln!(
        out,
        "# Include it in `http`, and in a server: if ($ipwarden_blocked) {{ return 403; }}"
    )?;
    writeln!(out, "geo $ipwarden_blocked {{\n\tdefault 0;")?;
    for network in networks(ranges) {
        writeln!(out, "\t{network} 1;")?;
    }
    writeln!(out, "}}")
}

fn haproxy(out: &mut impl Write, ranges: &[BlockedRange]) -> io::Result<()> {
    writeln!(out, "# In a frontend: http-request deny if {{ src -f THIS-FILE }}")?;
    for network in networks(ranges) {
        writeln!(out, "{network}")?;
    }
    Ok(())
}

fn caddy(out: &mut impl Write, ranges: &[BlockedRange]) -> io::Result<()> {
    writeln!(out, "# In a site block: import THIS-FILE")?;
    // A matcher without a condition would match everybody.
    if ranges.is_empty() {
        return writeln!(out, "# Nobody is blocked.");
    }
    writeln!(out, "@ipwarden_blocked {{")?;
    for network in networks(ranges) {
        writeln!(out, "\tremote_ip {network}")?;
    }
    writeln!(out, "}}\nrespond @ipwarden_blocked 403")
}
