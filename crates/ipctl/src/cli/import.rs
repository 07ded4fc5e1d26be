//! `ipctl import`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ipwarden_core::{access_log, list_file};

use super::{Circumstances, DryRun, values};

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Read an access log of another server, plain or gzip, into the request log
    ///
    /// In common or combined format, as JSON of nginx, Caddy or Traefik, of AWS's load balancers,
    /// or as `ipctl logs -o jsonl` writes it. The same lines are never read twice: of a file that
    /// has grown only what is new. The hours that it touches are scanned.
    AccessLog(ImportAccessLog),
    /// Block what a list names: all of it, or nothing
    ///
    /// With --list the list is kept as it is published: imported again, what is gone from it ends
    /// and what is new is blocked; what a person or another list blocked stays.
    Blocklist(ImportBlocklist),
    /// Allow what a list names: all of it, or nothing
    ///
    /// With --list the list is kept as it is published, as by `ipctl import blocklist`.
    Allowlist(ImportAllowlist),
}

#[derive(Debug, Args)]
pub(crate) struct ImportAccessLog {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How it is written [default: line by line as it is seen to be]
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(
        help = "How it is written: combined, common, nginx-json, caddy, traefik, traefik-json or \
        alb [default: line by line as it is seen to be]"
    )]
    pub(crate) format: Option<LogFormat>,
    /// Go on with what is added to the file, through its rotation, until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Tell what it holds, and record nothing
    #[arg(long, conflicts_with = "follow")]
    pub(crate) dry_run: bool,
}

/// How another server writes its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Apache, nginx and most others
    Combined,
    /// The same without referer and user agent
    Common,
    /// JSON of a `log_format` with `escape=json`
    NginxJson,
    /// JSON of Caddy
    Caddy,
    /// Traefik's default, which is common
    Traefik,
    /// Traefik with `format: json`
    TraefikJson,
    /// AWS's Application Load Balancer
    Alb,
}

impl From<LogFormat> for access_log::Format {
    fn from(format: LogFormat) -> access_log::Format {
        match format {
            LogFormat::Combined | LogFormat::Common | LogFormat::Traefik => {
                access_log::Format::Combined
            }
            LogFormat::NginxJson | LogFormat::Caddy | LogFormat::TraefikJson => {
                access_log::Format::Json
            }
            LogFormat::Alb => access_log::Format::Alb,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ImportList {
    /// A file, an https or http URL, or `-` for standard input
    #[arg(value_name = "FILE|URL")]
    pub(crate) source: String,
    /// Keep it as the list of this name: what is no longer in it ends
    #[arg(long, value_name = "NAME", value_parser = values::list_name)]
    pub(crate) list: Option<String>,
    /// How it is written [default: as it is seen to be]
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(help = "How it is written: plain, csv or json [default: as it is seen to be]")]
    pub(crate) format: Option<ListFormat>,
    #[command(flatten)]
    pub(crate) circumstances: Circumstances,
    /// Take an empty list too, and with --list end all that was in it
    #[arg(long)]
    pub(crate) allow_empty: bool,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct ImportBlocklist {
    #[command(flatten)]
    pub(crate) list: ImportList,
    /// Leave out what `ipctl block` would refuse, and block the rest
    #[arg(long)]
    pub(crate) skip_refused: bool,
    /// Block even what would hurt, as in `ipctl block`
    #[arg(long, conflicts_with = "skip_refused")]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportAllowlist {
    #[command(flatten)]
    pub(crate) list: ImportList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// One network a line; what stands behind `#` or `;` is a remark
    Plain,
    /// Comma-separated values, with a header or the network in the first field
    Csv,
    /// An array, or one value a line
    Json,
}

impl From<ListFormat> for list_file::Format {
    fn from(format: ListFormat) -> list_file::Format {
        match format {
            ListFormat::Plain => list_file::Format::Plain,
            ListFormat::Csv => list_file::Format::Csv,
            ListFormat::Json => list_file::Format::Json,
        }
    }
}
