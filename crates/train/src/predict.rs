//! Predictions of a trained model for slides without labels, written down one by one.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stream_grad_files::refuse_input;
use stream_grad_slides::MicronsPerPixel;

use crate::data::{Sample, further_cell, further_columns};
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::model::{Model, StreamedModel};
use crate::model_file::{self, ModelDescription};
use crate::source::{ImageLoader, ReadSettings, SlideLoader};
use crate::trainer::{SkipReason, TrainEvent, TrainObserver};

/// A trained model that is shown slides.
///
/// ```no_run
/// use std::path::Path;
/// use std::sync::atomic::AtomicBool;
/// use stream_grad_train::data::Sample;
/// use stream_grad_train::predict::Predictor;
/// use stream_grad_train::trainer::NoObserver;
///
/// let predictor = Predictor::open(Path::new("model.safetensors"), 1 << 30, 0)?;
/// let slides = [Sample { label: None, ..Sample::new("a.svs", 0.0) }];
/// let table = Path::new("predictions.csv");
/// let predicted = predictor.predict(&slides, table, &AtomicBool::new(false), &mut NoObserver)?;
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
pub struct Predictor {
    description: ModelDescription,
    model: StreamedModel,
    /// Of the model file, so that a table is not gone on with by another model.
    digest: String,
}

impl std::fmt::Debug for Predictor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Predictor")
            .field("description", &self.description)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// What a call of [`Predictor::predict`] gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Predicted {
    /// Slides that the table held already.
    pub before: usize,
    /// Slides that were predicted.
    pub predicted: usize,
    /// Slides that could not be, and why; the next call tries them again.
    pub skipped: Vec<(PathBuf, SkipReason)>,
    /// Whether it was told to stop before the end.
    pub is_stopped: bool,
}

/// What stands beside a table of predictions that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    /// Digest of the model file.
    model: String,
}

impl Predictor {
    /// Reads a model file. Images are streamed within `memory_bytes` and on as many threads, or one for each core for 0.
    ///
    /// # Errors
    /// As [`model_file::load`] and [`ModelFile::build`](model_file::ModelFile::build).
    pub fn open(path: &Path, memory_bytes: u64, threads: usize) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(TrainError::file(path))?;
        let digest = Sha256::digest(bytes);
        let file = model_file::load(path)?;
        Ok(Self {
            model: file.build(memory_bytes, threads)?,
            description: file.description,
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// What the file says of the model.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &StreamedModel {
        &self.model
    }

    /// Reads slides as those of the training were read.
    ///
    /// # Errors
    /// As [`SlideLoader::new`].
    pub fn loader(&self) -> Result<SlideLoader> {
        self.loader_with(self.description.read.clone())
    }

    /// The same, with other settings: what they change of the pixels changes the predictions.
    ///
    /// # Errors
    /// As [`SlideLoader::new`].
    pub fn loader_with(&self, read: ReadSettings) -> Result<SlideLoader> {
        let scale = MicronsPerPixel::new(self.description.microns_per_pixel)?;
        SlideLoader::new(scale, read)
    }

    /// Predicts `samples`, whether they have labels or not, and writes each into the table `path` as soon as it is known: slide,
    /// predicted class or number, a probability for each class or label, the network's outputs, and the further columns of the
    /// slides' table. A table that an earlier call left goes on; beside it lies a small file that says by which model it was made.
    ///
    /// A slide that cannot be read is told to `observer` and left out.
    ///
    /// # Errors
    /// [`TrainError::OtherRun`] for a table of another model or other columns, [`TrainError::OtherTable`] for any other file;
    /// [`TrainError::File`];
    /// [`TrainError::Destination`] if `path` is one of the slides; [`TrainError::AllSlidesFailed`] if there are slides and none
    /// could be predicted; whatever [`ImageLoader::stops_at`] says must stop it.
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
        refuse_input(path, samples.iter().map(|sample| &sample.slide))?;
        let mut table = Table::open(path, self, samples)?;
        let open: Vec<&Sample> = samples
            .iter()
            .filter(|sample| !table.done.contains(&name(sample)))
            .collect();
        let mut found = Predicted {
            before: samples.len() - open.len(),
            ..Predicted::default()
        };
        let paths: Vec<&Path> = open.iter().map(|sample| sample.slide.as_path()).collect();
        loader.expect(&paths);
        for (place, sample) in open.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                found.is_stopped = true;
                return Ok(found);
            }
            let outputs = loader
                .load(&sample.slide)
                .and_then(|image| self.model.predict(&*image));
            let reason = match outputs {
                Ok(outputs) if outputs.iter().all(|output| output.is_finite()) => {
                    table.add(self, sample, &outputs)?;
                    found.predicted += 1;
                    None
                }
                Ok(_) => Some(SkipReason::NotFinite),
                Err(error) if loader.stops_at(&error) => return Err(error),
                Err(error) => Some(SkipReason::broken(&error)),
            };
            if let Some(reason) = reason {
                observer.notice(&TrainEvent::SlideSkipped {
                    slide: &sample.slide,
                    reason: reason.clone(),
                });
                found.skipped.push((sample.slide.clone(), reason));
            }
            observer.notice(&TrainEvent::SlidePredicted {
                slide: &sample.slide,
                done: place + 1,
                slides: open.len(),
            });
        }
        match found.skipped.last() {
            Some((slide, reason)) if found.before + found.predicted == 0 => {
                Err(TrainError::AllSlidesFailed {
                    phase: "the prediction".to_owned(),
                    count: samples.len(),
                    slide: slide.clone(),
                    last: reason.to_string(),
                })
            }
            _ => Ok(found),
        }
    }
}

/// What a slide is called in the table.
fn name(sample: &Sample) -> String {
    sample.slide.display().to_string()
}

/// A table that grows.
struct Table {
    path: PathBuf,
    file: File,
    further: Vec<String>,
    done: BTreeSet<String>,
}

impl Table {
    /// Begins a table, or goes on with one: its whole rows stay, and one that was cut off is dropped.
    fn open(path: &Path, predictor: &Predictor, samples: &[Sample]) -> Result<Self> {
        let further = further_columns(samples.iter().map(|sample| sample.further.as_slice()));
        let heading = heading(predictor, &further);
        let place = origin_path(path);
        let origin = Origin {
            model: predictor.digest.clone(),
        };
        let other = |what| TrainError::OtherRun {
            folder: path.to_path_buf(),
            what,
            file: place.clone(),
        };
        let (mut rows, mut done) = (row(path, &heading)?, BTreeSet::new());
        if path.exists() {
            // Without it, the table is of another program: it is not ours to replace.
            let known = std::fs::read(&place).map_err(|_| TrainError::OtherTable {
                path: path.to_path_buf(),
                origin: place.clone(),
            })?;
            let known: Origin = serde_json::from_slice(&known).map_err(TrainError::json(&place))?;
            if known != origin {
                return Err(other("model"));
            }
            let bytes = std::fs::read(path).map_err(TrainError::file(path))?;
            let whole = bytes
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .from_reader(&bytes[..whole]);
            for (line, record) in reader.records().enumerate() {
                let record = record.map_err(TrainError::csv(path))?;
                if line == 0 {
                    if record != heading {
                        return Err(other("columns"));
                    }
                } else if let Some(slide) = record.get(0) {
                    done.insert(slide.to_owned());
                    rows.extend(row(path, record.iter())?);
                }
            }
        } else {
            let json = serde_json::to_vec(&origin).map_err(TrainError::json(&place))?;
            write_whole(&place, &json)?;
        }
        write_whole(path, &rows)?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(TrainError::file(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            further: further.into_iter().map(str::to_owned).collect(),
            done,
        })
    }

    fn add(&mut self, predictor: &Predictor, sample: &Sample, outputs: &[f64]) -> Result<()> {
        let ModelDescription { task, classes, .. } = &predictor.description;
        let mut cells = vec![name(sample), task.predicted(outputs).text(*task, classes)];
        let probabilities = task.probabilities(outputs);
        cells.extend(probabilities.iter().map(f64::to_string));
        cells.extend(outputs.iter().map(f64::to_string));
        cells.push(sample.patient.clone().unwrap_or_default());
        cells.extend(
            self.further
                .iter()
                .map(|column| further_cell(&sample.further, column).to_owned()),
        );
        // One write for a row: what is cut off is the last row at most.
        self.file
            .write_all(&row(&self.path, &cells)?)
            .map_err(TrainError::file(&self.path))
    }
}

fn heading(predictor: &Predictor, further: &[&str]) -> Vec<String> {
    let ModelDescription { task, classes, .. } = &predictor.description;
    let mut heading = vec!["slide".to_owned(), "predicted".to_owned()];
    heading.extend(classes.iter().map(|class| format!("probability_{class}")));
    heading.extend((0..task.outputs()).map(|output| format!("output_{output}")));
    heading.push("patient".to_owned());
    for column in further {
        // A column of the slides' table that is called as one before it.
        let mut name = (*column).to_owned();
        while heading
            .iter()
            .any(|taken| taken.to_lowercase() == name.to_lowercase())
        {
            name.insert_str(0, "table_");
        }
        heading.push(name);
    }
    heading
}

fn row<T: AsRef<[u8]>>(path: &Path, cells: impl IntoIterator<Item = T>) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).map_err(TrainError::csv(path))?;
    writer
        .into_inner()
        .map_err(|error| TrainError::file(path)(error.into_error()))
}

/// Beside a table, by which model it was made.
fn origin_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".origin.json");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests;
