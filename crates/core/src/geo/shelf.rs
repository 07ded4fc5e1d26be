//! Notices when the files that an operator put down change, and opens the new ones.
//!
//! It looks only when asked, and knows no clock. A file counts as changed when its inode, its length
//! or its time of change is another. A new one that cannot be used leaves the old one in use and is
//! named once in the log; one that is gone is no longer asked.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::{Copied, Copies, read_into_memory};
use super::file::{FileError, GeoFile};
use super::set::FileSet;

/// The files as an operator names them, and what became of each.
pub(super) struct Shelf {
    /// Files, and directories whose every `*.mmdb` counts.
    paths: Vec<PathBuf>,
    copies: Option<Copies>,
    known: HashMap<PathBuf, Known>,
}

/// What is known of one file since it was last looked at.
#[derive(Default)]
struct Known {
    /// As it was when it was last tried; `None`: to be tried again.
    tried: Option<Stamp>,
    in_use: Option<Arc<GeoFile>>,
    /// The log already says that it cannot be used.
    complained: bool,
}

/// What changes when a file is replaced or written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file that is there: which of the operator's paths it came from, and how it looks.
struct Found {
    listed: usize,
    path: PathBuf,
    stamp: Stamp,
}

impl Shelf {
    /// Opens what is there.
    pub(super) fn open(paths: Vec<PathBuf>, copies: Option<Copies>) -> (Shelf, FileSet) {
        for missing in paths.iter().filter(|path| is_mmdb(path) && !path.exists()) {
            tracing::warn!(path = %missing.display(), "a file of places is not there (yet)");
        }
        let mut shelf = Shelf { paths, copies, known: HashMap::new() };
        let set = shelf.look().unwrap_or_else(|| shelf.in_order(&[]));
        (shelf, set)
    }

    /// How many files cannot be used, or are named and not there.
    pub(super) fn trouble(&self) -> usize {
        let bad = self.known.values().filter(|known| known.complained).count();
        bad + self.paths.iter().filter(|path| is_mmdb(path) && !path.exists()).count()
    }

    /// Looks at the files, opens those that changed, and returns the set that is now in use, or
    /// `None` if it is the same as before.
    pub(super) fn look(&mut self) -> Option<FileSet> {
        let found = self.found();
        let mut changed = self.forget_all_but(&found);
        for Found { path, stamp, .. } in &found {
            if self.known.get(path).is_some_and(|known| known.tried == Some(*stamp)) {
                continue;
            }
            changed |= self.try_file(path, *stamp);
        }
        changed.then(|| self.in_order(&found))
    }

    /// Opens a file that is new or changed; whether something else is in use afterwards.
    fn try_file(&mut self, path: &Path, stamp: Stamp) -> bool {
        let known = self.known.entry(path.to_owned()).or_default();
        match open(path, stamp, self.copies.as_ref()) {
            Ok(file) => {
                let said = file.summary();
                tracing::info!(path = %path.display(), database_type = said.database_type,
                    built = ?said.built, "a file of places is in use");
                *known =
                    Known { tried: Some(stamp), in_use: Some(Arc::new(file)), complained: false };
                true
            }
            // Its stamp is not kept: the next look tries again.
            Err(FileError::Changing) => false,
            Err(error) => {
                // What the machine refused may be granted at the next look; a bad file stays bad.
                known.tried = (!matches!(error, FileError::Io(_))).then_some(stamp);
                let fell_back =
                    known.in_use.is_none() && fall_back(path, known, self.copies.as_ref());
                if !known.complained {
                    known.complained = true;
                    let earlier = if known.in_use.is_some() { "stays in use" } else { "none" };
                    tracing::warn!(file = %path.display(), %error, earlier,
                        "a file of places cannot be used");
                }
                fell_back
            }
        }
    }

    /// Drops what is no longer there; whether any of it was in use.
    fn forget_all_but(&mut self, found: &[Found]) -> bool {
        let there: HashSet<&Path> = found.iter().map(|found| found.path.as_path()).collect();
        let mut dropped = false;
        self.known.retain(|path, known| {
            let keep = there.contains(path.as_path());
            if !keep && known.in_use.is_some() {
                tracing::info!(path = %path.display(), "a file of places is gone");
                dropped = true;
            }
            keep
        });
        dropped
    }

    /// The files in use: in the order of the operator's paths, and within a directory the more
    /// telling kind, then the newer build first.
    fn in_order(&self, found: &[Found]) -> FileSet {
        let mut files: Vec<_> = found
            .iter()
            .filter_map(|found| Some((found, self.known.get(&found.path)?.in_use.as_ref()?)))
            .collect();
        files.sort_by_key(|(found, file)| {
            (found.listed, file.kind(), Reverse(file.build_epoch()), &found.path)
        });
        if let Some(copies) = &self.copies {
            // Without its copy a file stays mapped; it only takes up room until the next start.
            let _ = copies.retain(found.iter().map(|found| found.path.as_path()));
        }
        FileSet::new(files.into_iter().map(|(_, file)| Arc::clone(file)).collect())
    }

    /// The files that are there now.
    fn found(&self) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for (listed, path) in self.paths.iter().enumerate() {
            let mut add = |path: PathBuf| {
                // `metadata` follows links, as Kubernetes mounts files through two of them.
                if let Ok(metadata) = fs::metadata(&path)
                    && metadata.is_file()
                    && !found.iter().any(|other| other.path == path)
                {
                    found.push(Found { listed, path, stamp: Stamp::of(&metadata) });
                }
            };
            match fs::read_dir(path) {
                Ok(entries) => entries
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| is_mmdb(path))
                    .for_each(add),
                Err(_) => add(path.clone()),
            }
        }
        found
    }
}

fn is_mmdb(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "mmdb")
}

/// Opens `path` by way of a copy, which is kept if it is good.
fn open(path: &Path, stamp: Stamp, copies: Option<&Copies>) -> Result<GeoFile, FileError> {
    let unchanged = || Ok::<_, io::Error>(Stamp::of(&fs::metadata(path)?) == stamp);
    let Some(copies) = copies else {
        return GeoFile::open(path, settled(read_into_memory(path)?, unchanged()?)?);
    };
    let copied = match copies.take(path) {
        Ok(copied) => copied,
        // The directory may be full or read-only; places are worth their room in memory.
        Err(_) => {
            copies.discard(path);
            read_into_memory(path)?
        }
    };
    let opened = unchanged()
        .map_err(FileError::from)
        .and_then(|unchanged| settled(copied, unchanged))
        .and_then(|copied| GeoFile::open(path, copied));
    match &opened {
        Ok(_) => copies.keep(path).unwrap_or_else(|_| copies.discard(path)),
        Err(_) => copies.discard(path),
    }
    opened
}

/// A copy of a file that was written to meanwhile is half of one and half of another.
fn settled(copied: Copied, unchanged: bool) -> Result<Copied, FileError> {
    if unchanged { Ok(copied) } else { Err(FileError::Changing) }
}

/// After a restart the old file is the last good copy; whether there was one.
fn fall_back(path: &Path, known: &mut Known, copies: Option<&Copies>) -> bool {
    let Some(copied) = copies.and_then(|copies| copies.last_good(path).ok()) else { return false };
    known.in_use = GeoFile::open(path, copied).ok().map(Arc::new);
    known.in_use.is_some()
}
