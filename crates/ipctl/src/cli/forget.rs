//! `ipctl forget`.

use clap::{ArgGroup, Args, ValueEnum};
use ipwarden_core::duration;
use ipwarden_core::forget::OnLists;
use ipwarden_engine::network::Network;

use super::{DryRun, values};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
#[command(override_usage = "ipctl forget [OPTIONS] <IP>\n       ipctl forget --status [ID]")]
pub(crate) struct Forget {
    /// An address, or a network no wider than /24 (IPv4) or /64 (IPv6)
    #[arg(value_name = "IP", group = "what", value_parser = values::forgettable)]
    pub(crate) target: Option<Network>,
    /// Show what was forgotten of late, or one of these, and which nodes have confirmed it
    #[arg(long, value_name = "ID", group = "what", num_args = 0..=1)]
    #[arg(conflicts_with_all = ["lists", "wait", "yes", "dry_run"])]
    pub(crate) status: Option<Option<i64>>,
    /// What becomes of its entries on the blocklist and the allowlist; needed if there are any
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) lists: Option<Lists>,
    /// How long to wait for all nodes to confirm
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub(crate) wait: std::time::Duration,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

/// What becomes of entries of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lists {
    /// They stay: it stays blocked, or allowed
    Keep,
    /// They go too
    Remove,
}

impl From<Lists> for OnLists {
    fn from(lists: Lists) -> OnLists {
        match lists {
            Lists::Keep => OnLists::Keep,
            Lists::Remove => OnLists::Remove,
        }
    }
}
