//! The files in use at one time, asked as one; immutable, and swapped whole.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::file::GeoFile;
use super::place::Place;

/// Tells the contents of one set of files from another's, alike on every replica that has the same
/// files. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BuildId(u64);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for BuildId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<BuildId, Self::Err> {
        u64::from_str_radix(text, 16).map(BuildId)
    }
}

/// Files in the order in which they are asked.
#[derive(Default)]
pub(super) struct FileSet {
    files: Vec<Arc<GeoFile>>,
    /// Without any such file the first that knows the country ends the search.
    knows_asn: bool,
    build: BuildId,
}

impl FileSet {
    pub(super) fn new(files: Vec<Arc<GeoFile>>) -> FileSet {
        // FNV-1a over contents, not names: a renamed file is still the same build.
        let contents = files.iter().flat_map(|file| {
            [file.build_epoch(), file.length(), u64::from(file.crc())].map(u64::to_le_bytes)
        });
        let hash = contents.flatten().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let knows_asn = files.iter().any(|file| file.knows_asn());
        FileSet { files, knows_asn, build: BuildId(hash) }
    }

    /// Everything known about a canonical address. Country and city come from one file, the first
    /// that knows either, so that no answer names a city of one maker in a country of another.
    pub(super) fn find(&self, address: IpAddr) -> Place {
        let mut answer = Place::default();
        for file in &self.files {
            let place = file.find(address);
            if answer.country.is_none() && answer.city.is_none() {
                answer.country = place.country;
                answer.city = place.city;
            }
            answer.asn = answer.asn.or(place.asn);
            if answer.country.is_some() && (answer.asn.is_some() || !self.knows_asn) {
                break;
            }
        }
        answer
    }

    pub(super) fn build(&self) -> BuildId {
        self.build
    }

    pub(super) fn files(&self) -> &[Arc<GeoFile>] {
        &self.files
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}
