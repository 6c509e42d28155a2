//! All settings of an experiment, in one file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cohort::CohortConfig;
use crate::data::{SplitShares, Task};
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::metrics::Bootstrap;
use crate::model::ModelSettings;
use crate::source::ReadSettings;
use crate::trainer::TrainSettings;

/// An experiment: the same training at several resolutions.
///
/// ```
/// use stream_grad_train::settings::Settings;
/// let settings = Settings::from_toml("microns_per_pixel = [4.0]\n[train]\nepochs = 2\n")?;
/// assert_eq!(settings.train.epochs, 2);
/// assert_eq!(Settings::from_toml(&settings.to_toml()?)?, settings);
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Resolutions to train at, one after another.
    pub microns_per_pixel: Vec<f64>,
    /// What is predicted.
    pub task: Task,
    /// Shares of splits, for slides that have none.
    pub splits: SplitShares,
    /// Network and head.
    pub model: ModelSettings,
    /// How slides are read.
    pub read: ReadSettings,
    /// How to train.
    pub train: TrainSettings,
    /// How intervals are drawn.
    pub bootstrap: Bootstrap,
    /// The made-up cohort, used where no slides are given.
    pub cohort: CohortConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            microns_per_pixel: vec![8.0, 3.0, 2.0],
            task: Task::Binary,
            splits: SplitShares {
                validation: 0.1,
                test: 0.3,
            },
            model: ModelSettings::default(),
            read: ReadSettings::default(),
            train: TrainSettings::default(),
            bootstrap: Bootstrap::default(),
            cohort: CohortConfig::default(),
        }
    }
}

impl Settings {
    /// Settings from TOML; what is not there is as in [`Settings::default`].
    ///
    /// # Errors
    /// [`TrainError::Settings`] for text that is no TOML or names an unknown setting, [`TrainError::Setting`] for a value
    /// that cannot be used.
    pub fn from_toml(text: &str) -> Result<Self> {
        let settings: Self =
            toml::from_str(text).map_err(|error| TrainError::Settings(error.to_string()))?;
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
    /// [`TrainError::File`], and as [`from_toml`](Self::from_toml).
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(TrainError::file(path))?;
        Self::from_toml(&text).map_err(|error| match error {
            TrainError::Settings(reason) => {
                TrainError::Settings(format!("{}: {reason}", path.display()))
            }
            other => other,
        })
    }

    /// Writes the settings into `folder` as `settings.toml`, or finds the same ones there.
    ///
    /// # Errors
    /// [`TrainError::OtherRun`] for a folder with other settings; as [`read`](Self::read) and [`write`](Self::write).
    pub fn claim(&self, folder: &Path) -> Result<()> {
        let path = folder.join("settings.toml");
        if !path.exists() {
            return self.write(&path);
        }
        if Self::read(&path)? == *self {
            return Ok(());
        }
        Err(TrainError::OtherRun {
            folder: folder.to_path_buf(),
            what: "settings",
            file: path,
        })
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
        let legal = |microns: &f64| microns.is_finite() && *microns > 0.0;
        if self.microns_per_pixel.is_empty() || !self.microns_per_pixel.iter().all(legal) {
            return Err(TrainError::setting(
                "microns_per_pixel",
                "one or more finite numbers above 0",
                format!("{:?}", self.microns_per_pixel),
            ));
        }
        if let Task::Classification {
            classes: classes @ 0..2,
        } = self.task
        {
            return Err(TrainError::setting("task.classes", "2 or more", classes));
        }
        self.model.check()?;
        self.read.check()?;
        self.train.check()?;
        self.cohort.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_survive_toml_and_pass() {
        let settings = Settings::default();
        assert_eq!(
            Settings::from_toml(&settings.to_toml().unwrap()).unwrap(),
            settings
        );
        assert_eq!(Settings::from_toml("").unwrap(), settings);
    }

    #[test]
    fn unknown_and_illegal_settings_are_named() {
        for (text, part) in [
            ("[train]\nepoch = 3\n", "epoch"),
            ("[train]\nepochs = 0\n", "train.epochs"),
            ("microns_per_pixel = []\n", "microns_per_pixel"),
            (
                "task = { kind = \"classification\", classes = 1 }\n",
                "task.classes",
            ),
            ("[read]\ndeviation = [0.0, 1.0, 1.0]\n", "read.deviation"),
            ("[read]\nscale_override = 0.0\n", "read.scale_override"),
            ("[read]\nstain = { kind = \"vahadane\" }\n", "vahadane"),
            (
                "[read.stain]\nkind = \"reinhard\"\nreference = { mean = [1.0, 1.0, 1.0], deviation = [1.0, 0.0, 1.0] }\n",
                "read.stain.reference",
            ),
            ("[cohort]\njpeg_quality = 0\n", "cohort.jpeg_quality"),
            ("[train.optimizer]\nkind = \"adam\"\n", "adam"),
            (
                "[train.optimizer]\nkind = \"sgd\"\nmomentum = -0.9\nweight_decay = 0.0\n",
                "train.optimizer.momentum",
            ),
            (
                "[train.schedule]\nkind = \"one_cycle\"\nrising_share = 30.0\ninitial_divisor = 25.0\nfinal_divisor = 1e4\n",
                "train.schedule.rising_share",
            ),
            ("[model]\nthreads = 999999\n", "model.threads"),
            ("[read]\ndecoding_threads = 4000\n", "read.decoding_threads"),
        ] {
            let message = Settings::from_toml(text).unwrap_err().to_string();
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }

    /// Settings of a larger machine say what is legal on this one.
    #[test]
    fn thread_counts_are_refused_with_both_numbers() {
        let most = 4 * stream_grad::cores();
        for section in ["[model]\nthreads", "[read]\ndecoding_threads"] {
            let with = |threads: usize| Settings::from_toml(&format!("{section} = {threads}\n"));
            with(most).unwrap();
            let message = with(most + 1).unwrap_err().to_string();
            let numbers = [
                format!("at most {most} threads"),
                format!("found {}", most + 1),
            ];
            assert!(
                numbers.iter().all(|number| message.contains(number)),
                "{message}"
            );
        }
    }

    #[test]
    fn stains_are_named_and_their_reference_is_written_down() {
        for kind in ["as_read", "macenko", "reinhard"] {
            let text = format!("[read]\nstain = {{ kind = \"{kind}\" }}\n");
            let settings = Settings::from_toml(&text).unwrap();
            let written = settings.to_toml().unwrap();
            assert_eq!(
                written.contains("[read.stain.reference]"),
                kind != "as_read"
            );
            assert_eq!(Settings::from_toml(&written).unwrap(), settings);
        }
    }

    #[test]
    fn files_are_named_in_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        assert!(
            Settings::read(&path)
                .unwrap_err()
                .to_string()
                .contains("settings.toml")
        );
        std::fs::write(&path, "colour = 1").unwrap();
        assert!(
            Settings::read(&path)
                .unwrap_err()
                .to_string()
                .contains("settings.toml")
        );
        Settings::default().write(&path).unwrap();
        assert_eq!(Settings::read(&path).unwrap(), Settings::default());
    }
}
