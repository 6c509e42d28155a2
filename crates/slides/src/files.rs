//! Files that are there as a whole or not at all.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Result, SlideError};

/// A file beside `path` that goes away unless it is persisted, with the permissions of any new file.
pub(crate) fn temporary_beside(path: &Path) -> std::io::Result<NamedTempFile<File>> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".partial")
        .make_in(folder_of(path), |path| {
            File::options().write(true).create_new(true).open(path)
        })
}

/// The folder that `path` lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Puts a complete temporary file in its place.
pub(crate) fn persist(file: NamedTempFile<File>, path: &Path) -> Result<()> {
    file.as_file()
        .sync_all()
        .map_err(|error| SlideError::io(path, error))?;
    file.persist(path)
        .map_err(|error| SlideError::io(path, error.error))?;
    Ok(())
}

/// Writes a whole file under a temporary name, then renames it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = temporary_beside(path).map_err(|error| SlideError::io(path, error))?;
    file.write_all(bytes)
        .map_err(|error| SlideError::io(path, error))?;
    persist(file, path)
}
