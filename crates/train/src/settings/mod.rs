//! All settings of an experiment, in one file: `run.toml`.

mod changed;
mod parse;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::change::Change;
pub use changed::changes;
pub use parse::parse;

use crate::data::{DataSettings, Sampling, Task};
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::metrics::Bootstrap;
use crate::model::ModelSettings;
use crate::trainer::TrainSettings;

/// Name of the settings' file in the folder of a run.
pub const FILE: &str = "run.toml";

/// An experiment: the same training at several resolutions, in the order in which a person asks for it.
///
/// ```
/// use stream_grad_train::settings::Settings;
/// let settings = Settings::from_toml("[data]\nmicrons_per_pixel = [4.0]\n[train]\nepochs = 2\n")?;
/// assert_eq!(settings.train.epochs, 2);
/// assert_eq!(Settings::from_toml(&settings.to_toml()?)?, settings);
/// let error = Settings::from_toml("[train]\nepoch = 2\n").unwrap_err();
/// assert!(error.to_string().contains("the nearest is `epochs` in [train]"));
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which slides there are, what is predicted from them, and how they are read.
    pub data: DataSettings,
    /// Network and head, and the memory that they may take.
    pub model: ModelSettings,
    /// How to train.
    pub train: TrainSettings,
    /// What is reported.
    pub report: ReportSettings,
}

/// What is reported. It changes nothing of the training: a finished run may be reported anew with other settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReportSettings {
    /// How intervals are drawn.
    pub bootstrap: Bootstrap,
}

impl Settings {
    /// Settings from TOML; what is not there is as in [`Settings::default`].
    ///
    /// # Errors
    /// As [`parse`]; [`TrainError::Setting`] for a value that cannot be used.
    pub fn from_toml(text: &str) -> Result<Self> {
        let settings: Self = parse(text)?;
        settings.check()?;
        Ok(settings)
    }

    /// All settings as TOML.
    ///
    /// # Errors
    /// [`TrainError::Settings`] for a number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|error| TrainError::Settings(error.to_string()))
    }

    /// Reads a file of settings.
    ///
    /// # Errors
    /// [`TrainError::File`]; [`TrainError::InFile`] with what [`from_toml`](Self::from_toml) refuses.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(TrainError::file(path))?;
        Self::from_toml(&text).map_err(TrainError::in_file(path))
    }

    /// Writes all settings beside a run's results.
    ///
    /// # Errors
    /// [`TrainError::File`], and as [`to_toml`](Self::to_toml).
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, self.to_toml()?.as_bytes())
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`] naming the first that cannot be used.
    pub fn check(&self) -> Result<()> {
        self.data.check()?;
        self.model.check()?;
        self.train.check()?;
        if let (Task::Segmentation { .. }, Sampling::Balanced) =
            (self.data.task, self.train.sampling)
        {
            return Err(TrainError::setting(
                "train.sampling",
                "shuffled, since slides have no labels by which they could be balanced",
                "balanced",
            ));
        }
        self.train.class_weights.check(self.data.task)
    }
}

#[cfg(test)]
mod tests;
