//! `ipctl stats`.

use clap::{Args, ValueEnum};
use ipwarden_core::stats::{By, MOST};

use super::values::Instant;

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// From the hour of then on: 24h for a day ago, 7d, 2026-11-22 or 2026-11-22T17:00:00Z
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) since: Instant,
    /// Up to the end of the hour before then [default: the hour that goes on]
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Instant>,
    /// In which steps of time, UTC [default: hour for up to two days, else day]
    #[arg(long, value_enum)]
    pub(crate) by: Option<Steps>,
    /// So many of the busiest addresses, networks, paths, countries and ASNs each
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST)))]
    pub(crate) top: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Steps {
    /// Whole hours
    Hour,
    /// Whole days
    Day,
}

impl From<Steps> for By {
    fn from(steps: Steps) -> By {
        match steps {
            Steps::Hour => By::Hour,
            Steps::Day => By::Day,
        }
    }
}
