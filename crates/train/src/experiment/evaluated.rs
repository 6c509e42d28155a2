//! The splits that are looked at after a training.

use std::path::PathBuf;
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
#[derive(Debug)]
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

    /// What `evaluate` gives for the validation and for the test split; `None` if it was stopped.
    fn both<E>(
        &self,
        mut evaluate: impl FnMut((&'a [Sample], Split)) -> Result<Option<E>>,
    ) -> Result<Option<[(Split, E); 2]>> {
        let Some(validation) = evaluate((self.validation, Split::Validation))? else {
            return Ok(None);
        };
        let Some(test) = evaluate((self.test, Split::Test))? else {
            return Ok(None);
        };
        Ok(Some([(Split::Validation, validation), (Split::Test, test)]))
    }

    fn of_slides(
        &self,
        model: &dyn Model,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<Evaluated>> {
        let both = self.both(|set| evaluate(model, self.loader, set, stop, observer))?;
        let Some(both) = both else {
            return Ok(None);
        };
        write_predictions(&self.table, &both)?;
        let [(_, validation), (_, test)] = both;
        Ok(Some(Evaluated {
            skipped_validation: validation.skipped,
            test: with_meaning(test.estimate(self.task, self.bootstrap))?,
            test_slides: test.predictions.len(),
            mean_pixels: test.mean_pixels(),
            skipped_test: test.skipped,
        }))
    }

    fn of_pixels(
        &self,
        pixels: PixelModel<'_>,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<Evaluated>> {
        let both = self.both(|set| evaluate_maps(pixels, self.loader, set, stop, observer))?;
        let Some(both) = both else {
            return Ok(None);
        };
        let classes = pixels.loss.classes;
        write_map_predictions(&self.table, classes, &both)?;
        let [(_, validation), (_, test)] = both;
        Ok(Some(Evaluated {
            skipped_validation: validation.skipped,
            test: with_meaning(test.estimate(classes, self.bootstrap))?,
            test_slides: test.predictions.len(),
            mean_pixels: test.mean_pixels(),
            skipped_test: test.skipped,
        }))
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
