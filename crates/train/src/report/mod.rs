//! What an experiment gave: tables, a summary, a plot, predictions.

mod front;
mod plot;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stream_grad_files::refuse_input;

use crate::checkpoint::EpochRecord;
use crate::data::{further_cell, further_columns};
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::metrics::Estimate;
use crate::trainer::{Evaluation, Timing};

pub use front::write_front;

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

/// What one resolution gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolutionResult {
    /// Edge of a pixel in microns.
    pub microns_per_pixel: f64,
    /// Mean number of pixels of an image.
    pub mean_pixels: f64,
    /// The metric on the test split, with its interval.
    pub test: Estimate,
    /// Slides of the test split that counted.
    pub test_slides: usize,
    /// Slides that did not count.
    pub skipped: SkippedSlides,
    /// Regions that could not be decoded and read as background, by slide, since the run was last begun.
    #[serde(default)]
    pub bad_regions: BTreeMap<PathBuf, usize>,
    /// Seconds that training and evaluation took; of a run that was stopped, since it was last started.
    pub seconds: f64,
    /// Seconds of the training alone, and how many it waited for pixels.
    pub training: Timing,
    /// All epochs.
    pub history: Vec<EpochRecord>,
}

/// Slides that did not count, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SkippedSlides {
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
        self.test.len() + self.broken.len() + self.not_finite.len()
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
    /// Where they stand.
    pub source: String,
    /// The figures, coarsest first.
    pub figures: Vec<PublishedFigure>,
}

/// All that an experiment gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the experiment.
    pub title: String,
    /// Where the slides came from.
    pub data: DataOrigin,
    /// Name of the metric, such as `AUC`.
    pub metric: String,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// What each resolution gave, coarsest first.
    pub results: Vec<ResolutionResult>,
    /// What was published.
    pub published: Vec<PublishedRow>,
}

/// How the finest resolution compares with the coarsest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The finest interval lies wholly above the coarsest.
    Separated,
    /// The finest value is higher, but the intervals overlap.
    Higher,
    /// The finest value is not higher.
    NotHigher,
    /// There are fewer than two resolutions.
    OneResolution,
}

impl Report {
    /// How the finest resolution compares with the coarsest.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let by_scale = |a: &&ResolutionResult, b: &&ResolutionResult| {
            a.microns_per_pixel.total_cmp(&b.microns_per_pixel)
        };
        let (finest, coarsest) = (
            self.results.iter().min_by(by_scale),
            self.results.iter().max_by(by_scale),
        );
        match (finest, coarsest) {
            (Some(finest), Some(coarsest))
                if finest.microns_per_pixel < coarsest.microns_per_pixel =>
            {
                if finest.test.low > coarsest.test.high {
                    Verdict::Separated
                } else if finest.test.value > coarsest.test.value {
                    Verdict::Higher
                } else {
                    Verdict::NotHigher
                }
            }
            _ => Verdict::OneResolution,
        }
    }

    /// The files that [`write`](Self::write) writes.
    pub const FILES: [&str; 5] = [
        "summary.txt",
        "summary.json",
        "epochs.csv",
        "resolutions.csv",
        "metric.svg",
    ];

    /// Writes [`FILES`](Self::FILES) into `folder`.
    ///
    /// # Errors
    /// [`TrainError::File`], [`TrainError::Csv`], [`TrainError::Json`], [`TrainError::Plot`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let [text, summary, epochs, resolutions, plot] = Self::FILES.map(|name| folder.join(name));
        write_whole(&text, self.to_string().as_bytes())?;
        let json = serde_json::to_vec_pretty(&Summary {
            report: self,
            verdict: self.verdict(),
        })
        .map_err(TrainError::json(&summary))?;
        write_whole(&summary, &json)?;
        write_whole(&epochs, &self.epochs_csv(&epochs)?)?;
        write_whole(&resolutions, &self.resolutions_csv(&resolutions)?)?;
        write_whole(&plot, self.svg(&plot)?.as_bytes())
    }

    fn epochs_csv(&self, path: &Path) -> Result<Vec<u8>> {
        let heading = [
            "microns_per_pixel",
            "epoch",
            "train_loss",
            "learning_rate",
            "validation_loss",
            "validation_metric",
        ];
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let rows = self.results.iter().flat_map(|result| {
            result.history.iter().map(move |epoch| {
                vec![
                    result.microns_per_pixel.to_string(),
                    (epoch.epoch + 1).to_string(),
                    epoch.train_loss.to_string(),
                    epoch.learning_rate.to_string(),
                    number(epoch.validation_loss),
                    number(epoch.validation_metric),
                ]
            })
        });
        csv_bytes(path, &heading, rows)
    }

    fn resolutions_csv(&self, path: &Path) -> Result<Vec<u8>> {
        let heading = [
            "microns_per_pixel",
            "mean_pixels",
            "metric",
            "value",
            "low",
            "high",
            "test_slides",
            "skipped_slides",
            "bad_regions",
            "seconds",
            "waiting_share",
        ];
        let rows = self.results.iter().map(|result| {
            vec![
                result.microns_per_pixel.to_string(),
                result.mean_pixels.to_string(),
                self.metric.clone(),
                result.test.value.to_string(),
                result.test.low.to_string(),
                result.test.high.to_string(),
                result.test_slides.to_string(),
                result.skipped.count().to_string(),
                result.bad_regions.values().sum::<usize>().to_string(),
                result.seconds.to_string(),
                result.training.waiting_share().to_string(),
            ]
        });
        csv_bytes(path, &heading, rows)
    }
}

/// What `summary.json` holds.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    report: &'a Report,
    verdict: Verdict,
}

/// Writes a table of the predictions of `evaluation`: slide, label, one column for each output, the patient if one is known, and
/// the further columns of the slides' table.
///
/// A further column that is called as one of those before it, in whatever case, gets `table_` before its name, as often as
/// needed: `logit_0` becomes `table_logit_0`.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Csv`]; [`TrainError::Destination`] if `path` is one of the slides.
pub fn write_predictions(path: &Path, evaluation: &Evaluation) -> Result<()> {
    let predictions = &evaluation.predictions;
    refuse_input(path, predictions.iter().map(|prediction| &prediction.slide))?;
    let outputs = predictions
        .first()
        .map_or(0, |prediction| prediction.logits.len());
    let has_patients = predictions
        .iter()
        .any(|prediction| prediction.patient.is_some());
    let further = further_columns(
        predictions
            .iter()
            .map(|prediction| prediction.further.as_slice()),
    );
    let mut heading = vec!["slide".to_owned(), "label".to_owned()];
    heading.extend((0..outputs).map(|output| format!("logit_{output}")));
    heading.extend(has_patients.then(|| "patient".to_owned()));
    for column in &further {
        heading.push(free_name(column, &heading));
    }
    let rows = predictions.iter().map(|prediction| {
        let mut row = vec![
            prediction.slide.display().to_string(),
            prediction.label.to_string(),
        ];
        row.extend(prediction.logits.iter().map(f64::to_string));
        row.extend(has_patients.then(|| prediction.patient.clone().unwrap_or_default()));
        row.extend(
            further
                .iter()
                .map(|column| further_cell(&prediction.further, column).to_owned()),
        );
        row
    });
    write_whole(path, &csv_bytes(path, &heading, rows)?)
}

/// `column`, or a name made of it that is not in `taken`.
fn free_name(column: &str, taken: &[String]) -> String {
    let mut name = column.to_owned();
    while taken
        .iter()
        .any(|taken| taken.to_lowercase() == name.to_lowercase())
    {
        name.insert_str(0, "table_");
    }
    name
}

fn csv_bytes(
    path: &Path,
    heading: &[impl AsRef<[u8]>],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(heading)
        .map_err(TrainError::csv(path))?;
    for row in rows {
        writer.write_record(row).map_err(TrainError::csv(path))?;
    }
    writer
        .into_inner()
        .map_err(|error| TrainError::file(path)(error.into_error()))
}

#[cfg(test)]
mod tests;
