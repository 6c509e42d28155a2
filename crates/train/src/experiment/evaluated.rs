//! The splits that are looked at after a training.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::data::{Sample, Split, Task};
use crate::error::{Result, TrainError};
use crate::metrics::{Bootstrap, Estimate};
use crate::model::{Model, PixelModel, TaskModel};
use crate::report::{write_map_predictions, write_predictions};
use crate::source::ImageLoader;
use crate::trainer::{TrainObserver, evaluate, evaluate_maps};

/// The splits, and where their predictions go.
pub(super) struct Splits<'a> {
    pub(super) task: Task,
    pub(super) validation: &'a [Sample],
    pub(super) test: &'a [Sample],
    pub(super) loader: &'a dyn ImageLoader,
    pub(super) bootstrap: &'a Bootstrap,
    /// The table of predictions.
    pub(super) table: PathBuf,
}

/// What they gave.
#[derive(Debug, Default)]
pub(super) struct Evaluated {
    pub(super) skipped_validation: Vec<PathBuf>,
    pub(super) skipped_test: Vec<PathBuf>,
    /// The main metric on the test split; none where it has no meaning.
    pub(super) test: Option<Estimate>,
    pub(super) test_slides: usize,
    pub(super) mean_pixels: f64,
}

impl<'a> Splits<'a> {
    /// Evaluates both splits and writes all predictions down; `None` if `stop` was set before the end.
    pub(super) fn evaluate(
        &self,
        model: TaskModel<'_>,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<Evaluated>> {
        match model {
            TaskModel::Slides(model) => self.of_slides(model, stop, observer),
            TaskModel::Pixels(pixels) => self.of_pixels(pixels, stop, observer),
        }
    }

    fn sets(&self) -> [(&'a [Sample], Split); 2] {
        [
            (self.validation, Split::Validation),
            (self.test, Split::Test),
        ]
    }

    fn table(&self) -> &Path {
        &self.table
    }

    fn of_slides(
        &self,
        model: &dyn Model,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<Evaluated>> {
        let mut evaluations = Vec::new();
        for set in self.sets() {
            match evaluate(model, self.loader, set, stop, observer)? {
                Some(evaluation) => evaluations.push((set.1, evaluation)),
                None => return Ok(None),
            }
        }
        write_predictions(self.table(), &evaluations)?;
        let mut found = Evaluated::default();
        for (split, of) in evaluations {
            if split == Split::Validation {
                found.skipped_validation = of.skipped;
                continue;
            }
            found.test = with_meaning(of.estimate(self.task, self.bootstrap))?;
            found.test_slides = of.predictions.len();
            found.mean_pixels = of.mean_pixels();
            found.skipped_test = of.skipped;
        }
        Ok(Some(found))
    }

    fn of_pixels(
        &self,
        pixels: PixelModel<'_>,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<Evaluated>> {
        let mut evaluations = Vec::new();
        for set in self.sets() {
            match evaluate_maps(pixels, self.loader, set, stop, observer)? {
                Some(evaluation) => evaluations.push((set.1, evaluation)),
                None => return Ok(None),
            }
        }
        let classes = pixels.loss.classes;
        write_map_predictions(self.table(), classes, &evaluations)?;
        let mut found = Evaluated::default();
        for (split, of) in evaluations {
            if split == Split::Validation {
                found.skipped_validation = of.skipped;
                continue;
            }
            found.test = with_meaning(of.estimate(classes, self.bootstrap))?;
            found.test_slides = of.predictions.len();
            found.mean_pixels = of.mean_pixels();
            found.skipped_test = of.skipped;
        }
        Ok(Some(found))
    }
}

/// Of slides that could be read, say, none is of the second class: the report says so.
fn with_meaning(estimate: Result<Estimate>) -> Result<Option<Estimate>> {
    match estimate {
        Ok(estimate) => Ok(Some(estimate)),
        Err(TrainError::Metric { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
