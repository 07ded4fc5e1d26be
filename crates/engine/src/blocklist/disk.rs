//! The last snapshot on disk, so that a restart without its database still blocks.
//!
//! The file is replaced whole or not at all: written beside its place, synced, renamed. What is read
//! back is what was written or an error, never something in between: the length must fit to the byte
//! and a checksum covers everything before it.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `ipwlists` |
//! | 4 | version of the format, 2 |
//! | 8 | version of the lists |
//! | 8 | when the last change of them was made, in µs since the Unix epoch by the store's clock |
//! | 4 x 4 | how many entries: blocked IPv4, blocked IPv6, allowed IPv4, allowed IPv6 |
//! | 14 or 26 each | address, length of the prefix, 1 if by the scan alone, end in µs since the Unix epoch (the greatest number: never) |
//! | 4 | CRC-32 of all the above |
//!
//! Numbers are little-endian, addresses in network order. It is a copy, not a store: what cannot be
//! read is ignored and written anew from the database.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::ListEntry;
use crate::network::Network;

const MAGIC: [u8; 8] = *b"ipwlists";
const FORMAT: u32 = 2;
const HEADER: usize = 8 + 4 + 8 + 8 + 4 * 4;
const CHECKSUM: usize = 4;
/// What follows an address: prefix, flag, end.
const TERMS: usize = 1 + 1 + 8;
const ENTRY4: usize = 4 + TERMS;
const ENTRY6: usize = 16 + TERMS;
const NEVER: i64 = i64::MAX;

/// Both lists, entry by entry, as they stood at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the store that this is a picture of.
    pub version: i64,
    /// When the change of that version was made: tells the store that it is of from any other. 0 if
    /// that is not known.
    pub made: i64,
    /// The blocklist.
    pub blocked: Vec<ListEntry>,
    /// The allowlist.
    pub allowed: Vec<ListEntry>,
}

/// Why there is no snapshot to be had from the disk, or none on it.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The file is there but cannot be read.
    #[error("cannot read the copy of the lists {}, so it is ignored: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not, to the bit, what was once written.
    #[error("the copy of the lists {} is ignored: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The file could not be replaced; the one before is still there.
    #[error("cannot write the copy of the lists {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with the bytes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// It does not begin like one.
    #[error("it is not a copy of the lists")]
    Foreign,
    /// Another version of ipwarden wrote it.
    #[error("its format is {0}, this program reads format {FORMAT}")]
    Format(u32),
    /// Bytes are missing or too many.
    #[error("it has {found} bytes where {expected} belong")]
    Length {
        /// How many bytes there are.
        found: usize,
        /// How many the header calls for.
        expected: u64,
    },
    /// Bytes have changed.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right, but this cannot be an entry.
    #[error("entry {0} is not a network")]
    Entry(usize),
}

/// Replaces the file at `path` by this snapshot.
///
/// Returns when the disk has it; the directory must exist.
pub fn save<B, A>(
    path: &Path,
    version: i64,
    made: i64,
    blocked: B,
    allowed: A,
) -> Result<(), DiskError>
where
    B: IntoIterator<Item = ListEntry>,
    A: IntoIterator<Item = ListEntry>,
{
    write(path, &encode(version, made, blocked, allowed))
}

/// Reads the snapshot at `path`; `None` if there is no such file.
pub fn load(path: &Path) -> Result<Option<Snapshot>, DiskError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiskError::Read { path: path.to_owned(), source }),
    };
    match decode(&bytes) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(damage) => Err(DiskError::Damaged { path: path.to_owned(), damage }),
    }
}

/// Replaces the file at `path` by what [`encode`] returned; apart from it, so that the entries need
/// not be held while the disk takes its time.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let beside = path.with_added_extension("new");
    let replace = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename itself is durable once the directory is.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    replace().map_err(|source| DiskError::Write { path: path.to_owned(), source })
}

/// The bytes of a snapshot.
pub fn encode<B, A>(version: i64, made: i64, blocked: B, allowed: A) -> Vec<u8>
where
    B: IntoIterator<Item = ListEntry>,
    A: IntoIterator<Item = ListEntry>,
{
    let mut bytes = vec![0; HEADER];
    let blocked = push_entries(&mut bytes, blocked.into_iter());
    let allowed = push_entries(&mut bytes, allowed.into_iter());
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..20].copy_from_slice(&version.to_le_bytes());
    bytes[20..28].copy_from_slice(&made.to_le_bytes());
    for (place, count) in
        bytes[28..HEADER].chunks_exact_mut(4).zip([blocked, allowed].as_flattened())
    {
        place.copy_from_slice(&count.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Appends the entries, IPv4 before IPv6, and says how many of each.
fn push_entries(bytes: &mut Vec<u8>, entries: impl Iterator<Item = ListEntry>) -> [u32; 2] {
    let mut counts = [0u32; 2];
    bytes.reserve(entries.size_hint().0 * ENTRY4);
    let mut wide = Vec::new();
    for entry in entries {
        match entry.network.address() {
            IpAddr::V4(first) => {
                counts[0] += 1;
                bytes.extend_from_slice(&first.octets());
                push_terms(bytes, &entry);
            }
            IpAddr::V6(first) => {
                counts[1] += 1;
                wide.extend_from_slice(&first.octets());
                push_terms(&mut wide, &entry);
            }
        }
    }
    bytes.append(&mut wide);
    counts
}

fn push_terms(bytes: &mut Vec<u8>, entry: &ListEntry) {
    bytes.extend_from_slice(&[entry.network.prefix(), u8::from(entry.by_scan)]);
    bytes.extend_from_slice(&entry.ends.unwrap_or(NEVER).to_le_bytes());
}

/// The snapshot that [`encode`] made these bytes of.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, Damage> {
    if bytes.get(..8).is_none_or(|magic| magic != MAGIC) {
        return Err(Damage::Foreign);
    }
    let short = Damage::Length { found: bytes.len(), expected: (HEADER + CHECKSUM) as u64 };
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(short)?;
    let format = le_u32(&header[8..12]);
    if format != FORMAT {
        return Err(Damage::Format(format));
    }
    let counts: [u32; 4] = std::array::from_fn(|at| le_u32(&header[28 + 4 * at..][..4]));
    let lengths = [ENTRY4, ENTRY6, ENTRY4, ENTRY6];
    let entries: u64 =
        counts.iter().zip(lengths).map(|(count, length)| u64::from(*count) * length as u64).sum();
    let expected = (HEADER + CHECKSUM) as u64 + entries;
    if bytes.len() as u64 != expected {
        return Err(Damage::Length { found: bytes.len(), expected });
    }
    let (summed, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if crc32fast::hash(summed) != le_u32(checksum) {
        return Err(Damage::Checksum);
    }
    let mut entries = Entries { rest, read: 0 };
    let mut list = |narrow: u32, wide: u32| {
        let mut list = Vec::with_capacity(narrow as usize + wide as usize);
        for _ in 0..narrow {
            list.push(entries.next::<4, ENTRY4>()?);
        }
        for _ in 0..wide {
            list.push(entries.next::<16, ENTRY6>()?);
        }
        Ok(list)
    };
    Ok(Snapshot {
        version: le_i64(&header[12..20]),
        made: le_i64(&header[20..28]),
        blocked: list(counts[0], counts[1])?,
        allowed: list(counts[2], counts[3])?,
    })
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("callers pass four bytes"))
}

fn le_i64(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("callers pass eight bytes"))
}

struct Entries<'a> {
    rest: &'a [u8],
    read: usize,
}

impl Entries<'_> {
    fn next<const ADDRESS: usize, const ENTRY: usize>(&mut self) -> Result<ListEntry, Damage>
    where
        IpAddr: From<[u8; ADDRESS]>,
    {
        let (entry, rest) = self
            .rest
            .split_first_chunk::<ENTRY>()
            .expect("the length was checked against the counts");
        self.rest = rest;
        self.read += 1;
        let (address, terms) =
            entry.split_first_chunk::<ADDRESS>().expect("an entry begins with its address");
        let (ends, by_scan) =
            (terms.last_chunk::<8>().expect("an entry closes with its end"), terms[1]);
        let (address, ends) = (IpAddr::from(*address), i64::from_le_bytes(*ends));
        match Network::new(address, terms[0]) {
            Ok(network) if network.address() == address && by_scan <= 1 => Ok(ListEntry {
                network,
                ends: (ends != NEVER).then_some(ends),
                by_scan: by_scan == 1,
            }),
            _ => Err(Damage::Entry(self.read)),
        }
    }
}
