//! Files that are there as a whole or not at all.

use std::path::Path;

pub(crate) use stream_grad_files::folder_of;

use crate::error::{Result, SlideError};

/// Writes a whole file under a temporary name, then renames it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    stream_grad_files::write_whole(path, bytes).map_err(SlideError::file)
}
