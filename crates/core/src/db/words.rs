//! How each database writes what the statements on the log are made of that have every bound as a
//! literal. Text that came from a client never becomes part of them.

use std::fmt::Write as _;
use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use ipwarden_engine::network::Network;

use super::Conn;

/// What such statements are made of.
pub(super) struct Words {
    pub(super) postgres: bool,
    /// Whose requests are counted together: an IPv4 address, an IPv6 /64.
    pub(super) network: &'static str,
    /// The first and the last address of such a `network`.
    pub(super) first_address: &'static str,
    pub(super) last_address: &'static str,
}

impl Words {
    pub(super) fn of(conn: &Conn) -> Words {
        match conn {
            Conn::Postgres(_) => Words {
                postgres: true,
                network: "case family(address) when 4 then address::cidr \
                    else network(set_masklen(address, 64)) end",
                first_address: "host(network)::inet",
                last_address: "host(broadcast(network))::inet",
            },
            Conn::Sqlite(_) => Words {
                postgres: false,
                network: "case substr(address, 1, 1) when x'04' then address \
                    else substr(address, 1, 9) end",
                first_address: "network",
                last_address: "cast(network || x'ffffffffffffffff' as blob)",
            },
        }
    }

    pub(super) fn instant(&self, at: DateTime<Utc>) -> String {
        if self.postgres {
            format!("'{}'::timestamptz", at.format("%Y-%m-%d %H:%M:%S%.6f+00"))
        } else {
            at.timestamp_micros().to_string()
        }
    }

    pub(super) fn microseconds(&self, span: TimeDelta) -> String {
        let microseconds = span.num_microseconds().unwrap_or(i64::MAX);
        if self.postgres {
            format!("interval '{microseconds} microseconds'")
        } else {
            microseconds.to_string()
        }
    }

    /// ` and ..` for every network whose requests do not count.
    pub(super) fn without(&self, networks: &[Network]) -> String {
        let mut text = String::new();
        for network in networks {
            let (first, last) = (network.address(), network.last_address());
            let outcome = if self.postgres {
                write!(text, " and not (address between '{first}'::inet and '{last}'::inet)")
            } else {
                write!(text, " and not (address between {} and {})", blob(first), blob(last))
            };
            outcome.expect("a String takes any text");
        }
        text
    }
}

/// An address as a literal of SQLite: family, then 16 bytes.
pub(super) fn blob(address: IpAddr) -> String {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (4, v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => (6, v6.octets()),
    };
    let octets: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("x'{family:02x}{octets}'")
}
