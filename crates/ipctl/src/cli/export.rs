//! `ipctl export`.

use clap::{Args, Subcommand, ValueEnum};
use ipwarden_engine::network::Network;

use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum Export {
    /// Write the blocklist, for `ipctl import blocklist` or for a program that enforces it
    ///
    /// For people and other programs row by row: plain, csv, json. For a program that enforces it,
    /// without what is allowed: nft, ipset, nginx, haproxy, caddy.
    Blocklist(ExportBlocklist),
    /// Write the allowlist, as `ipctl import allowlist` reads it
    Allowlist(ExportAllowlist),
    /// Write everything that is stored about an address, as JSON
    ///
    /// Records, findings, entries of the lists and their changes, bouncers, and what the audit log says
    /// about it. With -o jsonl a line for each row.
    Data(ExportData),
}

#[derive(Debug, Args)]
pub(crate) struct ExportData {
    /// An address, or a CIDR
    #[arg(long = "ip", short, value_name = "IP", value_parser = values::bare_network)]
    pub(crate) network: Network,
}

#[derive(Debug, Args)]
pub(crate) struct ExportBlocklist {
    /// How it is written [default: as --output says, else plain]
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(
        help = "How it is written: plain, csv or json, or for nft, ipset, nginx, haproxy or caddy \
        [default: as --output says, else plain]"
    )]
    pub(crate) format: Option<ExportFormat>,
    /// Only what was imported as the list of this name; in plain, csv and json
    #[arg(long, value_name = "NAME", value_parser = values::list_name)]
    pub(crate) list: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportAllowlist {
    /// How it is written [default: as --output says, else plain]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<RowsFormat>,
    /// Only what was imported as the list of this name
    #[arg(long, value_name = "NAME", value_parser = values::list_name)]
    pub(crate) list: Option<String>,
}

/// How a blocklist is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One network a line, sorted, each once
    Plain,
    /// With reasons, origins and ends
    Csv,
    /// The same as an array of objects
    Json,
    /// A table of nftables, for `nft -f`
    Nft,
    /// Two sets, for `ipset restore`
    Ipset,
    /// A `geo` block
    Nginx,
    /// A file for `src -f`
    Haproxy,
    /// A snippet for a site block
    Caddy,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowsFormat {
    /// One network a line, sorted, each once
    Plain,
    /// With reasons, origins and ends
    Csv,
    /// The same as an array of objects
    Json,
}
