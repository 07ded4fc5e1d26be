//! `ipctl user`.

use clap::{Args, Subcommand, ValueEnum};
use ipwarden_core::keys::Role;

use super::{DryRun, values};

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add somebody; the password is asked for, or read from standard input
    Add(UserAdd),
    /// Show everybody
    List,
    /// Remove somebody, and end all his sessions
    Remove(UserRemove),
    /// Give somebody another password, and end all his sessions
    ///
    /// It is asked for, or read from standard input.
    Passwd(UserName),
}

#[derive(Debug, Args)]
pub(crate) struct UserAdd {
    /// Letters, digits and any of . _ - @
    #[arg(value_parser = values::person)]
    pub(crate) name: String,
    /// What he may do besides having a quota of his own
    #[arg(long, value_enum, default_value = "user", value_name = "ROLE")]
    pub(crate) role: PersonRole,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

/// The roles of people; only keys are bouncers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PersonRole {
    /// Nothing
    User,
    /// Read everything but keys and users
    Reader,
    /// Change lists and findings too
    Operator,
    /// Everything
    Admin,
}

impl PersonRole {
    pub(crate) fn role(self) -> Role {
        match self {
            PersonRole::User => Role::User,
            PersonRole::Reader => Role::Reader,
            PersonRole::Operator => Role::Operator,
            PersonRole::Admin => Role::Admin,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct UserName {
    /// As `ipctl user list` shows it
    #[arg(value_parser = values::person)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct UserRemove {
    /// As `ipctl user list` shows it
    #[arg(value_parser = values::person)]
    pub(crate) name: String,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}
