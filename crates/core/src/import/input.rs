//! A file that can be read more than once.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// What is to be imported: a file, or a copy of what came through a pipe.
#[derive(Debug)]
pub struct Input {
    name: String,
    file: File,
    bytes: u64,
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
        Ok(Input { name, file, bytes: metadata.len() })
    }

    /// Copies a source that can be read only once, such as standard input, into a temporary file
    /// without a name, which is gone when the process ends.
    ///
    /// # Errors
    /// When the source cannot be read, or the disk is full.
    pub fn copy(name: String, mut source: impl Read) -> io::Result<Input> {
        let mut file = tempfile::tempfile()?;
        let bytes = io::copy(&mut source, &mut file)?;
        Ok(Input { name, file, bytes })
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
