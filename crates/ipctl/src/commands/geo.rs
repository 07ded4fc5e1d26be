//! `ipctl geo`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipwarden_core::config::Config;
use ipwarden_core::context::geo_files;
use ipwarden_core::geo::{FileSummary, Geo, Kind, Place};
use serde::Serialize;

use super::rows::{number, plain, prose, untinted};
use crate::cli::GeoLookup;
use crate::failure::Failure;
use crate::invocation::{Invocation, tell};
use crate::output::{Column, Object, Row, Tint, clean, count};

/// Opens the files of the configuration, without a copy and without caches beyond this process.
pub(super) fn open(config: &Config) -> Geo {
    Geo::open(geo_files(config), None, None)
}

pub(super) async fn lookup(given: Invocation, args: GeoLookup) -> Result<(), Failure> {
    let geo = open(&given.load()?.config);
    if geo.files().is_empty() {
        tell(NO_FILES);
    }
    let places = geo.places(&args.addresses, given.now).await;
    let rows: Vec<_> = args
        .addresses
        .into_iter()
        .zip(places)
        .map(|(address, place)| Located { address, place })
        .collect();
    given.out.rows(&rows, "")?;
    if given.out.is_for_people() {
        let asked: BTreeSet<_> =
            geo.files().into_iter().filter_map(|file| file.attribution).collect();
        asked.into_iter().for_each(tell);
    }
    Ok(())
}

pub(super) fn info(given: Invocation) -> Result<(), Failure> {
    let geo = open(&given.load()?.config);
    Ok(given.out.rows(&geo.files(), NO_FILES)?)
}

const NO_FILES: &str = "there are no files of places: `ipctl geo update --from dbip-city-lite` gets \
    one; geoip/README.md tells of others";

#[derive(Serialize)]
struct Located {
    address: IpAddr,
    #[serde(flatten)]
    place: Place,
}

impl Object for Located {
    const FIELDS: &'static [&'static str] = &["address", "country", "city", "asn"];
}

impl Row for Located {
    const COLUMNS: &'static [Column] =
        &[plain("ADDRESS"), plain("COUNTRY"), number("ASN"), prose("CITY")];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        untinted([
            self.address.to_string(),
            or_dash(self.place.country.map(|country| country.to_string())),
            or_dash(self.place.asn.map(|asn| asn.to_string())),
            or_dash(self.place.city.as_deref().map(clean)),
        ])
    }
}

impl Object for FileSummary {
    const FIELDS: &'static [&'static str] = &[
        "path",
        "database_type",
        "kind",
        "schema",
        "built",
        "ip_version",
        "nodes",
        "bytes",
        "attribution",
        "unreadable",
    ];
}

impl Row for FileSummary {
    const COLUMNS: &'static [Column] = &[
        prose("FILE"),
        plain("KIND"),
        plain("TYPE"),
        plain("BUILT"),
        number("SIZE"),
        prose("LICENCE ASKS FOR"),
    ];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let kind = match self.kind {
            Kind::City => "city",
            Kind::Country => "country",
            Kind::Asn => "asn",
        };
        let families = if self.ip_version == 4 { ", IPv4 only" } else { "" };
        untinted([
            clean(&self.path.display().to_string()),
            format!("{kind}{families}"),
            clean(&self.database_type),
            self.built.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%d").to_string()),
            count(self.bytes.div_ceil(1 << 10), "KiB", "KiB"),
            self.attribution.unwrap_or("-").to_owned(),
        ])
    }
}
