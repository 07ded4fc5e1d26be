//! `ipctl migrate-from`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipwarden_core::config::StoreUrl;

use super::{DryRun, values};

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateFrom {
    /// Take over the tables of a Django application: its log, its blocks, its suspicious addresses
    ///
    /// They are only read. Twice adds nothing but what is new there.
    Django(FromDjango),
    /// Take over the bans in the database of fail2ban
    Fail2ban(FromFail2ban),
    /// Take over what `cscli decisions list -o json` or `-o raw` wrote
    Crowdsec(FromCrowdsec),
}

#[derive(Debug, Args)]
pub(crate) struct FromDjango {
    /// Its database: sqlite:///PATH or postgres://..
    #[arg(long, value_name = "URL", value_parser = values::store_url)]
    pub(crate) url: StoreUrl,
    /// The label of the application, with which the names of its tables begin
    #[arg(long, value_name = "LABEL", default_value = "ip_tracking", value_parser = values::label)]
    pub(crate) app: String,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct FromFail2ban {
    /// Its database, usually /var/lib/fail2ban/fail2ban.sqlite3
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct FromCrowdsec {
    /// The file; `-` is standard input. What it says of ends counts from when it was written
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}
