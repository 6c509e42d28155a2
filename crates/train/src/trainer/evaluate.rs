//! Predictions for a set of slides, and how well they agree with the labels.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::events::{TrainEvent, TrainObserver};
use super::skipped::Phase;
use crate::data::{Label, Sample, Split, Task};
use crate::error::Result;
use crate::loss::Objective;
use crate::metrics::{Bootstrap, Estimate, Groups, Metric, Outcomes};
use crate::model::Model;
use crate::source::ImageLoader;

/// What was predicted for a slide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The slide, with its label where one is known.
    pub sample: Sample,
    /// Pixels of its image.
    pub pixels: u64,
    /// The network's outputs, before any softmax or sigmoid; a number in its own unit.
    pub logits: Vec<f64>,
}

/// What an evaluation gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluation {
    /// One for each slide that could be read, in the order of the slides.
    pub predictions: Vec<Prediction>,
    /// Slides that did not count.
    pub skipped: Vec<PathBuf>,
}

/// Predicts every slide of `samples`. Slides that cannot be read, or give outputs that are no numbers, are told to
/// `observer` and left out. Returns `None` if `stop` was set before the end.
///
/// # Errors
/// [`AllSlidesFailed`](crate::TrainError::AllSlidesFailed) if there are slides and none could be used; whatever
/// [`ImageLoader::stops_at`] says must stop the run.
pub fn evaluate(
    model: &dyn Model,
    loader: &dyn ImageLoader,
    (samples, split): (&[Sample], Split),
    stop: &AtomicBool,
    observer: &mut dyn TrainObserver,
) -> Result<Option<Evaluation>> {
    let predicted = each_slide(loader, (samples, split), stop, observer, |sample| {
        let image = loader.load(&sample.slide)?;
        let (height, width) = image.extent();
        let logits = model.predict(&*image)?;
        let is_finite = logits.iter().all(|logit| logit.is_finite());
        Ok(is_finite.then(|| Prediction {
            sample: sample.clone(),
            pixels: height.saturating_mul(width),
            logits,
        }))
    })?;
    Ok(predicted.map(|(predictions, skipped)| Evaluation {
        predictions,
        skipped,
    }))
}

/// What `ask` gives for every slide of `samples`, and the slides that did not count: those that it refuses, or of which it gives
/// nothing, since something is no number. `None` if `stop` was set before the end.
///
/// # Errors
/// As [`evaluate`].
pub(super) fn each_slide<T>(
    loader: &dyn ImageLoader,
    (samples, split): (&[Sample], Split),
    stop: &AtomicBool,
    observer: &mut dyn TrainObserver,
    mut ask: impl FnMut(&Sample) -> Result<Option<T>>,
) -> Result<Option<(Vec<T>, Vec<PathBuf>)>> {
    let (mut answers, mut skipped) = (Vec::new(), Vec::new());
    loader.expect(
        &samples
            .iter()
            .map(|sample| sample.slide.as_path())
            .collect::<Vec<_>>(),
    );
    for (index, sample) in samples.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match Phase::Evaluation(split).check(&sample.slide, ask(sample), loader)? {
            Ok(answer) => answers.push(answer),
            Err(slide) => {
                observer.notice(&TrainEvent::SlideSkipped(&slide));
                skipped.push(slide);
            }
        }
        observer.notice(&TrainEvent::SlideEvaluated {
            split,
            done: index + 1,
            slides: samples.len(),
        });
    }
    match skipped.last() {
        Some(last) if answers.is_empty() => Err(last.all_failed(samples.len())),
        _ => {
            let slides = skipped.into_iter().map(|skipped| skipped.slide);
            Ok(Some((answers, slides.collect())))
        }
    }
}

/// Slides by their patients.
pub(super) fn groups<'a>(samples: impl Iterator<Item = &'a Sample>) -> Groups {
    Groups::by_patient(samples.map(|sample| (sample.patient.as_deref(), sample.slide.as_path())))
}

/// The mean of numbers of pixels; 0 of none.
pub(super) fn mean_pixels(pixels: impl ExactSizeIterator<Item = u64>) -> f64 {
    let count = pixels.len().max(1);
    let total: u128 = pixels.map(u128::from).sum();
    #[expect(
        clippy::cast_precision_loss,
        reason = "areas of images are below 2^53, or only reported"
    )]
    let mean = total as f64 / count as f64;
    mean
}

impl Evaluation {
    /// Mean loss of the slides with a label; NaN if there is none.
    ///
    /// # Errors
    /// [`State`](crate::TrainError::State) for outputs that are not the task's.
    pub fn loss(&self, objective: &Objective) -> Result<f64> {
        let mut sum = 0.0;
        let mut count = 0.0;
        for (prediction, label) in self.labelled() {
            sum += objective.of_prediction(&prediction.logits, label)?;
            count += 1.0;
        }
        Ok(sum / count)
    }

    /// Labels beside what was predicted, of the slides with a label: for all metrics.
    ///
    /// # Errors
    /// [`State`](crate::TrainError::State) for outputs or labels that are not the task's.
    pub fn outcomes(&self, task: Task) -> Result<Outcomes> {
        let pairs = self.labelled();
        Outcomes::new(
            task,
            pairs.map(|(prediction, label)| (label, prediction.logits.as_slice())),
        )
    }

    /// Slides with a label by their patients, for [`Bootstrap::estimate`]; one of which no patient is known by itself.
    #[must_use]
    pub fn groups(&self) -> Groups {
        groups(self.labelled().map(|(prediction, _)| &prediction.sample))
    }

    /// The task's [main metric](Metric::main).
    ///
    /// # Errors
    /// [`Metric`](crate::TrainError::Metric) where the metric has no meaning, as for slides of one class; as [`outcomes`](Self::outcomes).
    pub fn metric(&self, task: Task) -> Result<f64> {
        self.outcomes(task)?.metric(Metric::main(task))
    }

    /// The task's main metric with a bootstrap interval, drawn by patient.
    ///
    /// # Errors
    /// As [`metric`](Self::metric) and [`Bootstrap::estimate`].
    pub fn estimate(&self, task: Task, bootstrap: &Bootstrap) -> Result<Estimate> {
        self.outcomes(task)?
            .estimate(Metric::main(task), &self.groups(), bootstrap)
    }

    /// Mean number of pixels of an image; 0 without predictions.
    #[must_use]
    pub fn mean_pixels(&self) -> f64 {
        mean_pixels(self.predictions.iter().map(|prediction| prediction.pixels))
    }

    /// Predictions of slides with a label, and their labels: those that everything that is measured is measured on.
    pub fn labelled(&self) -> impl Iterator<Item = (&Prediction, &Label)> {
        self.predictions
            .iter()
            .filter_map(|prediction| Some((prediction, prediction.sample.label.as_ref()?)))
    }
}
