//! Writing files whole or not at all.

use std::path::Path;

use stream_grad_files::folder_of;

use crate::error::{Result, TrainError};

/// Makes the folder, writes `bytes` under a temporary name, flushes them to the disk and renames.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(TrainError::file(folder))?;
    Ok(stream_grad_files::write_whole(path, bytes)?)
}
