//! `ipctl key` and `ipctl bouncer`.

use clap::{Args, Subcommand};
use ipwarden_core::keys::Role;

use super::{DryRun, values};

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key; it is shown once, on standard output
    Create(KeyCreate),
    /// Show all keys, revoked ones too, without their secrets
    List,
    /// End a key at once
    Revoke(KeyRevoke),
}

#[derive(Debug, Args)]
pub(crate) struct KeyCreate {
    /// What it is for
    #[arg(value_parser = values::name)]
    pub(crate) name: String,
    /// What its holder may do: user (a quota of its own), reader, operator, admin, bouncer
    #[arg(long, default_value = "user", value_name = "ROLE")]
    pub(crate) role: Role,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRevoke {
    /// Of the key, as `ipctl key list` shows it
    pub(crate) id: String,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bouncer {
    /// Make a key for a bouncer; it is shown once, on standard output
    Add(BouncerAdd),
    /// Show all bouncers: where they are, what they are, when they last asked
    List,
    /// End a bouncer's key at once, and forget it
    Delete(BouncerDelete),
}

#[derive(Debug, Args)]
pub(crate) struct BouncerAdd {
    /// What it is called, such as the machine it runs on
    #[arg(value_parser = values::name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct BouncerDelete {
    /// Its name, or the id of its key
    pub(crate) name: String,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}
