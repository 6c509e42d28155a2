//! Which slides there are, what is known of them, and which of them are trained on.

mod classes;
mod columns;
mod findings;
mod folds;
mod label;
mod layouts;
mod read;
mod rounds;
mod sampling;
mod settings;
mod stage;
mod table;
mod task;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stream_grad_slides::{FurtherCell, MicronsPerPixel};

pub use classes::{MissingClass, check_classes};
pub use columns::LabelColumn;
pub use findings::{SampleWarning, check_samples};
pub use folds::{DrawnSplits, Fold, SplitShares, assign_splits, cross_validation};
pub use label::{ClassNames, Label, SEPARATOR};
pub use layouts::Layout;
pub use read::DataSet;
pub use rounds::Round;
pub use sampling::{Sampling, epoch_order};
pub use settings::DataSettings;
pub use stage::{NodeStage, PatientStage, patient_stage, patient_stages};
pub(crate) use table::{add_further, further_cell, further_columns, table};
pub use table::{read_table, write_table};
pub use task::Task;

use crate::error::{Result, TrainError};

/// A slide and what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The slide's file.
    pub slide: PathBuf,
    /// A class, level, score, labels or a label map; `None` for a slide whose label is to be predicted.
    pub label: Option<Label>,
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
    pub fn new(slide: impl Into<PathBuf>, label: impl Into<Label>) -> Self {
        Self {
            label: Some(label.into()),
            ..Self::unlabelled(slide)
        }
    }

    /// A slide of which nothing is known.
    #[must_use]
    pub fn unlabelled(slide: impl Into<PathBuf>) -> Self {
        Self {
            slide: slide.into(),
            label: None,
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

/// The samples of `split`.
#[must_use]
pub fn of_split(samples: &[Sample], split: Split) -> Vec<Sample> {
    samples
        .iter()
        .filter(|sample| sample.split == Some(split))
        .cloned()
        .collect()
}

/// Checks that there is something to learn or to measure: every slide has a label, and two of them differ, or it has a label map.
///
/// `set` names the slides in the error.
///
/// # Errors
/// [`TrainError::Classes`].
pub fn check_labels(set: &str, samples: &[Sample]) -> Result<()> {
    let without: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.label.is_none())
        .collect();
    let found = match (without.first(), samples.first()) {
        (Some(first), _) => {
            let (count, slide) = (without.len(), first.slide.display());
            format!(
                "{count} of {} slides without a label, the first is {slide}",
                samples.len()
            )
        }
        (None, None) => "no slides".to_owned(),
        (None, Some(first))
            if matches!(first.label, Some(Label::Map(_)))
                || samples.iter().any(|sample| sample.label != first.label) =>
        {
            return Ok(());
        }
        (None, Some(first)) => {
            let label = first
                .label
                .as_ref()
                .map_or_else(String::new, Label::to_string);
            format!("{} slides, all with label {label}", samples.len())
        }
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
