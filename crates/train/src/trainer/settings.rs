//! Settings of the training loop.

use serde::{Deserialize, Serialize};

use crate::augment::AugmentationSettings;
use crate::data::Sampling;
use crate::error::{Result, TrainError};
use crate::optimizer::OptimizerKind;
use crate::schedule::Schedule;

/// How to train; every choice that results depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Seed of weights, orders and augmentations.
    pub seed: u64,
    /// Passes over the training split.
    pub epochs: u64,
    /// Slides whose gradients are averaged for one step.
    pub group: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Largest norm of a step's gradients; 0 for no limit.
    pub clip_norm: f64,
    /// How slides are drawn.
    pub sampling: Sampling,
    /// The validation split is evaluated after every so many epochs, and after the last; 0 for never.
    pub validate_every: u64,
    /// A checkpoint is written after every so many groups, and after every epoch; 0 for epochs only.
    pub checkpoint_every: u64,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: OptimizerKind,
    /// Augmentation of the training split.
    pub augmentation: AugmentationSettings,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            epochs: 20,
            group: 8,
            learning_rate: 2e-3,
            clip_norm: 1.0,
            sampling: Sampling::Shuffled,
            validate_every: 4,
            checkpoint_every: 10,
            schedule: Schedule::default(),
            optimizer: OptimizerKind::default(),
            augmentation: AugmentationSettings::default(),
        }
    }
}

impl TrainSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("epochs", self.epochs),
            ("group", u64::try_from(self.group).unwrap_or(u64::MAX)),
        ] {
            if value == 0 {
                return Err(TrainError::setting(
                    format!("train.{name}"),
                    "1 or more",
                    value,
                ));
            }
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(TrainError::setting(
                "train.learning_rate",
                "a finite number above 0",
                self.learning_rate,
            ));
        }
        if !(self.clip_norm.is_finite() && self.clip_norm >= 0.0) {
            return Err(TrainError::setting(
                "train.clip_norm",
                "a finite number of 0 or more",
                self.clip_norm,
            ));
        }
        self.optimizer.check()?;
        self.schedule.check()?;
        self.augmentation.check()
    }
}
