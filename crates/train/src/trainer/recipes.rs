//! The recipes of a run, on disk before anything depends on them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stream_grad::tiling::Recipe;

use crate::error::{Result, TrainError};
use crate::files::write_whole;

/// How images are cut, stored beside the checkpoints as soon as it is decided: a run that is killed before the next checkpoint
/// goes on with the same cuts, whatever was measured meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RecipeFile {
    /// Settings and slides of the run, as in its checkpoint.
    fingerprint: u64,
    recipes: Vec<Recipe>,
}

impl RecipeFile {
    /// What the run with these checkpoints and this fingerprint stored: nothing, if there is no file or it is another run's.
    ///
    /// # Errors
    /// [`TrainError::File`], and [`TrainError::Json`] for a file that is damaged: what the run was cut by is lost.
    pub(super) fn read(folder: &Path, fingerprint: u64) -> Result<Self> {
        let path = path(folder);
        let none = Self {
            fingerprint,
            recipes: Vec::new(),
        };
        if !path.exists() {
            return Ok(none);
        }
        let bytes = std::fs::read(&path).map_err(TrainError::file(&path))?;
        let found: Self = serde_json::from_slice(&bytes).map_err(TrainError::json(&path))?;
        Ok(if found.fingerprint == fingerprint {
            found
        } else {
            none
        })
    }

    /// Takes up what a checkpoint has besides; for an image of one size the checkpoint's counts.
    pub(super) fn join(&mut self, checkpoint: &[Recipe]) {
        let known = |recipe: &Recipe| checkpoint.iter().any(|other| other.image == recipe.image);
        self.recipes.retain(|recipe| !known(recipe));
        self.recipes.extend(checkpoint.iter().cloned());
    }

    /// All recipes.
    pub(super) fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    /// Stores `recipes` in the folder of checkpoints, if some are not stored yet.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn keep(&mut self, folder: &Path, recipes: Vec<Recipe>) -> Result<()> {
        if recipes.iter().all(|recipe| self.recipes.contains(recipe)) {
            return Ok(());
        }
        self.recipes = recipes;
        let path = path(folder);
        let json = serde_json::to_vec(self).map_err(TrainError::json(&path))?;
        write_whole(&path, &json)
    }
}

/// The file in a folder of checkpoints.
fn path(folder: &Path) -> PathBuf {
    folder.join("recipes.json")
}

#[cfg(test)]
mod tests {
    use stream_grad::tiling::{PerAxis, Reuse, Weights};

    use super::*;

    fn recipe(image: u64, tile: u64) -> Recipe {
        Recipe {
            image: PerAxis::both(image),
            output_block: PerAxis::both(image),
            segments: 1,
            tile: PerAxis::both(tile),
            stored: Vec::new(),
            reuse: Reuse::Nothing,
            weights: Weights::Held,
        }
    }

    #[test]
    fn recipes_are_found_again_by_their_run_alone() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path();
        let mut file = RecipeFile::read(checkpoints, 7).unwrap();
        assert!(file.recipes().is_empty());
        file.keep(checkpoints, vec![recipe(64, 32)]).unwrap();
        assert_eq!(RecipeFile::read(checkpoints, 7).unwrap(), file);
        assert!(
            RecipeFile::read(checkpoints, 8)
                .unwrap()
                .recipes()
                .is_empty()
        );
        file.join(&[recipe(64, 16), recipe(128, 32)]);
        assert_eq!(file.recipes(), [recipe(64, 16), recipe(128, 32)]);

        let place = folder.path().join("recipes.json");
        std::fs::write(&place, "no JSON").unwrap();
        let error = RecipeFile::read(checkpoints, 7).unwrap_err().to_string();
        assert!(error.contains("recipes.json"), "{error}");
    }
}
