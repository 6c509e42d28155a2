//! Predictions for a set of slides, and how well they agree with the labels.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use stream_grad_slides::FurtherCell;

use super::events::{SkipReason, TrainEvent, TrainObserver};
use crate::data::{Sample, Split, Task, label_class};
use crate::error::{Result, TrainError};
use crate::loss::slide_loss;
use crate::metrics::{Bootstrap, Estimate, accuracy, area_under_curve, spearman};
use crate::model::Model;
use crate::source::ImageLoader;

/// What was predicted for a slide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The slide.
    pub slide: PathBuf,
    /// Its label.
    pub label: f64,
    /// The network's outputs, before any softmax or sigmoid.
    pub logits: Vec<f64>,
    /// Pixels of its image.
    pub pixels: u64,
    /// Its patient, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// What else its table states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<FurtherCell>,
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
/// [`TrainError::AllSlidesFailed`] if there are slides and none could be used; whatever [`ImageLoader::stops_at`] says must
/// stop the run.
pub fn evaluate(
    model: &dyn Model,
    loader: &dyn ImageLoader,
    (samples, split): (&[Sample], Split),
    stop: &AtomicBool,
    observer: &mut dyn TrainObserver,
) -> Result<Option<Evaluation>> {
    let mut evaluation = Evaluation::default();
    let mut last_failure = None;
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
        let predicted = loader.load(&sample.slide).and_then(|image| {
            let (height, width) = image.extent();
            Ok((model.predict(&*image)?, height.saturating_mul(width)))
        });
        let reason = match predicted {
            Ok((logits, pixels)) if logits.iter().all(|logit| logit.is_finite()) => {
                evaluation.predictions.push(Prediction {
                    slide: sample.slide.clone(),
                    label: sample.label,
                    logits,
                    pixels,
                    patient: sample.patient.clone(),
                    further: sample.further.clone(),
                });
                None
            }
            Ok(_) => Some(SkipReason::NotFinite),
            Err(error) if loader.stops_at(&error) => return Err(error),
            Err(error) => Some(SkipReason::Broken(error.to_string())),
        };
        if let Some(reason) = reason {
            observer.notice(&TrainEvent::SlideSkipped {
                slide: &sample.slide,
                reason: reason.clone(),
            });
            evaluation.skipped.push(sample.slide.clone());
            last_failure = Some((sample, reason));
        }
        observer.notice(&TrainEvent::SlideEvaluated {
            split,
            done: index + 1,
            slides: samples.len(),
        });
    }
    match last_failure {
        Some((sample, reason)) if evaluation.predictions.is_empty() => Err(all_failed(
            format!("the {} split", split.name()),
            samples.len(),
            &sample.slide,
            &reason,
        )),
        _ => Ok(Some(evaluation)),
    }
}

pub(super) fn all_failed(
    phase: String,
    count: usize,
    slide: &Path,
    reason: &SkipReason,
) -> TrainError {
    let last = match reason {
        SkipReason::Broken(message) => message.clone(),
        SkipReason::NotFinite => "a value that is no number".to_owned(),
    };
    TrainError::AllSlidesFailed {
        phase,
        count,
        slide: slide.to_path_buf(),
        last,
    }
}

impl Evaluation {
    /// Mean loss.
    ///
    /// # Errors
    /// [`TrainError::State`] for outputs that are not the task's.
    pub fn loss(&self, task: Task) -> Result<f64> {
        let mut sum = 0.0;
        let mut count = 0.0;
        for prediction in &self.predictions {
            let logits = Tensor::from_slice(
                &prediction.logits,
                (1, prediction.logits.len()),
                &Device::Cpu,
            )?;
            sum += slide_loss(task, &logits, prediction.label)?
                .to_dtype(DType::F64)?
                .to_scalar::<f64>()?;
            count += 1.0;
        }
        Ok(sum / count)
    }

    /// The task's metric: area under the curve, accuracy or Spearman's correlation.
    ///
    /// # Errors
    /// [`TrainError::Metric`] where the metric has no meaning, as for slides of one class.
    pub fn metric(&self, task: Task) -> Result<f64> {
        match task {
            Task::Binary => area_under_curve(&self.positive(), &self.scores()),
            Task::Classification { .. } => accuracy(&self.classes(), &self.predicted_classes(task)),
            Task::Regression => spearman(&self.labels(), &self.scores()),
        }
    }

    /// The task's metric with a bootstrap interval.
    ///
    /// # Errors
    /// As [`metric`](Self::metric).
    pub fn estimate(&self, task: Task, bootstrap: &Bootstrap) -> Result<Estimate> {
        match task {
            Task::Binary => bootstrap.area_under_curve(&self.positive(), &self.scores()),
            Task::Regression => bootstrap.spearman(&self.labels(), &self.scores()),
            Task::Classification { .. } => {
                bootstrap.accuracy(&self.classes(), &self.predicted_classes(task))
            }
        }
    }

    /// Mean number of pixels of an image; 0 without predictions.
    #[must_use]
    pub fn mean_pixels(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "areas of images are below 2^53, or only reported"
        )]
        let mean = |total: u128, count: usize| total as f64 / count.max(1) as f64;
        let pixels = self
            .predictions
            .iter()
            .map(|prediction| u128::from(prediction.pixels));
        mean(pixels.sum(), self.predictions.len())
    }

    /// Labels, slide by slide.
    #[must_use]
    pub fn labels(&self) -> Vec<f64> {
        self.predictions
            .iter()
            .map(|prediction| prediction.label)
            .collect()
    }

    /// First output of each slide.
    #[must_use]
    pub fn scores(&self) -> Vec<f64> {
        self.predictions
            .iter()
            .map(|prediction| prediction.logits.first().copied().unwrap_or(f64::NAN))
            .collect()
    }

    /// Class of each slide.
    #[must_use]
    pub fn classes(&self) -> Vec<usize> {
        self.predictions
            .iter()
            .map(|prediction| label_class(prediction.label))
            .collect()
    }

    /// Class that was predicted for each slide: the largest output, or for two classes whether the one output is above 0.
    #[must_use]
    pub fn predicted_classes(&self, task: Task) -> Vec<usize> {
        let largest = |logits: &[f64]| {
            logits
                .iter()
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(b.1))
                .map_or(0, |(class, _)| class)
        };
        self.predictions
            .iter()
            .map(|prediction| match task {
                Task::Binary => {
                    usize::from(prediction.logits.first().is_some_and(|logit| *logit > 0.0))
                }
                _ => largest(&prediction.logits),
            })
            .collect()
    }

    fn positive(&self) -> Vec<bool> {
        self.predictions
            .iter()
            .map(|prediction| prediction.label > 0.5)
            .collect()
    }
}
