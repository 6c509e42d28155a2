//! The one error type of the crate.

use std::io;
use std::path::{Path, PathBuf};

/// What this crate's functions return.
pub type Result<T, E = FileError> = std::result::Result<T, E>;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system refused, for example because the disk is full.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder that was to be written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The destination is there and cannot be replaced.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Destination {
        /// The destination.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The output is one of the inputs.
    #[error("{} would be written over {}, which is read: give another place for it", output.display(), input.display())]
    Input {
        /// What was to be written.
        output: PathBuf,
        /// The same file, as the input is called.
        input: PathBuf,
    },
}

impl FileError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
