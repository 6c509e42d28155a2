//! Writing files whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::error::{Result, TrainError};

/// Writes `bytes` beside `path` under a temporary name, flushes them to the disk and renames, so that a full disk or a
/// crash leaves what stood there before.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(TrainError::file(folder))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(TrainError::file(folder))?;
    file.write_all(bytes).map_err(TrainError::file(path))?;
    file.as_file().sync_all().map_err(TrainError::file(path))?;
    file.persist(path)
        .map_err(|error| TrainError::file(path)(error.error))?;
    Ok(())
}
