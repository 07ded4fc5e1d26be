//! Segments that cannot be read on: set aside for people, where they keep no other from being read.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::catalog::Catalog;
use super::{SpoolError, make_private_dir};

#[derive(Debug)]
pub(super) struct Aside {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// When it was last written to, if the disk says so.
    pub(super) modified: Option<SystemTime>,
}

impl Aside {
    pub(super) fn at(path: PathBuf) -> Aside {
        let metadata = fs::metadata(&path).ok();
        let bytes = metadata.as_ref().map_or(0, |metadata| metadata.len());
        Aside { path, bytes, modified: metadata.and_then(|metadata| metadata.modified().ok()) }
    }
}

impl Catalog {
    /// Moves a file away that cannot be taken over: it must not keep the others from being read.
    pub(super) fn put_aside(&mut self, dir: &Path, path: &Path, why: &str) {
        match move_aside(dir, path, 0) {
            Ok(to) => {
                let (from, to) = (path.display(), to.as_path());
                tracing::error!(path = %from, at = 0, why, to = %to.display(), "set a file aside");
                self.aside.push_back(Aside::at(to.to_owned()));
            }
            // It stays where it is, and is passed over.
            Err(error) => {
                tracing::error!(path = %path.display(), why, %error, "cannot read a file")
            }
        }
    }
}

/// Those of former processes, oldest first.
pub(super) fn list_aside(dir: &Path) -> VecDeque<Aside> {
    let Ok(files) = fs::read_dir(dir.join("damaged")) else { return VecDeque::new() };
    let mut aside: Vec<_> = files.filter_map(|file| Some(Aside::at(file.ok()?.path()))).collect();
    aside.sort_by_key(|aside| aside.modified);
    aside.into()
}

/// Moves a file to them, named after where it is damaged.
pub(super) fn move_aside(dir: &Path, path: &Path, at: u64) -> Result<PathBuf, SpoolError> {
    let damaged = dir.join("damaged");
    make_private_dir(&damaged).map_err(SpoolError::io("create", &damaged))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    // A copy of the directory may bring a segment again that was set aside before.
    let to = (1..)
        .map(|copy| match copy {
            1 => damaged.join(format!("{name}-{at}.segment")),
            copy => damaged.join(format!("{name}-{at}-{copy}.segment")),
        })
        .find(|to| !to.exists())
        .expect("one of all numbers is free");
    fs::rename(path, &to).map_err(SpoolError::io("set aside", path))?;
    Ok(to)
}
