//! The private copy that is mapped, so that nothing done to the original can be felt.
//!
//! A mapped file that is truncated or rewritten in place kills the process (SIGBUS) or answers
//! nonsense, and that is just how people update these files. So a file is copied first, into a
//! directory of this process's own, and only the copy is mapped. Where no directory may be
//! written, the file is read into memory instead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use maxminddb::Mmap;

/// Ends the name of a copy that is not complete.
const PARTIAL: &str = ".partial";

/// The bytes of a file, out of everyone's reach, with their CRC-32.
pub(super) struct Copied {
    pub(super) bytes: Bytes,
    pub(super) crc: u32,
}

/// Bytes that stay as they are for as long as they are held.
pub(super) enum Bytes {
    Mapped(Mmap),
    Memory(Vec<u8>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }
}

/// Where copies are kept.
pub(super) struct Copies {
    directory: PathBuf,
}

impl Copies {
    /// Uses `directory`, creating it if need be, and clears what an earlier process left half done.
    pub(super) fn open(directory: PathBuf) -> io::Result<Copies> {
        fs::create_dir_all(&directory)?;
        let copies = Copies { directory };
        copies.remove_where(|name| name.ends_with(PARTIAL))?;
        Ok(copies)
    }

    /// Copies the file at `source` and maps the copy. It does not yet replace the last good one:
    /// that is for [`keep`](Copies::keep), once the copy proved readable.
    pub(super) fn take(&self, source: &Path) -> io::Result<Copied> {
        let mut from = File::open(source)?;
        // Always a new inode, so that no mapped one is ever written to.
        self.discard(source);
        let mut to = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.partial(source))?;
        let crc = copy_with_crc(&mut from, &mut to)?;
        Ok(Copied { bytes: Bytes::Mapped(map_private(&to)?), crc })
    }

    /// Makes the copy just taken of `source` the one a later process falls back on.
    pub(super) fn keep(&self, source: &Path) -> io::Result<()> {
        fs::rename(self.partial(source), self.complete(source))
    }

    /// Forgets the copy just taken of `source`.
    pub(super) fn discard(&self, source: &Path) {
        // A leftover is cleared at the next start.
        let _ = fs::remove_file(self.partial(source));
    }

    /// The last good copy of `source`, taken by an earlier process.
    pub(super) fn last_good(&self, source: &Path) -> io::Result<Copied> {
        let file = File::open(self.complete(source))?;
        let bytes = map_private(&file)?;
        let crc = crc32fast::hash(&bytes);
        Ok(Copied { bytes: Bytes::Mapped(bytes), crc })
    }

    /// Removes the copies of all files but `sources`. What is mapped stays mapped.
    pub(super) fn retain<'a>(&self, sources: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        let kept: Vec<PathBuf> = sources.map(|source| self.complete(source)).collect();
        self.remove_where(|name| !kept.contains(&self.directory.join(name)))
    }

    fn remove_where(&self, unwanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(&unwanted) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Files of one name in two directories have two copies.
    fn complete(&self, source: &Path) -> PathBuf {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let path = crc32fast::hash(source.as_os_str().as_encoded_bytes());
        self.directory.join(format!("{path:08x}-{name}"))
    }

    fn partial(&self, source: &Path) -> PathBuf {
        let mut path = self.complete(source).into_os_string();
        path.push(PARTIAL);
        path.into()
    }
}

/// Reads the file at `source` into memory.
pub(super) fn read_into_memory(source: &Path) -> io::Result<Copied> {
    let bytes = fs::read(source)?;
    let crc = crc32fast::hash(&bytes);
    Ok(Copied { bytes: Bytes::Memory(bytes), crc })
}

fn copy_with_crc(from: &mut File, to: &mut File) -> io::Result<u32> {
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(crc.finalize()),
            Ok(read) => {
                crc.update(&buffer[..read]);
                to.write_all(&buffer[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[expect(unsafe_code, reason = "a mapped file is the only way to share it through the page cache")]
fn map_private(file: &File) -> io::Result<Mmap> {
    // SAFETY: nobody may change or truncate the file while it is mapped. It is a copy of our own
    // (mode 0600, in our data directory), complete before it is mapped, and its inode is never
    // opened for writing again: each copy is made in a new one, and replaces an older one by a
    // rename, which leaves the mapped inode as it is.
    unsafe { Mmap::map(file) }
}
