//! The command line: one struct per command. What it means is in [`commands`](crate::commands).

mod export;
mod forget;
mod geo;
mod import;
mod keys;
mod migrate_from;
#[cfg(test)]
mod reference;
mod stats;
mod targets;
#[cfg(test)]
mod tests;
mod user;
mod values;

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use ipwarden_core::db::suspicious_ips::Status;
use ipwarden_core::duration::Term;
use ipwarden_engine::network::{Network, Parsed};

use crate::output::Format;

pub(crate) use self::export::{
    Export, ExportAllowlist, ExportBlocklist, ExportData, ExportFormat, RowsFormat,
};
pub(crate) use self::forget::Forget;
pub(crate) use self::geo::{Geo, GeoLookup, GeoSource, GeoUpdate};
pub(crate) use self::import::{
    Import, ImportAccessLog, ImportAllowlist, ImportBlocklist, ImportList,
};
pub(crate) use self::keys::{Bouncer, BouncerAdd, BouncerDelete, Key, KeyCreate, KeyRevoke};
pub(crate) use self::migrate_from::{FromCrowdsec, FromDjango, FromFail2ban, MigrateFrom};
pub(crate) use self::stats::Stats;
pub(crate) use self::targets::Targets;
pub(crate) use self::user::{User, UserAdd, UserName, UserRemove};
pub(crate) use self::values::Instant;

const EXAMPLES: &str = "\
Examples:
  ipctl block 203.0.113.9 --for 4h --reason scraping
  ipctl check 203.0.113.9
  ipctl list-suspicious
  ipctl review 17 --block --for 30d
  ipctl logs --ip 203.0.113.0/24 --follow

Exit codes:
  0   done, also when it was so already
  1   failure
  2   usage, or a target that is refused without --force
  3   the store is not reachable, or not there
  64  bad configuration";

/// See and steer ipwarden: who is blocked, who is suspicious, who asked for what.
#[derive(Debug, Parser)]
#[command(name = "ipctl", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// How data is written
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    #[arg(hide_possible_values = true, help = "How data is written: table, json, jsonl or csv")]
    pub(crate) output: Format,
    /// No header line in tables and CSV
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// The configuration file [default: ipwarden.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The store: sqlite://PATH or postgres://.. [default: as configured, else data/ipwarden.db]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Refuse every request from addresses or networks
    #[command(alias = "ban")]
    Block(Block),
    /// Take addresses or networks off the blocklist
    #[command(alias = "unban")]
    #[command(override_usage = "ipctl unblock [OPTIONS] <TARGET>...")]
    Unblock(Unblock),
    /// Show the blocklist
    #[command(alias = "banned")]
    ListBlocked(List),
    /// Let addresses or networks pass, whatever blocks and quotas say
    Allow(Allow),
    /// Take addresses or networks off the allowlist
    #[command(override_usage = "ipctl disallow [OPTIONS] <TARGET>...")]
    Disallow(Unblock),
    /// Show the allowlist
    ListAllowed(List),
    /// Show what the scan found
    ListSuspicious(ListSuspicious),
    /// Judge what the scan found: block it, or dismiss it
    Review(Review),
    /// Tell what every list says about an address, and what becomes of its requests
    Check(Check),
    /// Show the request log, the newest last
    Logs(Logs),
    /// Show requests and verdicts over time, and the busiest addresses, networks, paths and places
    Stats(Stats),
    /// Look for suspicious addresses now, in any hours
    Scan(Scan),
    /// Read what other programs wrote
    #[command(subcommand)]
    Import(Import),
    /// Write a list for other programs
    #[command(subcommand)]
    Export(Export),
    /// Ask the files of places
    #[command(subcommand)]
    Geo(Geo),
    /// API keys
    #[command(subcommand)]
    Key(Key),
    /// Programs elsewhere that enforce the blocklist
    #[command(subcommand)]
    Bouncer(Bouncer),
    /// People who sign in
    #[command(subcommand)]
    User(User),
    /// Delete for good what is stored of an address until now, in the store and on every node
    ///
    /// What cannot be undone is asked for first. The receipt names the nodes that hold nothing of it any
    /// more; --dry-run tells how much there is. What the address does afterwards is recorded as ever.
    Forget(Forget),
    /// Bring the store to the schema of this version
    Migrate(Migrate),
    /// Take over what another program remembers
    #[command(subcommand)]
    MigrateFrom(MigrateFrom),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write a completion script for a shell
    Completions(Completions),
    /// Write manual pages
    Man(Man),
}

/// What every command takes that changes something.
#[derive(Debug, Args)]
pub(crate) struct DryRun {
    /// Tell what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How long, and why.
#[derive(Debug, Args)]
pub(crate) struct Circumstances {
    /// How long: 90s, 15m, 4h, 30d, 1h30m or permanent
    #[arg(long = "for", short = 'd', visible_alias = "duration", value_name = "DURATION")]
    #[arg(default_value = "permanent")]
    pub(crate) term: Term,
    /// Why, for whoever asks later
    #[arg(long, short = 'R', value_name = "TEXT", value_parser = values::words)]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "ipctl block [OPTIONS] <TARGET>...")]
pub(crate) struct Block {
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) circumstances: Circumstances,
    /// Block even what would hurt: trusted proxies, allowed networks, this machine, yourself
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Unblock {
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
#[command(override_usage = "ipctl allow [OPTIONS] <TARGET>...")]
pub(crate) struct Allow {
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) circumstances: Circumstances,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// At most so many, the newest first [default: all]
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub(crate) limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct ListSuspicious {
    /// What became of them
    #[arg(long, value_enum, default_value = "open")]
    pub(crate) status: StatusFilter,
    /// At most so many, the newest first [default: all]
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub(crate) limit: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusFilter {
    /// Nobody has looked at them yet
    Open,
    /// Reviewed and blocked
    Blocked,
    /// Reviewed and found harmless
    Dismissed,
    /// Whatever became of them
    All,
}

impl StatusFilter {
    pub(crate) fn status(self) -> Option<Status> {
        match self {
            StatusFilter::Open => Some(Status::Open),
            StatusFilter::Blocked => Some(Status::Blocked),
            StatusFilter::Dismissed => Some(Status::Dismissed),
            StatusFilter::All => None,
        }
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("judgement").required(true))]
pub(crate) struct Review {
    /// Of the finding, as `ipctl list-suspicious` shows it
    #[arg(value_parser = values::finding)]
    pub(crate) id: i64,
    /// Block its address, just that
    #[arg(long, group = "judgement")]
    pub(crate) block: bool,
    /// It is harmless: leave it alone for 30 days
    #[arg(long, group = "judgement")]
    pub(crate) dismiss: bool,
    /// How long it is blocked: 4h, 30d or permanent
    #[arg(long = "for", short = 'd', visible_alias = "duration", value_name = "DURATION")]
    #[arg(default_value = "permanent", conflicts_with = "dismiss")]
    pub(crate) term: Term,
    /// Why it is blocked [default: what was found]
    #[arg(long, short = 'R', value_name = "TEXT", value_parser = values::words)]
    #[arg(conflicts_with = "dismiss")]
    pub(crate) reason: Option<String>,
    /// Block it even where that would hurt, as in `ipctl block`
    #[arg(long, conflicts_with = "dismiss")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("about").required(true))]
pub(crate) struct Check {
    /// An address or a CIDR
    #[arg(value_name = "IP", group = "about", value_parser = values::network)]
    pub(crate) target: Option<Parsed>,
    /// The same, for fingers that are used to it
    #[arg(short, long, group = "about", hide = true, value_parser = values::network)]
    pub(crate) ip: Option<Parsed>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Only requests from this address or CIDR
    #[arg(long, short, value_name = "IP", value_parser = values::bare_network)]
    pub(crate) ip: Option<Network>,
    /// Only paths that begin so; every character means itself
    #[arg(long, value_name = "PREFIX")]
    pub(crate) path: Option<String>,
    /// Only requests that the guard answered so
    #[arg(long, value_enum)]
    pub(crate) verdict: Option<Verdict>,
    /// Only from then on: 2026-11-22, 2026-11-22T17:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Instant>,
    /// Only before then
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    pub(crate) until: Option<Instant>,
    /// At most so many, the newest of all
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) limit: u32,
    /// Go on showing requests as they are recorded, until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verdict {
    /// Passed on
    Allowed,
    /// Refused with 403
    Blocked,
    /// Refused with 429
    Throttled,
}

impl Verdict {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Blocked => "blocked",
            Verdict::Throttled => "throttled",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// The first hour: 2026-11-22T17:00:00Z, 2026-11-22, or 3h for three hours ago [default: what
    /// is due, as the hourly scan does]
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Instant>,
    /// Up to here [default: now]
    #[arg(long, value_name = "TIME", requires = "from")]
    pub(crate) to: Option<Instant>,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Tell whether the configuration is good, and what is wrong with it
    Check,
    /// Show the configuration in force, without its secrets
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command whose page to write; without one, the page of ipctl itself
    pub(crate) command: Option<String>,
    /// Write all pages into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) dir: Option<PathBuf>,
}

/// What an instant that was written relative to now means.
pub(crate) fn resolve(instant: Option<Instant>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    instant.map(|instant| instant.resolve(now))
}
