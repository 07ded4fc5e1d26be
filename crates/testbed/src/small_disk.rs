//! A small filesystem of its own, to be filled.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use tempfile::TempDir;

/// A filesystem in memory, gone when it is dropped. (One that its test leaves behind because it was
/// killed stays mounted, and takes no memory once its files are gone.)
#[derive(Debug)]
pub struct SmallDisk {
    place: Option<TempDir>,
}

const FILLING: &str = "filling";

impl SmallDisk {
    /// Of so many megabytes.
    ///
    /// # Errors
    /// When this process may not mount anything: a test that needs it was then not run.
    pub fn of_megabytes(size: u32) -> anyhow::Result<SmallDisk> {
        let place = tempfile::Builder::new().prefix("ipwarden-disk-").tempdir()?;
        let options = format!("size={size}m,mode=0777");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "ipwarden-test"]).arg(place.path());
        let output = mount.output().context("starting `mount`")?;
        if !output.status.success() {
            bail!("no filesystem: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(SmallDisk { place: Some(place) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.place.as_ref().expect("there until it is dropped").path()
    }

    /// Takes all that is left of it; again what has become free since.
    ///
    /// # Errors
    /// Any other than that it is full.
    pub fn fill(&self) -> anyhow::Result<()> {
        let filling = self.path().join(FILLING);
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(filling)?;
        let some = vec![0; 4096];
        loop {
            match file.write_all(&some) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends [`SmallDisk::fill`].
    ///
    /// # Errors
    /// When it had not been filled.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.path().join(FILLING))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        // Lazily: whoever still has a file there keeps it until it ends.
        let unmounted = Command::new("umount").arg("-l").arg(place.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", place.path().display());
            let _ = place.keep();
        }
    }
}
