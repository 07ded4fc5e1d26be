//! A file that can be read more than once.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::access_log::Format;

/// What is to be imported: a file, or a copy of what came through a pipe.
#[derive(Debug)]
pub struct Input {
    name: String,
    file: File,
    bytes: u64,
    format: Option<Format>,
    continued: bool,
}

impl Input {
    /// Opens a file; a pipe or a device is copied first, as [`Input::copy`] does.
    ///
    /// # Errors
    /// When it cannot be opened, or is a directory.
    pub fn open(path: &Path) -> io::Result<Input> {
        let name = path.display().to_string();
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if !metadata.is_file() {
            return Input::copy(name, file);
        }
        Ok(Input { name, file, bytes: metadata.len(), format: None, continued: false })
    }

    /// Copies a source that can be read only once, such as standard input, into a temporary file
    /// without a name, which is gone when the process ends.
    ///
    /// # Errors
    /// When the source cannot be read, or the disk is full.
    pub fn copy(name: String, mut source: impl Read) -> io::Result<Input> {
        let mut file = tempfile::tempfile()?;
        let bytes = io::copy(&mut source, &mut file)?;
        Ok(Input { name, file, bytes, format: None, continued: false })
    }

    /// What was written into a file before, to be read from its beginning.
    ///
    /// # Errors
    /// When nobody can tell how long it is.
    pub fn of_file(name: String, file: File) -> io::Result<Input> {
        let bytes = file.metadata()?.len();
        Ok(Input { name, file, bytes, format: None, continued: false })
    }

    /// If anything of this name was imported before, it has to go on where that ended: it is no log that
    /// is rotated.
    #[must_use]
    pub fn continued(self) -> Input {
        Input { continued: true, ..self }
    }

    pub(super) fn is_continued(&self) -> bool {
        self.continued
    }

    /// Has every line of it read in this format; without one, in the format that it is seen to have.
    #[must_use]
    pub fn written_as(self, format: Option<Format>) -> Input {
        Input { format, ..self }
    }

    /// How it is written, if somebody has said so.
    pub(super) fn format(&self) -> Option<Format> {
        self.format
    }

    /// Whether what stands at `path` now is another file than this one, or this one cut off.
    pub(super) fn was_rotated(&self, path: &Path, read: u64) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let own = self.file.metadata()?;
        if own.len() < read {
            return Ok(true);
        }
        match std::fs::metadata(path) {
            Ok(there) => Ok((there.dev(), there.ino()) != (own.dev(), own.ino())),
            // Between the rename and the new file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it was when it was opened, as it is packed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn rewound(&self) -> io::Result<impl Read + Send + use<'_>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}
