//! A table of predictions that grows slide by slide, and goes on where it was left.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use stream_grad_files::refuse_input;

use super::Predicted;
use crate::data::{Sample, add_further, further_cell, further_columns};
use crate::error::{Result, TrainError};
use crate::files::{csv_bytes, write_whole};
use crate::source::ImageLoader;
use crate::trainer::{Phase, TrainEvent, TrainObserver};

/// What is predicted, and where it is written down.
pub(super) struct Job<'a> {
    pub(super) samples: &'a [Sample],
    pub(super) path: &'a Path,
    /// Of the model file, so that a table is not gone on with by another model.
    pub(super) digest: &'a str,
    /// Columns of what is predicted, after that of the slides.
    pub(super) columns: Vec<String>,
}

impl Job<'_> {
    /// Asks for the cells of each slide that the table does not have yet, and writes each row as soon as it is known. `ask` gives
    /// nothing where something is no finite number.
    pub(super) fn run(
        self,
        loader: &dyn ImageLoader,
        (stop, observer): (&AtomicBool, &mut dyn TrainObserver),
        mut ask: impl FnMut(&Sample) -> Result<Option<Vec<String>>>,
    ) -> Result<Predicted> {
        let (samples, path) = (self.samples, self.path);
        refuse_input(path, samples.iter().map(|sample| &sample.slide))?;
        let mut table = Table::open(&self)?;
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
            match Phase::Prediction.check(&sample.slide, ask(sample), loader)? {
                Ok(cells) => {
                    table.add(sample, cells)?;
                    found.predicted += 1;
                }
                Err(skipped) => {
                    observer.notice(&TrainEvent::SlideSkipped(&skipped));
                    found.skipped.push(skipped);
                }
            }
            observer.notice(&TrainEvent::SlidePredicted {
                slide: &sample.slide,
                done: place + 1,
                slides: open.len(),
            });
        }
        match found.skipped.last() {
            Some(last) if found.before + found.predicted == 0 => {
                Err(last.all_failed(samples.len()))
            }
            _ => Ok(found),
        }
    }
}

/// What stands beside a table of predictions that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    /// Digest of the model file.
    model: String,
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
    fn open(job: &Job<'_>) -> Result<Self> {
        let Job { path, samples, .. } = *job;
        let further = further_columns(samples.iter().map(|sample| sample.further.as_slice()));
        let heading = heading(&job.columns, &further);
        let place = origin_path(path);
        let origin = Origin {
            model: job.digest.to_owned(),
        };
        let other = |what| TrainError::OtherRun {
            folder: path.to_path_buf(),
            what,
            file: place.clone(),
        };
        let (mut rows, mut done) = (csv_bytes(path, [&heading])?, BTreeSet::new());
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
                    rows.extend(csv_bytes(path, [&record])?);
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

    /// Writes the row of a slide: its name, what was predicted, and what its own table states.
    fn add(&mut self, sample: &Sample, predicted: Vec<String>) -> Result<()> {
        let mut cells = vec![name(sample)];
        cells.extend(predicted);
        cells.push(sample.patient.clone().unwrap_or_default());
        cells.extend(
            self.further
                .iter()
                .map(|column| further_cell(&sample.further, column).to_owned()),
        );
        // One write for a row: what is cut off is the last row at most.
        self.file
            .write_all(&csv_bytes(&self.path, [&cells])?)
            .map_err(TrainError::file(&self.path))
    }
}

fn heading(columns: &[String], further: &[&str]) -> Vec<String> {
    let mut heading = vec!["slide".to_owned()];
    heading.extend(columns.iter().cloned());
    heading.push("patient".to_owned());
    add_further(&mut heading, further);
    heading
}

/// Beside a table, by which model it was made.
fn origin_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".origin.json");
    path.with_file_name(name)
}
