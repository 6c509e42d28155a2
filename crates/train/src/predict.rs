//! Predictions of a trained model for slides without labels, written down one by one: labels of slides, or maps of their pixels.

mod maps;
mod table;
mod trained;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::data::Sample;
use crate::error::Result;
use crate::model::{Model, StreamedModel};
use crate::model_file::{Limits, ModelDescription, ModelFile};
use crate::source::{ImageLoader, ReadSettings, SlideLoader};
use crate::trainer::{Skipped, TrainObserver};
use table::Job;
use trained::Trained;

pub use maps::{MapPredictor, map_paths};

/// A trained model that is shown slides.
///
/// ```no_run
/// use std::path::Path;
/// use std::sync::atomic::AtomicBool;
/// use stream_grad_train::data::Sample;
/// use stream_grad_train::model_file::Limits;
/// use stream_grad_train::predict::Predictor;
/// use stream_grad_train::trainer::NoObserver;
///
/// let predictor = Predictor::open(Path::new("model.safetensors"), Limits::new(1 << 30, 0))?;
/// let slides = [Sample { label: None, ..Sample::new("a.svs", 0.0) }];
/// let table = Path::new("predictions.csv");
/// let predicted = predictor.predict(&slides, table, &AtomicBool::new(false), &mut NoObserver)?;
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
#[derive(Debug)]
pub struct Predictor {
    trained: Trained<StreamedModel>,
}

/// What a call of [`Predictor::predict`] gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Predicted {
    /// Slides that the table held already.
    pub before: usize,
    /// Slides that were predicted.
    pub predicted: usize,
    /// Slides that could not be, and why; the next call tries them again.
    pub skipped: Vec<Skipped>,
    /// Whether it was told to stop before the end.
    pub is_stopped: bool,
}

impl Predictor {
    /// Reads a model file. Images are streamed within `limits`.
    ///
    /// # Errors
    /// As [`load`](crate::model_file::load) and [`ModelFile::build`].
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        Ok(Self {
            trained: Trained::new(path, limits, ModelFile::build)?,
        })
    }

    /// What the file says of the model.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        &self.trained.description
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &StreamedModel {
        &self.trained.model
    }

    /// Reads slides as those of the training were read.
    ///
    /// # Errors
    /// As [`SlideLoader::new`].
    pub fn loader(&self) -> Result<SlideLoader> {
        self.loader_with(self.trained.description.read.clone())
    }

    /// The same, with other settings: what they change of the pixels changes the predictions.
    ///
    /// # Errors
    /// As [`SlideLoader::new`].
    pub fn loader_with(&self, read: ReadSettings) -> Result<SlideLoader> {
        self.trained.loader(read)
    }

    /// Predicts `samples`, whether they have labels or not, and writes each into the table `path` as soon as it is known: slide,
    /// predicted class or number, a probability for each class or label, the network's outputs, and the further columns of the
    /// slides' table. A table that an earlier call left goes on; beside it lies a small file that says by which model it was made.
    ///
    /// A slide that cannot be read is told to `observer` and left out.
    ///
    /// # Errors
    /// [`OtherRun`](crate::TrainError::OtherRun) for a table of another model or other columns,
    /// [`OtherTable`](crate::TrainError::OtherTable) for any other file; [`File`](crate::TrainError::File);
    /// [`Destination`](crate::TrainError::Destination) if `path` is one of the slides;
    /// [`AllSlidesFailed`](crate::TrainError::AllSlidesFailed) if there are slides and none could be predicted; whatever
    /// [`ImageLoader::stops_at`] says must stop it.
    pub fn predict(
        &self,
        samples: &[Sample],
        path: &Path,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Predicted> {
        let loader = self.loader()?;
        loader.state_scales(samples);
        self.predict_with(&loader, samples, path, (stop, observer))
    }

    /// The same, with images from any loader.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn predict_with(
        &self,
        loader: &dyn ImageLoader,
        samples: &[Sample],
        path: &Path,
        (stop, observer): (&AtomicBool, &mut dyn TrainObserver),
    ) -> Result<Predicted> {
        let ModelDescription { task, classes, .. } = &self.trained.description;
        let mut columns = vec!["predicted".to_owned()];
        columns.extend(classes.iter().map(|class| format!("probability_{class}")));
        columns.extend((0..task.outputs()).map(|output| format!("output_{output}")));
        let job = Job {
            samples,
            path,
            digest: &self.trained.digest,
            columns,
        };
        job.run(loader, (stop, observer), |sample| {
            let image = loader.load(&sample.slide)?;
            let outputs = self.trained.model.predict(&*image)?;
            let is_finite = outputs.iter().all(|output| output.is_finite());
            Ok(is_finite.then(|| self.cells(&outputs)))
        })
    }

    /// What a row says of a slide with these outputs.
    fn cells(&self, outputs: &[f64]) -> Vec<String> {
        let ModelDescription { task, classes, .. } = &self.trained.description;
        let mut cells = vec![task.predicted(outputs).text(*task, classes)];
        let probabilities = task.probabilities(outputs);
        cells.extend(probabilities.iter().map(f64::to_string));
        cells.extend(outputs.iter().map(f64::to_string));
        cells
    }
}

#[cfg(test)]
mod tests;
