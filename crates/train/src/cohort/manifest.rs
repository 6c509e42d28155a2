//! What a folder of made-up data was made from, beside it.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, TrainError};
use crate::files::write_whole;

/// Writes `manifest` to `path`, or finds the same one there. A folder that has none must not hold any of `outputs`: they are
/// someone else's.
pub(super) fn check_manifest<T>(path: &Path, manifest: &T, outputs: &[&Path]) -> Result<()>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    if path.is_file() {
        let text = std::fs::read(path).map_err(TrainError::file(path))?;
        let found: Option<T> = serde_json::from_slice(&text).ok();
        if found.as_ref() == Some(manifest) {
            return Ok(());
        }
        return Err(TrainError::Checkpoint {
            path: path.to_path_buf(),
            expected: "made-up data of the same settings".to_owned(),
            found: "such of other settings; give another folder or remove this one".to_owned(),
        });
    }
    // It is written first: what is there without it was not made here.
    if let Some(output) = outputs.iter().find(|output| output.exists()) {
        return Err(TrainError::Checkpoint {
            path: output.to_path_buf(),
            expected: "a folder without slides, or one with made-up data".to_owned(),
            found: "other data; give another folder".to_owned(),
        });
    }
    let text = serde_json::to_vec_pretty(manifest).map_err(TrainError::json(path))?;
    write_whole(path, &text)
}
