//! Small MaxMind-format files for tests, in the schemas that real ones have.
//!
//! Use the addresses of RFC 5737 (192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24) and RFC 3849
//! (2001:db8::/32) and the autonomous systems of RFC 5398 (64496 to 64511).

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, bail};
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde_json::{Value, json};

/// Writes a City file in the nested GeoIP2 schema, as `GeoLite2-City` is: `(network, country code,
/// city)`, an empty city being one that is not known.
pub fn write_city(path: &Path, places: &[(&str, &str, &str)]) -> anyhow::Result<()> {
    let mut file = GeoFile::new("GeoLite2-City");
    for (network, country, city) in places {
        file = file.network(network, nested_city(country, city));
    }
    file.write(path)
}

/// Writes a Country file in the nested GeoIP2 schema: `(network, country code)`.
pub fn write_country(path: &Path, places: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut file = GeoFile::new("GeoLite2-Country");
    for (network, country) in places {
        file = file.network(network, nested_city(country, ""));
    }
    file.write(path)
}

/// Writes an ASN file, whose schema is the same with all makers: `(network, number, organization)`.
pub fn write_asn(path: &Path, systems: &[(&str, u32, &str)]) -> anyhow::Result<()> {
    let mut file = GeoFile::new("GeoLite2-ASN");
    for (network, number, organization) in systems {
        file = file.network(
            network,
            json!({
                "autonomous_system_number": number,
                "autonomous_system_organization": organization,
            }),
        );
    }
    file.write(path)
}

/// Writes a City file in the flat schema of ip-location-db: `(network, country code, city)`. Like
/// those it holds either IPv4 or IPv6, by what the networks are.
pub fn write_flat_city(path: &Path, places: &[(&str, &str, &str)]) -> anyhow::Result<()> {
    let v4_only = places.iter().all(|(network, ..)| !network.contains(':'));
    let mut file = GeoFile::new(if v4_only { "city ipv4" } else { "city ipv6" });
    file.v4_only = v4_only;
    for (network, country, city) in places {
        file = file.network(
            network,
            json!({
                "city": city, "country_code": country, "latitude": 51.5, "longitude": -0.1,
                "postcode": "", "state1": "Somewhere", "state2": "", "timezone": "",
            }),
        );
    }
    file.write(path)
}

/// A record of the nested GeoIP2 schema with the fields that real ones have.
fn nested_city(country: &str, city: &str) -> Value {
    let names = |name: &str| json!({ "de": format!("{name} auf Deutsch"), "en": name });
    let of_country = json!({ "geoname_id": 1, "iso_code": country, "names": names(country) });
    let mut record = json!({
        "continent": { "code": "EU", "geoname_id": 2, "names": names("Europe") },
        "country": of_country,
        "location": { "accuracy_radius": 100, "latitude": 51.5, "longitude": -0.1 },
        "registered_country": of_country,
        "subdivisions": [{ "geoname_id": 3, "iso_code": "XX", "names": names("Somewhere") }],
    });
    if !city.is_empty() {
        record["city"] = json!({ "geoname_id": 4, "names": names(city) });
    }
    record
}

/// A file of any shape, network by network.
pub struct GeoFile {
    database_type: String,
    build_epoch: u64,
    v4_only: bool,
    networks: Vec<(String, Value)>,
}

impl GeoFile {
    /// An empty file that calls itself `database_type`, for IPv4 and IPv6.
    pub fn new(database_type: &str) -> GeoFile {
        GeoFile {
            database_type: database_type.to_owned(),
            build_epoch: 1_790_000_000,
            v4_only: false,
            networks: Vec::new(),
        }
    }

    /// The same, built at `epoch` (seconds since the Unix epoch).
    pub fn built(mut self, epoch: u64) -> GeoFile {
        self.build_epoch = epoch;
        self
    }

    /// The same without room for IPv6.
    pub fn v4_only(mut self) -> GeoFile {
        self.v4_only = true;
        self
    }

    /// The same with a record for `network` (`address/prefix`); a longer prefix wins.
    pub fn network(mut self, network: &str, record: Value) -> GeoFile {
        self.networks.push((network.to_owned(), record));
        self
    }

    /// The same without the record for `network`.
    pub fn without(mut self, network: &str) -> GeoFile {
        self.networks.retain(|(other, _)| other != network);
        self
    }

    /// The file's bytes.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut database = Database::default();
        database.metadata.binary_format_major_version = 2;
        database.metadata.ip_version = if self.v4_only { IpVersion::V4 } else { IpVersion::V6 };
        database.metadata.database_type.clone_from(&self.database_type);
        database.metadata.build_epoch = self.build_epoch;
        let mut networks = Vec::new();
        for (network, record) in &self.networks {
            networks.push((self.path_of(network)?, record));
        }
        // The writer lets what comes later win, so the longest prefix comes last.
        networks.sort_by_key(|(path, _)| path.mask);
        for (path, record) in networks {
            let record = database.insert_value(record)?;
            database.insert_node(path, record);
        }
        Ok(database.write_to(Vec::new())?)
    }

    /// Writes the file beside `path` and renames it into place, as makers' own updaters do.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let beside = path.with_extension("new");
        fs::write(&beside, self.bytes()?)?;
        fs::rename(&beside, path).with_context(|| path.display().to_string())
    }

    /// Where a network stands in the tree: IPv4 in an IPv6 tree under ::/96.
    fn path_of(&self, network: &str) -> anyhow::Result<IpAddrWithMask> {
        let (address, prefix) = network.split_once('/').context("address/prefix")?;
        let prefix: u8 = prefix.parse()?;
        Ok(match address.parse()? {
            IpAddr::V4(v4) if !self.v4_only => {
                let in_v6 = Ipv6Addr::from_bits(v4.to_bits().into());
                IpAddrWithMask::new(in_v6.into(), prefix + 96)
            }
            IpAddr::V6(_) if self.v4_only => bail!("{network} in a file for IPv4 only"),
            address => IpAddrWithMask::new(address, prefix),
        })
    }
}
