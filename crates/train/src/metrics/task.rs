//! Which metrics a task has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::Task;

/// A metric of a task's predictions. Of several classes or labels, those of two classes are means over one class against the
/// rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// [`roc_auc_score`](super::roc_auc_score).
    RocAuc,
    /// [`average_precision_score`](super::average_precision_score).
    AveragePrecision,
    /// [`accuracy_score`](super::accuracy_score).
    Accuracy,
    /// [`balanced_accuracy_score`](super::balanced_accuracy_score).
    BalancedAccuracy,
    /// [`cohen_kappa_score`](super::cohen_kappa_score) with quadratic weights.
    QuadraticKappa,
    /// [`spearmanr`](super::spearmanr).
    Spearman,
    /// [`pearsonr`](super::pearsonr).
    Pearson,
    /// [`mean_squared_error`](super::mean_squared_error).
    MeanSquaredError,
    /// [`mean_absolute_error`](super::mean_absolute_error).
    MeanAbsoluteError,
    /// [`expected_calibration_error`](super::expected_calibration_error) with [`BINS`](Self::BINS) bins: of the positive class,
    /// of the predicted one of several, or the mean over several labels.
    CalibrationError,
    /// [`Confusion::dice`](super::Confusion::dice), the mean over the classes that are in the truth or predicted.
    Dice,
    /// [`Confusion::iou`](super::Confusion::iou), the mean over the same classes.
    Iou,
}

/// Whether a metric is to rise or to fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

impl Metric {
    /// Bins of the calibration error and its curve.
    pub const BINS: usize = 10;

    /// All metrics of a task. The first is the main one, by which epochs are chosen and experiments compared: ROC AUC for two
    /// classes and for several labels, accuracy for several classes, the quadratically weighted kappa for levels, Spearman's
    /// correlation for numbers, the mean Dice for the classes of pixels.
    #[must_use]
    pub const fn of(task: Task) -> &'static [Self] {
        match task {
            Task::Binary => &[
                Self::RocAuc,
                Self::AveragePrecision,
                Self::Accuracy,
                Self::BalancedAccuracy,
                Self::CalibrationError,
            ],
            Task::Classification { .. } => &[
                Self::Accuracy,
                Self::BalancedAccuracy,
                Self::RocAuc,
                Self::AveragePrecision,
                Self::QuadraticKappa,
                Self::CalibrationError,
            ],
            Task::MultiLabel { .. } => &[
                Self::RocAuc,
                Self::AveragePrecision,
                Self::Accuracy,
                Self::CalibrationError,
            ],
            Task::Ordinal { .. } => &[
                Self::QuadraticKappa,
                Self::Spearman,
                Self::MeanAbsoluteError,
                Self::Accuracy,
                Self::BalancedAccuracy,
                Self::CalibrationError,
            ],
            Task::Regression => &[
                Self::Spearman,
                Self::Pearson,
                Self::MeanSquaredError,
                Self::MeanAbsoluteError,
            ],
            Task::Segmentation { .. } => &[Self::Dice, Self::Iou],
        }
    }

    /// The first of [`of`](Self::of).
    ///
    /// ```
    /// use stream_grad_train::{data::Task, metrics::Metric};
    /// assert_eq!(Metric::main(Task::Regression), Metric::Spearman);
    /// ```
    #[must_use]
    pub const fn main(task: Task) -> Self {
        Self::of(task)[0]
    }

    /// Name in files: `roc_auc`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RocAuc => "roc_auc",
            Self::AveragePrecision => "average_precision",
            Self::Accuracy => "accuracy",
            Self::BalancedAccuracy => "balanced_accuracy",
            Self::QuadraticKappa => "quadratic_kappa",
            Self::Spearman => "spearman",
            Self::Pearson => "pearson",
            Self::MeanSquaredError => "mean_squared_error",
            Self::MeanAbsoluteError => "mean_absolute_error",
            Self::CalibrationError => "calibration_error",
            Self::Dice => "dice",
            Self::Iou => "iou",
        }
    }

    /// Name for people: `ROC AUC`.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::RocAuc => "ROC AUC",
            Self::AveragePrecision => "Average precision",
            Self::Accuracy => "Accuracy",
            Self::BalancedAccuracy => "Balanced accuracy",
            Self::QuadraticKappa => "Cohen's kappa (quadratic)",
            Self::Spearman => "Spearman's correlation",
            Self::Pearson => "Pearson's correlation",
            Self::MeanSquaredError => "Mean squared error",
            Self::MeanAbsoluteError => "Mean absolute error",
            Self::CalibrationError => "Expected calibration error",
            Self::Dice => "Dice",
            Self::Iou => "IoU",
        }
    }

    /// Whether it is to rise or to fall.
    #[must_use]
    pub const fn orientation(self) -> Orientation {
        match self {
            Self::MeanSquaredError | Self::MeanAbsoluteError | Self::CalibrationError => {
                Orientation::Lower
            }
            _ => Orientation::Higher,
        }
    }

    /// Whether `value` is better than `other`; never if one is NaN.
    #[must_use]
    pub fn is_better(self, value: f64, other: f64) -> bool {
        match self.orientation() {
            Orientation::Higher => value > other,
            Orientation::Lower => value < other,
        }
    }
}

/// The name for people.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}
