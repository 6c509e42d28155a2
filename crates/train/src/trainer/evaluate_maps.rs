//! Predicted classes of pixels beside label maps, for a set of slides.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::evaluate::{each_slide, groups, mean_pixels};
use super::events::TrainObserver;
use crate::data::{Label, Sample, Split};
use crate::error::{Result, TrainError};
use crate::metrics::{Bootstrap, Confusion, Estimate, Groups, MapOutcomes, Metric};
use crate::model::PixelModel;
use crate::source::{ImageLoader, LabelSource};

/// What was predicted for the pixels of a slide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapPrediction {
    /// The slide; its label is the label map.
    pub sample: Sample,
    /// Pixels of its image.
    pub pixels: u64,
    /// Its loss.
    pub loss: f64,
    /// How many pixels of each class were taken for each.
    pub confusion: Confusion,
}

/// What an evaluation of pixels gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MapEvaluation {
    /// One for each slide that could be read, in the order of the slides.
    pub predictions: Vec<MapPrediction>,
    /// Slides that did not count.
    pub skipped: Vec<PathBuf>,
}

impl PixelModel<'_> {
    /// The label map of a sample whose image is of `extent` (height, width).
    ///
    /// # Errors
    /// [`TrainError::State`] for a sample without a label map, or one of another size; as
    /// [`LabelLoader::labels`](crate::source::LabelLoader::labels).
    pub fn labels_of(&self, sample: &Sample, extent: (u64, u64)) -> Result<Arc<dyn LabelSource>> {
        let refuse = |expected: String, found: String| TrainError::State {
            name: "label map".to_owned(),
            expected,
            found,
        };
        let Some(Label::Map(map)) = &sample.label else {
            let found = format!("{:?} of {}", sample.label, sample.slide.display());
            return Err(refuse("a file for each slide".to_owned(), found));
        };
        let labels = self.labels.labels(&sample.slide, map)?;
        let found = labels.extent();
        if found == extent {
            return Ok(labels);
        }
        let expected = format!(
            "{} x {} pixels, as the image of {}",
            extent.0,
            extent.1,
            sample.slide.display()
        );
        Err(refuse(expected, format!("{} x {}", found.0, found.1)))
    }
}

/// Compares every slide of `samples` with its label map. Slides that cannot be read, or give a loss that is no number, are told to
/// `observer` and left out. Returns `None` if `stop` was set before the end.
///
/// # Errors
/// As [`evaluate`](super::evaluate()).
pub fn evaluate_maps(
    pixels: PixelModel<'_>,
    loader: &dyn ImageLoader,
    (samples, split): (&[Sample], Split),
    stop: &AtomicBool,
    observer: &mut dyn TrainObserver,
) -> Result<Option<MapEvaluation>> {
    let predicted = each_slide(loader, (samples, split), stop, observer, |sample| {
        let image = loader.load(&sample.slide)?;
        let (height, width) = image.extent();
        let labels = pixels.labels_of(sample, (height, width))?;
        let sums = pixels.model.evaluate(&*image, &*labels, pixels.loss)?;
        let loss = pixels.loss.value(&sums);
        Ok(loss.is_finite().then(|| MapPrediction {
            sample: sample.clone(),
            pixels: height.saturating_mul(width),
            loss,
            confusion: sums.confusion().clone(),
        }))
    })?;
    Ok(predicted.map(|(predictions, skipped)| MapEvaluation {
        predictions,
        skipped,
    }))
}

impl MapEvaluation {
    /// Mean loss of the slides; NaN if there is none.
    #[must_use]
    pub fn loss(&self) -> f64 {
        let (sum, count) = self
            .predictions
            .iter()
            .fold((0.0, 0.0), |(sum, count), slide| {
                (sum + slide.loss, count + 1.0)
            });
        sum / count
    }

    /// The pixels of all slides, for metrics.
    ///
    /// # Errors
    /// [`TrainError::State`] for slides of another number of classes.
    pub fn outcomes(&self, classes: usize) -> Result<MapOutcomes> {
        let slides = self.predictions.iter();
        MapOutcomes::new(
            classes,
            slides.map(|slide| slide.confusion.clone()).collect(),
        )
    }

    /// Slides by their patients, for [`Bootstrap::estimate`]; one of which no patient is known by itself.
    #[must_use]
    pub fn groups(&self) -> Groups {
        groups(self.predictions.iter().map(|slide| &slide.sample))
    }

    /// The mean Dice over classes with a bootstrap interval, drawn by patient.
    ///
    /// # Errors
    /// As [`MapOutcomes::estimate`].
    pub fn estimate(&self, classes: usize, bootstrap: &Bootstrap) -> Result<Estimate> {
        self.outcomes(classes)?
            .estimate(Metric::Dice, &self.groups(), bootstrap)
    }

    /// Mean number of pixels of an image; 0 without predictions.
    #[must_use]
    pub fn mean_pixels(&self) -> f64 {
        mean_pixels(self.predictions.iter().map(|slide| slide.pixels))
    }
}
