//! Settings of the training loop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::augment::AugmentationSettings;
use crate::data::Sampling;
use crate::error::{Result, TrainError};
use crate::loss::{ClassWeights, SegmentationLoss};
use crate::optimizer::{
    ModelPart, OptimizerKind, ParameterGroup, ParameterKind, ParameterOptions, WeightDecayOn,
};
use crate::schedule::Schedule;

/// How to train; every choice that results depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Seed of weights, orders and augmentations; 0 or more.
    pub seed: u64,
    /// How many times everything is trained, with the seeds `seed`, `seed + 1` and so on; 1 or more. The report has mean and spread
    /// over them.
    pub seeds: u64,
    /// Passes over the training split; 1 or more.
    pub epochs: u64,
    /// Slides whose gradients are averaged for one step, one slide being streamed at a time; 1 or more.
    pub batch_size: usize,
    /// Highest learning rate; above 0. By default 0.006, which suits Muon and a network that is trained from nothing; AdamW wants a third
    /// of that, and pretrained weights less.
    pub learning_rate: f64,
    /// Highest learning rate of the head; above 0. Absent, the head takes `learning_rate`, which suits a network that is trained from
    /// nothing; a body with pretrained weights wants a lower one than its head.
    #[schemars(example = 0.01)]
    pub head_learning_rate: Option<f64>,
    /// Largest Euclidean norm of a step's gradients, to which larger ones are scaled down as by PyTorch's `clip_grad_norm_`; above 0,
    /// and `inf` for no limit. By default 1, since one odd slide has much weight in a step of few.
    pub max_norm: f64,
    /// Which parameters decay: `weights` (of convolutions and linear layers) or `all` (norms and biases, too). By default `weights`,
    /// as in the recipes of torchvision and timm: a norm's scale does not overfit, and decays towards a layer that is off.
    pub weight_decay_on: WeightDecayOn,
    /// How slides are drawn.
    pub sampling: Sampling,
    /// How much each class counts in the loss: `none` (all slides alike), `balanced` (rare classes more, as in scikit-learn), or a
    /// list of one factor of 0 or more for each class, in the order of `classes`. Of several labels, the factor of having each. By
    /// default `none`; with `sampling` balanced, too, rare classes would count twice.
    pub class_weights: ClassWeights,
    /// Factor of the cross-entropy in the loss of a segmentation, the mean over the pixels that have a class; 0 or more. Absent, 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.5)]
    pub cross_entropy_weight: Option<f64>,
    /// Factor of the Dice loss of a segmentation, the mean over classes; 0 or more. Absent, 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.5)]
    pub dice_weight: Option<f64>,
    /// Added to the numerator and the denominator of each class's Dice in the loss of a segmentation; 0 or more. Absent, 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1.0)]
    pub dice_smooth: Option<f64>,
    /// Decay of an exponential moving average of the weights, which is then evaluated and kept in place of the weights of the last
    /// step; above 0 and below 1, such as 0.99. It warms up: of step n it is at most (1 + n) / (10 + n). Absent, none is kept.
    #[schemars(example = 0.99)]
    pub ema_decay: Option<f64>,
    /// The validation split is evaluated after every so many epochs, and after the last; 0 for never.
    pub validate_every: u64,
    /// What of the validation split says which epoch is better: `loss` (lower) or `metric` (higher). By default the loss, which
    /// tells epochs apart where few slides give the same metric, and which a split of one class has, too.
    pub monitor: Monitor,
    /// Training ends when so many evaluations of the validation split, one after another, were no better than the best before;
    /// 1 or more. Absent, all epochs are trained.
    #[schemars(example = 3)]
    pub patience: Option<u64>,
    /// Which weights are tested and kept: those of the `last` epoch or of the `best` one by `monitor`. By default the last: nothing is
    /// chosen then, and the schedule ends there; the best of many evaluations of a small split is best by luck.
    pub test_weights: TestWeights,
    /// A checkpoint is written after every so many steps, and after every epoch; 0 for epochs only.
    pub checkpoint_every: u64,
    /// How many checkpoints stay, the newest ones; 1 or more. By default 3: should the newest be damaged, the one before it is used.
    pub keep_checkpoints: usize,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: OptimizerKind,
    /// Augmentation of the training split.
    pub augmentation: AugmentationSettings,
}

/// What tells which epoch is better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// The validation split's loss: lower is better.
    #[default]
    Loss,
    /// The task's metric on the validation split: higher is better.
    Metric,
}

/// Which weights are tested and kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestWeights {
    /// Those after the last epoch.
    #[default]
    Last,
    /// Those after the epoch that was best on the validation split.
    Best,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            seeds: 1,
            epochs: 20,
            batch_size: 8,
            learning_rate: 6e-3,
            head_learning_rate: None,
            max_norm: 1.0,
            weight_decay_on: WeightDecayOn::default(),
            sampling: Sampling::Shuffled,
            class_weights: ClassWeights::None,
            cross_entropy_weight: None,
            dice_weight: None,
            dice_smooth: None,
            ema_decay: None,
            validate_every: 4,
            monitor: Monitor::default(),
            patience: None,
            test_weights: TestWeights::default(),
            checkpoint_every: 10,
            keep_checkpoints: 3,
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
        let illegal = |name: &str, expected: &str, found: String| {
            Err(TrainError::setting(
                format!("train.{name}"),
                expected,
                found,
            ))
        };
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        for (name, value) in [
            ("seeds", self.seeds),
            ("epochs", self.epochs),
            ("batch_size", count(self.batch_size)),
            ("patience", self.patience.unwrap_or(1)),
            ("keep_checkpoints", count(self.keep_checkpoints)),
        ] {
            if value == 0 {
                return illegal(name, "1 or more", value.to_string());
            }
        }
        let rates = [
            ("learning_rate", Some(self.learning_rate)),
            ("head_learning_rate", self.head_learning_rate),
        ];
        for (name, rate) in rates {
            if let Some(rate) = rate
                && !(rate.is_finite() && rate > 0.0)
            {
                return illegal(name, "a finite number above 0", rate.to_string());
            }
        }
        // Infinity is the limit that limits nothing.
        if self.max_norm.is_nan() || self.max_norm <= 0.0 {
            return illegal(
                "max_norm",
                "a number above 0, or inf for no limit",
                self.max_norm.to_string(),
            );
        }
        if let Some(decay) = self.ema_decay
            && !(decay > 0.0 && decay < 1.0)
        {
            return illegal("ema_decay", "above 0 and below 1", decay.to_string());
        }
        let needs_validation = self.patience.is_some() || self.test_weights == TestWeights::Best;
        if needs_validation && self.validate_every == 0 {
            let expected =
                "1 or more, since `patience` and the best weights go by the validation split";
            return illegal("validate_every", expected, 0.to_string());
        }
        // Of any number of classes.
        self.segmentation_loss(0, SegmentationLoss::IGNORE_INDEX)
            .check_factors()?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.augmentation.check()
    }

    /// The loss of a segmentation of `classes` classes.
    #[must_use]
    pub fn segmentation_loss(&self, classes: usize, ignore_index: u8) -> SegmentationLoss {
        let default = SegmentationLoss::new(classes);
        SegmentationLoss {
            ignore_index,
            class_weights: match &self.class_weights {
                ClassWeights::List(list) => list.clone(),
                ClassWeights::None | ClassWeights::Balanced => Vec::new(),
            },
            cross_entropy: self.cross_entropy_weight.unwrap_or(default.cross_entropy),
            dice: self.dice_weight.unwrap_or(default.dice),
            smooth: self.dice_smooth.unwrap_or(default.smooth),
            ..default
        }
    }

    /// How the parameters of a group are stepped.
    #[must_use]
    pub fn options(&self, group: &ParameterGroup) -> ParameterOptions {
        let head_rate = self.head_learning_rate.unwrap_or(self.learning_rate);
        let learning_rate_factor = match group.part {
            ModelPart::Body => 1.0,
            ModelPart::Head => head_rate / self.learning_rate,
        };
        let weight_decay_factor = match (group.kind, self.weight_decay_on) {
            (ParameterKind::NormOrBias, WeightDecayOn::Weights) => 0.0,
            _ => 1.0,
        };
        ParameterOptions {
            learning_rate_factor,
            weight_decay_factor,
        }
    }
}
