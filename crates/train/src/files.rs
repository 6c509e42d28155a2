//! Writing files whole or not at all.

use std::path::Path;

use stream_grad_files::folder_of;

use crate::error::{Result, TrainError};

/// The bytes of a CSV. `path` is only named in errors.
pub(crate) fn csv_bytes<Row: IntoIterator<Item: AsRef<[u8]>>>(
    path: &Path,
    rows: impl IntoIterator<Item = Row>,
) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(TrainError::csv(path))?;
    }
    writer
        .into_inner()
        .map_err(|error| TrainError::file(path)(error.into_error()))
}

/// Makes the folder, writes `bytes` under a temporary name, flushes them to the disk and renames.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(TrainError::file(folder))?;
    Ok(stream_grad_files::write_whole(path, bytes)?)
}
