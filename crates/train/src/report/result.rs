//! What a training leaves in its folder for the report.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::checkpoint::EpochRecord;
use crate::machine::Machine;
use crate::metrics::Estimate;
use crate::trainer::Timing;

/// What one resolution gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolutionResult {
    /// Edge of a pixel in microns.
    pub microns_per_pixel: f64,
    /// Mean number of pixels of an image.
    pub mean_pixels: f64,
    /// The metric on the test split, with its interval; none where it has no meaning, as where all slides that could be read are of
    /// one class.
    pub test: Option<Estimate>,
    /// Slides of the test split that counted.
    pub test_slides: usize,
    /// Slides that did not count.
    pub skipped: SkippedSlides,
    /// Regions that could not be decoded and read as background, by slide, since the run was last begun.
    #[serde(default)]
    pub bad_regions: BTreeMap<PathBuf, usize>,
    /// Seconds that training and evaluation took; of a run that was stopped, since it was last started.
    pub seconds: f64,
    /// The most heap bytes that a step was planned to hold, over all images.
    #[serde(default)]
    pub planned_bytes: u64,
    /// Seconds of the training alone, and how many it waited for pixels.
    pub training: Timing,
    /// All epochs.
    pub history: Vec<EpochRecord>,
    /// Where it was made.
    #[serde(default)]
    pub machine: Machine,
}

/// Slides that did not count, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SkippedSlides {
    /// Of the validation split, after the training: as for the test split.
    pub validation: Vec<PathBuf>,
    /// Of the test split: those that could not be read, or whose outputs were no numbers.
    pub test: Vec<PathBuf>,
    /// Of the training split: those that could not be read, at least once.
    pub broken: Vec<PathBuf>,
    /// Of the training split: those whose loss or gradient was no number.
    pub not_finite: Vec<PathBuf>,
}

impl SkippedSlides {
    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.validation.len() + self.test.len() + self.broken.len() + self.not_finite.len()
    }
}
