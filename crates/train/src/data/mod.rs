//! Which slides there are, what is known of them, and which of them are trained on.

mod camelyon17;
mod findings;
mod folds;
mod sampling;
mod table;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stream_grad_slides::{FurtherCell, MicronsPerPixel};

pub use camelyon17::read_camelyon17;
pub use findings::{SampleWarning, check_samples};
pub use folds::{DrawnSplits, Fold, SplitShares, assign_splits, cross_validation};
pub use sampling::{Sampling, epoch_order};
pub(crate) use table::{further_cell, further_columns, table};
pub use table::{read_table, write_table};

use crate::error::{Result, TrainError};

/// A slide and what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The slide's file.
    pub slide: PathBuf,
    /// A class from 0, or a score.
    pub label: f64,
    /// Part of the data, where it is fixed.
    pub split: Option<Split>,
    /// Whose slide it is; slides of one patient stay in one split.
    pub patient: Option<String>,
    /// Scale of the slide's finest level, where it is stated beside the slide; used in place of the file's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microns_per_pixel: Option<MicronsPerPixel>,
    /// What else a table states, in its order; handed on to the predictions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<FurtherCell>,
}

impl Sample {
    /// A slide with a label, of which nothing else is known.
    #[must_use]
    pub fn new(slide: impl Into<PathBuf>, label: f64) -> Self {
        Self {
            slide: slide.into(),
            label,
            split: None,
            patient: None,
            microns_per_pixel: None,
            further: Vec::new(),
        }
    }

    /// The patient, or the slide's own name where none is known.
    #[must_use]
    pub fn patient_or_slide(&self) -> String {
        self.patient
            .clone()
            .unwrap_or_else(|| self.slide.display().to_string())
    }
}

/// A part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    Train,
    /// To choose settings with.
    Validation,
    /// To report on.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// The split of that name; `val`, `valid` and `training` are understood too.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "validation" | "val" | "valid" => Some(Self::Validation),
            "test" => Some(Self::Test),
            _ => None,
        }
    }
}

/// What is predicted from a slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// One of two classes, 0 and 1.
    Binary,
    /// One of several classes, 0 to `classes - 1`.
    Classification {
        /// Number of classes, two or more.
        classes: usize,
    },
    /// A number.
    Regression,
}

impl Task {
    /// Number of values that the network gives for a slide.
    #[must_use]
    pub const fn outputs(self) -> usize {
        match self {
            Self::Binary | Self::Regression => 1,
            Self::Classification { classes } => classes,
        }
    }

    /// Number of classes; `None` for a number.
    #[must_use]
    pub const fn classes(self) -> Option<usize> {
        match self {
            Self::Binary => Some(2),
            Self::Classification { classes } => Some(classes),
            Self::Regression => None,
        }
    }

    /// Which labels are legal, in words.
    #[must_use]
    pub fn labels(self) -> String {
        match self.classes() {
            Some(classes) => format!("a whole number from 0 to {}", classes.saturating_sub(1)),
            None => "a finite number".to_owned(),
        }
    }

    /// Whether `label` is legal.
    #[must_use]
    pub fn accepts(self, label: f64) -> bool {
        match self.classes() {
            Some(classes) => (0..classes).any(|class| class_label(class) == label),
            None => label.is_finite(),
        }
    }
}

/// The label of a class.
#[expect(clippy::cast_precision_loss, reason = "class numbers are small")]
pub(crate) fn class_label(class: usize) -> f64 {
    class as f64
}

/// The class of a label that its task accepts.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "labels of classes are small whole numbers"
)]
pub(crate) fn label_class(label: f64) -> usize {
    label as usize
}

/// The samples of `split`.
#[must_use]
pub fn of_split(samples: &[Sample], split: Split) -> Vec<Sample> {
    samples
        .iter()
        .filter(|sample| sample.split == Some(split))
        .cloned()
        .collect()
}

/// Checks that there is something to learn or to measure: two classes or more, or two different scores.
///
/// `set` names the slides in the error.
///
/// # Errors
/// [`TrainError::Classes`].
pub fn check_labels(set: &str, samples: &[Sample]) -> Result<()> {
    let mut labels: Vec<f64> = samples.iter().map(|sample| sample.label).collect();
    labels.sort_by(f64::total_cmp);
    labels.dedup();
    if labels.len() > 1 {
        return Ok(());
    }
    let found = match labels.first() {
        Some(label) => format!("{} slides, all with label {label}", samples.len()),
        None => "no slides".to_owned(),
    };
    Err(TrainError::Classes {
        set: set.to_owned(),
        expected: "two or more different labels".to_owned(),
        found,
    })
}

/// Checks that all slides of each patient lie in the same split.
///
/// # Errors
/// [`TrainError::SplitPatient`].
pub fn check_patients(samples: &[Sample]) -> Result<()> {
    let mut known: std::collections::BTreeMap<&str, Split> = std::collections::BTreeMap::new();
    for sample in samples {
        if let (Some(patient), Some(split)) = (&sample.patient, sample.split) {
            let first = *known.entry(patient).or_insert(split);
            if first != split {
                return Err(TrainError::SplitPatient {
                    patient: patient.clone(),
                    first: first.name(),
                    second: split.name(),
                });
            }
        }
    }
    Ok(())
}
