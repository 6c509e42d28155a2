//! What an experiment tells its report, in a file of the run folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::files::write_whole;

/// Where the slides came from; the report says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DataOrigin {
    /// The cohort that this crate makes from a seed.
    MadeUp {
        /// The seed.
        seed: u64,
    },
    /// Slides that were given.
    Given {
        /// Where they lie.
        place: String,
    },
}

impl DataOrigin {
    /// A few words for headings.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::MadeUp { seed } => format!("made-up cohort, seed {seed}"),
            Self::Given { place } => place.clone(),
        }
    }
}

/// A figure that was published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedFigure {
    /// Megapixels of the image.
    pub megapixels: f64,
    /// The metric.
    pub value: f64,
}

/// A row of published figures to stand beside the measured ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedRow {
    /// What was measured on what, and where it stands.
    pub source: String,
    /// The figures, coarsest first.
    pub figures: Vec<PublishedFigure>,
}

/// How an axis of a [`PlotNote`] counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AxisScale {
    /// Evenly.
    #[default]
    Linear,
    /// By factors; values of 0 or less are left out.
    Log,
}

/// A plot of a CSV that lies in the run folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlotNote {
    /// A few words.
    pub title: String,
    /// What is to be seen.
    pub caption: String,
    /// The CSV, relative to the folder.
    pub file: PathBuf,
    /// Column of the horizontal axis, with numbers. Its name is that of the axis.
    pub x: String,
    /// Columns of the vertical axis, with numbers; a line for each.
    pub y: Vec<String>,
    /// What the vertical axis is called.
    pub y_label: String,
    /// A column whose values each have lines of their own.
    pub series: Option<String>,
    /// How the horizontal axis counts.
    pub x_scale: AxisScale,
    /// How the vertical axis counts.
    pub y_scale: AxisScale,
}

/// A table of a CSV that lies in the run folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableNote {
    /// A few words.
    pub title: String,
    /// What is to be seen.
    pub caption: String,
    /// The CSV, relative to the folder.
    pub file: PathBuf,
}

/// What an experiment tells its report. All of it may be left out.
///
/// A folder without slides, such as that of a measurement of memory, may consist of this and the CSVs that it names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notes {
    /// Name of the experiment.
    pub title: String,
    /// What is asked, in a sentence or two.
    pub asked: String,
    /// Where the slides came from.
    pub origin: Option<DataOrigin>,
    /// Names of classes, levels or labels, in the order of their numbers, where `run.toml` does not state them.
    pub classes: Vec<String>,
    /// What a reader must know, a paragraph each.
    pub remarks: Vec<String>,
    /// What was published, of the same experiment and metric.
    pub published: Vec<PublishedRow>,
    /// Plots of the experiment's own.
    pub plots: Vec<PlotNote>,
    /// Tables of the experiment's own.
    pub tables: Vec<TableNote>,
}

impl Notes {
    /// Name of the file in the run folder.
    pub const FILE: &str = "experiment.json";

    /// Writes the notes into a run folder.
    ///
    /// # Errors
    /// [`TrainError::File`], [`TrainError::Json`] for a number that JSON cannot hold.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(Self::FILE);
        let json = serde_json::to_vec_pretty(self).map_err(TrainError::json(&path))?;
        write_whole(&path, &json)
    }

    /// The notes of a run folder; empty ones where there is no such file.
    ///
    /// # Errors
    /// [`TrainError::File`], [`TrainError::Json`] for a file that holds no notes.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::FILE);
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(TrainError::json(&path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(TrainError::file(&path)(error)),
        }
    }
}
