//! One MaxMind-format file, opened and found readable.
//!
//! A file that cannot be used is refused when it is opened, as far as a sample of its records shows;
//! what is damaged beyond that makes an address unknown and is counted, and never fails a look-up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use maxminddb::{MaxMindDbError, Reader};
use quick_cache::sync::Cache;
use serde::Serialize;

use super::copy::{Bytes, Copied};
use super::place::Place;
use super::record::{Record, Schema};

/// Decoded records that are remembered per file. A City file has some 100,000 to 300,000, but most
/// traffic falls on few of them.
const MEMO_RECORDS: usize = 32_768;

/// Records that are read before a file is accepted: the first ones in the tree, and as many
/// addresses spread over all of it.
const PROBED_RECORDS: usize = 1_024;

/// What a file is about. The order is that in which files of one directory are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Countries and cities.
    City,
    /// Countries.
    Country,
    /// Autonomous systems.
    Asn,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or copied.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is damaged, incomplete, or of another format.
    #[error("is damaged or not in MaxMind's format: {0}")]
    Format(#[from] MaxMindDbError),
    /// Its records hold nothing that a place is made of.
    #[error("holds no country, city or autonomous system (type {0:?})")]
    NoPlaces(String),
    /// Somebody is writing it right now.
    #[error("is being written")]
    Changing,
}

/// What a file says about itself, for `ipctl geo info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSummary {
    /// The original's path.
    pub path: PathBuf,
    /// What it calls itself, such as `GeoLite2-City`.
    pub database_type: String,
    /// What it is about.
    pub kind: Kind,
    /// How it writes its records.
    pub schema: Schema,
    /// When its maker built it.
    pub built: Option<DateTime<Utc>>,
    /// 4 if it knows IPv4 addresses only, 6 if its tree is of IPv6 (and may hold IPv4).
    pub ip_version: u16,
    /// Nodes of its search tree.
    pub nodes: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// What its maker's licence asks to be shown, where the maker is recognised.
    pub attribution: Option<&'static str>,
    /// Look-ups since it was opened that met a damaged record.
    pub unreadable: u64,
}

/// An open file.
pub(super) struct GeoFile {
    path: PathBuf,
    reader: Reader<Bytes>,
    length: u64,
    crc: u32,
    kind: Kind,
    knows_asn: bool,
    schema: Schema,
    /// Places by the offset of their record: many networks share one.
    memo: Cache<usize, Place>,
    unreadable: AtomicU64,
}

impl GeoFile {
    /// Opens the bytes copied from `path`.
    pub(super) fn open(path: &Path, copied: Copied) -> Result<GeoFile, FileError> {
        let length = copied.bytes.as_ref().len() as u64;
        let reader = Reader::from_source(copied.bytes)?;
        let probe = Probe::of(&reader)?;
        let database_type = &reader.metadata().database_type;
        let Some(kind) = probe.kind() else {
            return Err(FileError::NoPlaces(database_type.chars().take(64).collect()));
        };
        Ok(GeoFile {
            path: path.to_owned(),
            length,
            crc: copied.crc,
            kind,
            knows_asn: probe.asn,
            schema: probe.schema,
            reader,
            memo: Cache::new(MEMO_RECORDS),
            unreadable: AtomicU64::new(0),
        })
    }

    /// What this file knows about a canonical address; nothing about an IPv6 address if it holds
    /// IPv4 only.
    pub(super) fn find(&self, address: IpAddr) -> Place {
        self.try_find(address).unwrap_or_else(|_| {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
            Place::default()
        })
    }

    fn try_find(&self, address: IpAddr) -> Result<Place, MaxMindDbError> {
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(Place::default());
        }
        let found = self.reader.lookup(address)?;
        let Some(offset) = found.offset() else { return Ok(Place::default()) };
        if let Some(place) = self.memo.get(&offset) {
            return Ok(place);
        }
        let place = found.decode::<Record<'_>>()?.unwrap_or_default().place();
        self.memo.insert(offset, place.clone());
        Ok(place)
    }

    /// What the file is about.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether any record of the sample holds an autonomous system.
    pub(super) fn knows_asn(&self) -> bool {
        self.knows_asn
    }

    /// Seconds since the Unix epoch at which the maker built it.
    pub(super) fn build_epoch(&self) -> u64 {
        self.reader.metadata().build_epoch
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// CRC-32 of the whole file.
    pub(super) fn crc(&self) -> u32 {
        self.crc
    }

    /// What the file says about itself.
    pub(super) fn summary(&self) -> FileSummary {
        let metadata = self.reader.metadata();
        let built = i64::try_from(metadata.build_epoch).ok();
        FileSummary {
            path: self.path.clone(),
            database_type: metadata.database_type.escape_default().take(64).collect(),
            kind: self.kind,
            schema: self.schema,
            built: built.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
            ip_version: metadata.ip_version,
            nodes: metadata.node_count,
            bytes: self.length,
            attribution: attribution(&self.path, &metadata.database_type),
            unreadable: self.unreadable.load(Ordering::Relaxed),
        }
    }
}

/// What a sample of a file's records holds.
struct Probe {
    schema: Schema,
    country: bool,
    city: bool,
    asn: bool,
}

impl Probe {
    /// Reads a sample; an error in any of it is the file's.
    fn of(reader: &Reader<Bytes>) -> Result<Probe, MaxMindDbError> {
        let mut probe = Probe { schema: Schema::Flat, country: false, city: false, asn: false };
        for found in reader.networks(Default::default())?.take(PROBED_RECORDS) {
            probe.add(found?.decode()?);
        }
        let v4_only = reader.metadata().ip_version == 4;
        for address in spread().filter(|address| address.is_ipv4() || !v4_only) {
            probe.add(reader.lookup(address)?.decode()?);
        }
        Ok(probe)
    }

    fn add(&mut self, record: Option<Record<'_>>) {
        let Some(record) = record else { return };
        if record.schema() == Schema::Nested {
            self.schema = Schema::Nested;
        }
        let place = record.place();
        self.country |= place.country.is_some();
        self.city |= place.city.is_some();
        self.asn |= place.asn.is_some();
    }

    fn kind(&self) -> Option<Kind> {
        match self {
            Probe { city: true, .. } => Some(Kind::City),
            Probe { country: true, .. } => Some(Kind::Country),
            Probe { asn: true, .. } => Some(Kind::Asn),
            _ => None,
        }
    }
}

/// Addresses spread evenly over IPv4 and over the IPv6 that is given out (2000::/3).
fn spread() -> impl Iterator<Item = IpAddr> {
    let count = PROBED_RECORDS as u32;
    let v4 = (0..count).map(move |n| Ipv4Addr::from_bits(n * (u32::MAX / count)).into());
    let step = (1u128 << 125) / u128::from(count);
    let v6 = (0..count)
        .map(move |n| Ipv6Addr::from_bits((1u128 << 125) + u128::from(n) * step + 1).into());
    v4.chain(v6)
}

/// The words that a maker's licence asks for, by what the file calls itself or is called.
fn attribution(path: &Path, database_type: &str) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let known_as = format!("{database_type} {name}").to_ascii_lowercase();
    [
        (
            "geolite",
            "This product includes GeoLite Data created by MaxMind, available from \
                     https://www.maxmind.com (GeoLite End User License Agreement)",
        ),
        ("dbip", "IP Geolocation by DB-IP, https://db-ip.com (CC BY 4.0)"),
        ("db-ip", "IP Geolocation by DB-IP, https://db-ip.com (CC BY 4.0)"),
        ("geoip2", "GeoIP2 by MaxMind, https://www.maxmind.com (commercial licence)"),
    ]
    .into_iter()
    .find_map(|(part, words)| known_as.contains(part).then_some(words))
}
