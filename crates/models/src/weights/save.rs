//! Saving as safetensors, whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use candle_nn::VarMap;
use stream_grad_files::write_whole;

use super::by_name;
use crate::error::{ModelError, Result};

/// Saves every variable of a map as safetensors; see [`save_tensors`].
///
/// # Errors
/// A folder or disk that cannot be written to.
pub fn save_map(path: impl AsRef<Path>, variables: &VarMap) -> Result<()> {
    let tensors = by_name(variables).into_iter();
    let tensors = tensors.map(|(name, variable)| (name, variable.as_tensor().clone()));
    save_tensors(path, &tensors.collect())
}

/// Saves tensors as safetensors. The file appears whole or not at all, with the permissions of any new file or of the one
/// that it replaces: see [`stream_grad_files`].
///
/// # Errors
/// A folder or disk that cannot be written to; a file that was there before is then as it was.
pub fn save_tensors(path: impl AsRef<Path>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = path.as_ref();
    let failed = |source| ModelError::Write {
        path: path.into(),
        source,
    };
    // candle's `save` would make a file that is its owner's alone.
    let bytes = safetensors::serialize(tensors, None).map_err(|error| failed(error.into()))?;
    write_whole(path, &bytes).map_err(|error| failed(error.into()))
}
