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

use std::fmt;
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
/// Of the four families, as the header counts them.
const ENTRY_SIZES: [usize; 4] = [ENTRY4, ENTRY6, ENTRY4, ENTRY6];
const NEVER: i64 = i64::MAX;
const CHECKED: &str = "every entry was checked as the bytes were decoded";

/// Both lists, entry by entry, as they stood at one version: the bytes of the file, found to be whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    bytes: Vec<u8>,
    /// As in the header.
    counts: [u32; 4],
}

impl Snapshot {
    /// The version of the store that this is a picture of.
    pub fn version(&self) -> i64 {
        le_i64(&self.bytes[12..20])
    }

    /// When the change of that version was made: tells the store that it is of from any other. 0 if
    /// that is not known.
    pub fn made(&self) -> i64 {
        le_i64(&self.bytes[20..28])
    }

    /// How many entries the blocklist has, and the allowlist.
    pub fn counts(&self) -> (usize, usize) {
        let [blocked, allowed] = [0, 2]
            .map(|list| self.counts[list..list + 2].iter().map(|count| *count as usize).sum());
        (blocked, allowed)
    }

    /// The blocklist, IPv4 before IPv6.
    pub fn blocked(&self) -> impl Iterator<Item = ListEntry> {
        self.list(0).map(|entry| entry.expect(CHECKED))
    }

    /// The allowlist, likewise.
    pub fn allowed(&self) -> impl Iterator<Item = ListEntry> {
        self.list(2).map(|entry| entry.expect(CHECKED))
    }

    /// The entries of the two families from this one on; `None` is what cannot be an entry.
    fn list(&self, family: usize) -> impl Iterator<Item = Option<ListEntry>> {
        let sizes = self.counts.iter().zip(ENTRY_SIZES).map(|(count, size)| *count as usize * size);
        let begins = HEADER + sizes.take(family).sum::<usize>();
        let (narrow, wide) = self.bytes[begins..].split_at(self.counts[family] as usize * ENTRY4);
        let wide = &wide[..self.counts[family + 1] as usize * ENTRY6];
        let (narrow, wide) = (narrow.as_chunks::<ENTRY4>().0, wide.as_chunks::<ENTRY6>().0);
        narrow.iter().map(entry::<4, ENTRY4>).chain(wide.iter().map(entry::<16, ENTRY6>))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.version())
            .field("made", &self.made())
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
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
    match decode(bytes) {
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
pub fn decode(bytes: Vec<u8>) -> Result<Snapshot, Damage> {
    if bytes.get(..8).is_none_or(|magic| magic != MAGIC) {
        return Err(Damage::Foreign);
    }
    let short = Damage::Length { found: bytes.len(), expected: (HEADER + CHECKSUM) as u64 };
    let header = bytes.first_chunk::<HEADER>().ok_or(short)?;
    let format = le_u32(&header[8..12]);
    if format != FORMAT {
        return Err(Damage::Format(format));
    }
    let counts: [u32; 4] = std::array::from_fn(|at| le_u32(&header[28 + 4 * at..][..4]));
    let entries: u64 =
        counts.iter().zip(ENTRY_SIZES).map(|(count, size)| u64::from(*count) * size as u64).sum();
    let expected = (HEADER + CHECKSUM) as u64 + entries;
    if bytes.len() as u64 != expected {
        return Err(Damage::Length { found: bytes.len(), expected });
    }
    let (summed, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if crc32fast::hash(summed) != le_u32(checksum) {
        return Err(Damage::Checksum);
    }
    let snapshot = Snapshot { bytes, counts };
    let impossible = snapshot.list(0).chain(snapshot.list(2)).position(|entry| entry.is_none());
    match impossible {
        Some(at) => Err(Damage::Entry(at + 1)),
        None => Ok(snapshot),
    }
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("callers pass four bytes"))
}

fn le_i64(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("callers pass eight bytes"))
}

fn entry<const ADDRESS: usize, const ENTRY: usize>(bytes: &[u8; ENTRY]) -> Option<ListEntry>
where
    IpAddr: From<[u8; ADDRESS]>,
{
    let (address, terms) = bytes.split_first_chunk::<ADDRESS>()?;
    let (ends, by_scan) = (i64::from_le_bytes(*terms.last_chunk::<8>()?), terms[1]);
    let address = IpAddr::from(*address);
    let network = Network::new(address, terms[0]).ok()?;
    (network.address() == address && by_scan <= 1).then_some(ListEntry {
        network,
        ends: (ends != NEVER).then_some(ends),
        by_scan: by_scan == 1,
    })
}
