//! A trained model, and what its file says of it.

use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};
use stream_grad_slides::MicronsPerPixel;

use crate::error::{Result, TrainError};
use crate::model_file::{self, Limits, ModelDescription, ModelFile};
use crate::source::{ReadSettings, SlideLoader};

/// A trained model, and what its file says of it.
pub(super) struct Trained<M> {
    pub(super) description: ModelDescription,
    pub(super) model: M,
    /// Of the file, and what is stored otherwise than it says, so that a table is not gone on with by another model.
    pub(super) digest: String,
}

impl<M> Trained<M> {
    /// Reads a file, of which `build` makes the model.
    ///
    /// # Errors
    /// As [`model_file::load`]; what `build` refuses.
    pub(super) fn new(
        path: &Path,
        limits: Limits,
        build: impl FnOnce(&ModelFile, Limits) -> Result<M>,
    ) -> Result<Self> {
        let file = model_file::load(path)?;
        let bytes = std::fs::read(path).map_err(TrainError::file(path))?;
        let digest = Sha256::digest(bytes);
        let mut digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let trained = file.description.model.dtype;
        if let Some(other) = limits.precision.filter(|other| *other != trained) {
            digest = format!("{digest} in {}", other.as_str());
        }
        Ok(Self {
            model: build(&file, limits)?,
            description: file.description,
            digest,
        })
    }

    /// The edge of a pixel of what the model reads.
    pub(super) fn scale(&self) -> Result<MicronsPerPixel> {
        Ok(MicronsPerPixel::new(self.description.microns_per_pixel)?)
    }

    /// Reads slides at the model's scale.
    pub(super) fn loader(&self, read: ReadSettings) -> Result<SlideLoader> {
        SlideLoader::new(self.scale()?, read)
    }
}

/// Without the weights.
impl<M> fmt::Debug for Trained<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trained")
            .field("description", &self.description)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}
