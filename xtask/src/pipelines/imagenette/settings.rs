//! Settings of both trainings.

#![expect(
    clippy::result_large_err,
    reason = "settings are refused as those of any training"
)]

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use stream_grad_cli::exit::WrongUse;
use stream_grad_files::write_whole;
use stream_grad_train::TrainError;
use stream_grad_train::augment::AugmentationSettings;
use stream_grad_train::cohort::textures::TexturesConfig;
use stream_grad_train::optimizer::{OptimizerKind, WeightDecayOn};
use stream_grad_train::schedule::Schedule;
use stream_grad_train::settings::{changes, parse};
use stream_grad_train::source::PictureSettings;
use stream_grad_train::trainer::TrainSettings;
use xtask::arguments::ImagenetteArguments;

/// Name of the file in the folder of results.
pub(super) const FILE: &str = "settings.toml";

/// What `--settings` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    /// Edge of the tiles of the streamed training in pixels; a multiple of 4.
    pub(super) tile: u64,
    /// How pictures are cut and normalised.
    pub(super) pictures: PictureSettings,
    /// How both are trained.
    pub(super) train: TrainSettings,
    /// Made-up pictures, used without `--data`.
    pub(super) textures: TexturesConfig,
}

/// The notebook's.
impl Default for Settings {
    fn default() -> Self {
        Self {
            tile: 32,
            pictures: PictureSettings::default(),
            train: TrainSettings {
                epochs: 200,
                batch_size: 32,
                learning_rate: 1e-3,
                max_norm: f64::INFINITY,
                weight_decay_on: WeightDecayOn::All,
                validate_every: 1,
                checkpoint_every: 0,
                keep_checkpoints: 2,
                schedule: Schedule::Constant,
                optimizer: OptimizerKind::Sgd {
                    momentum: 0.0,
                    weight_decay: 1e-6,
                },
                augmentation: AugmentationSettings::none(),
                ..TrainSettings::default()
            },
            textures: TexturesConfig::default(),
        }
    }
}

impl Settings {
    /// For made-up textures: few pictures, and steps that learn them in minutes.
    fn for_textures() -> Self {
        let mut settings = Self::default();
        settings.train.epochs = 8;
        settings.textures.train = 20;
        settings.textures.validation = 8;
        settings.train.batch_size = 8;
        settings.train.optimizer = OptimizerKind::ADAMW;
        settings.train.schedule = Schedule::default();
        settings
    }

    /// Two epochs of few small pictures.
    fn quick() -> Self {
        let mut settings = Self::for_textures();
        settings.train.epochs = 2;
        settings.pictures.size = 96;
        settings.textures.size = 96;
        settings.textures.train = 4;
        settings.textures.validation = 2;
        settings
    }

    /// The settings that the arguments ask for.
    pub(super) fn of(arguments: &ImagenetteArguments) -> anyhow::Result<Self> {
        let defaults = match (arguments.quick, &arguments.data) {
            (true, _) => Self::quick(),
            (false, None) => Self::for_textures(),
            (false, Some(_)) => Self::default(),
        };
        let settings = match &arguments.settings {
            Some(path) => crate::settings::read(path, &defaults)?,
            None => defaults,
        };
        settings.check().map_err(WrongUse::from_error)?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), TrainError> {
        self.train.check()?;
        let refuse = |setting: &str, expected: &str, found: String| {
            Err(TrainError::Setting {
                setting: setting.to_owned(),
                expected: expected.to_owned(),
                found,
            })
        };
        if self.train.seeds != 1 {
            let expected = "1: both trainings have one seed, `train.seed`";
            return refuse("train.seeds", expected, self.train.seeds.to_string());
        }
        if !(16..=4096).contains(&self.pictures.size) {
            return refuse(
                "pictures.size",
                "16 to 4096",
                self.pictures.size.to_string(),
            );
        }
        Ok(())
    }

    /// Writes the settings into `folder`, or finds the same ones there.
    ///
    /// # Errors
    /// [`TrainError::OtherSettings`] naming each that differs.
    pub(super) fn claim(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(FILE);
        if path.is_file() {
            let name = || path.display().to_string();
            let text = std::fs::read_to_string(&path).with_context(name)?;
            let before: Self = parse(&text).with_context(name)?;
            let changes = changes(&before, self)?;
            if !changes.is_empty() {
                let folder = folder.to_path_buf();
                let file = path;
                return Err(TrainError::OtherSettings {
                    folder,
                    file,
                    changes,
                }
                .into());
            }
            return Ok(());
        }
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        write_whole(&path, toml::to_string_pretty(self)?.as_bytes())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_run_of_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_textures();
        settings.claim(folder.path()).unwrap();
        settings.claim(folder.path()).unwrap();
        settings.tile = 64;
        settings.train.seed = 5;
        let error = settings.claim(folder.path()).unwrap_err().to_string();
        for part in [
            "tile is 32 there and 64 here",
            "train.seed is 0 there and 5 here",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn defaults_can_be_used() {
        for settings in [
            Settings::default(),
            Settings::for_textures(),
            Settings::quick(),
        ] {
            settings.check().unwrap();
            let text = toml::to_string(&settings).unwrap();
            assert_eq!(parse::<Settings>(&text).unwrap(), settings);
        }
        let mut settings = Settings::default();
        settings.pictures.size = 8;
        let error = settings.check().unwrap_err().to_string();
        assert!(
            error.contains("16 to 4096") && error.contains('8'),
            "{error}"
        );
    }
}
