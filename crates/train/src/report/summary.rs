//! The report in short, for programs and for terminals.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::detail::{Detail, Predictions};
use super::folder::{Member, RunFolder};
use super::notes::PublishedRow;
use super::pixels::Pixels;
use crate::error::Result;
use crate::metrics::{Estimate, Metric, Orientation};

/// What a run gave, in short: `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the experiment.
    pub title: String,
    /// Where the slides came from, where that is known.
    #[serde(default)]
    pub data: Option<String>,
    /// The task's main metric; none for a run without a task.
    #[serde(default)]
    pub metric: Option<Metric>,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// What each resolution gave, coarsest first.
    pub resolutions: Vec<ResolutionSummary>,
    /// How the finest resolution compares with the coarsest.
    pub verdict: Verdict,
    /// The main metric at the finest resolution less that at the coarsest, on the slides that both have predictions of, resampled
    /// together.
    #[serde(default)]
    pub difference: Option<Estimate>,
    /// What was published.
    #[serde(default)]
    pub published: Vec<PublishedRow>,
    /// Figures and tables of the report, relative to the run folder.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

/// What one resolution gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolutionSummary {
    /// Edge of a pixel in microns.
    #[serde(default)]
    pub microns_per_pixel: Option<f64>,
    /// Mean number of pixels of an image.
    #[serde(default)]
    pub mean_pixels: Option<f64>,
    /// Slides that were predicted and whose labels are known; of the first seed, of all folds together.
    pub slides: usize,
    /// Metrics on these slides by name, of those that have a meaning.
    pub metrics: BTreeMap<String, Estimate>,
    /// Quadratically weighted kappa of the patients' stages, where classes are the stages of lymph nodes and patients are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_stage_kappa: Option<Estimate>,
    /// The trainings: one for each seed and fold.
    pub trainings: Vec<TrainingSummary>,
}

/// What one training gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingSummary {
    /// Name of its folder.
    pub name: String,
    /// The main metric on its own slides.
    #[serde(default)]
    pub metric: Option<Estimate>,
    /// Slides that did not count.
    pub skipped: usize,
    /// Regions that could not be decoded.
    pub bad_regions: usize,
    /// Seconds that training and evaluation took.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Share of the training that waited for pixels.
    #[serde(default)]
    pub waiting_share: Option<f64>,
}

/// How the finest resolution compares with the coarsest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The finest interval lies wholly on the better side of the coarsest.
    Separated,
    /// The intervals overlap, but that of the difference on the same slides lies wholly on the better side of 0.
    Better,
    /// The finest value is better, but its difference to the coarsest may be chance.
    MaybeChance,
    /// The finest value is not better.
    NotBetter,
    /// There are fewer than two resolutions with a metric.
    OneResolution,
}

impl Verdict {
    fn of(
        metric: Metric,
        (coarsest, finest): (Estimate, Estimate),
        difference: Option<Estimate>,
    ) -> Self {
        let (separated, is_sure) = match metric.orientation() {
            Orientation::Higher => (
                finest.low > coarsest.high,
                difference.is_some_and(|difference| difference.low > 0.0),
            ),
            Orientation::Lower => (
                finest.high < coarsest.low,
                difference.is_some_and(|difference| difference.high < 0.0),
            ),
        };
        if separated {
            Self::Separated
        } else if !metric.is_better(finest.value, coarsest.value) {
            Self::NotBetter
        } else if is_sure {
            Self::Better
        } else {
            Self::MaybeChance
        }
    }

    /// The same in words.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Separated => {
                "The finest resolution's interval lies wholly on the better side of the coarsest's."
            }
            Self::Better => {
                "The finest resolution is better than the coarsest: their intervals overlap, but that of the difference does not hold 0."
            }
            Self::MaybeChance => {
                "The finest resolution is better than the coarsest here, but that may be chance: the intervals do not tell them apart."
            }
            Self::NotBetter => "The finest resolution is NOT better than the coarsest.",
            Self::OneResolution => "One resolution only: nothing to compare.",
        }
    }
}

impl ResolutionSummary {
    /// Mean and deviation (of the sample) of the main metric over the trainings; `None` for fewer than two.
    #[must_use]
    pub fn spread(&self) -> Option<(f64, f64)> {
        let values: Vec<f64> = self
            .trainings
            .iter()
            .filter_map(|training| Some(training.metric?.value))
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "a few trainings")]
        let count = values.len() as f64;
        if count < 2.0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some((mean, (squares / (count - 1.0)).sqrt()))
    }
}

impl Summary {
    /// What is concluded from the resolutions, in a sentence or two.
    #[must_use]
    pub fn conclusion(&self) -> String {
        let sentence = self.verdict.sentence();
        match (self.metric, self.difference) {
            (Some(metric), Some(difference)) => format!(
                "{sentence} {}, finest less coarsest, on the same slides: {difference}.",
                metric.title()
            ),
            _ => sentence.to_owned(),
        }
    }

    pub(super) fn of(run: &RunFolder, details: &[Detail<'_>]) -> Result<Self> {
        let metric = run.task.map(Metric::main);
        let mut resolutions = Vec::new();
        for members in run.members.chunk_by(|a, b| a.key.microns == b.key.microns) {
            let trainings = members
                .iter()
                .map(|member| training(run, member))
                .collect::<Result<_>>()?;
            let first = members.first().map(|member| &member.name);
            let detail = details.iter().find(|detail| {
                detail
                    .members
                    .iter()
                    .any(|member| Some(&member.name) == first)
            });
            let pixels = Pixels::of(run, members)?;
            let of_pixels = match &pixels {
                Some(pixels) => pixels.metrics(run)?,
                None => BTreeMap::new(),
            };
            let slides = pixels.map_or(0, |pixels| pixels.outcomes.len());
            resolutions.push(ResolutionSummary {
                microns_per_pixel: members.first().and_then(|member| member.key.microns),
                mean_pixels: members.iter().find_map(|member| member.result.mean_pixels),
                slides: detail.map_or(slides, |detail| detail.predictions.slides.len()),
                metrics: detail.map_or(of_pixels, |detail| {
                    let known = detail.metrics.iter();
                    known
                        .filter_map(|(metric, value)| {
                            Some((metric.name().to_owned(), *value.as_ref().ok()?))
                        })
                        .collect()
                }),
                patient_stage_kappa: detail
                    .and_then(|detail| detail.stages.as_ref()?.kappa.as_ref().ok().copied()),
                trainings,
            });
        }
        let main: Vec<Estimate> = resolutions
            .iter()
            .filter(|resolution| resolution.microns_per_pixel.is_some())
            .filter_map(|resolution| resolution.metrics.get(metric?.name()).copied())
            .collect();
        let difference = match (metric, details) {
            (Some(metric), [coarsest, .., finest]) => {
                let pair = [&coarsest.predictions, &finest.predictions];
                Predictions::difference(pair, metric, &run.bootstrap)?
            }
            _ => None,
        };
        let verdict = match (metric, main.as_slice()) {
            (Some(metric), [coarsest, .., finest]) => {
                Verdict::of(metric, (*coarsest, *finest), difference)
            }
            _ => Verdict::OneResolution,
        };
        Ok(Self {
            title: run.title(),
            data: run.notes.origin.as_ref().map(super::DataOrigin::label),
            metric,
            confidence: run.bootstrap.confidence,
            resolutions,
            verdict,
            difference,
            published: run.notes.published.clone(),
            files: Vec::new(),
        })
    }
}

fn training(run: &RunFolder, member: &Member) -> Result<TrainingSummary> {
    let own = match run.task {
        Some(task) => Predictions::of(task, &[member])?.and_then(|predictions| {
            predictions
                .estimate(Metric::main(task), &run.bootstrap)
                .ok()
        }),
        None => None,
    };
    let result = &member.result;
    Ok(TrainingSummary {
        name: member.name.clone(),
        metric: own.or(result.test),
        skipped: result.skipped.count(),
        bad_regions: result.bad_regions.values().sum(),
        seconds: result.seconds,
        waiting_share: result.training.map(|timing| timing.waiting_share()),
    })
}

/// A table for a terminal.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title)?;
        if let Some(data) = &self.data {
            write!(f, " ({data})")?;
        }
        writeln!(f, "\n")?;
        let Some(metric) = self.metric else {
            return Ok(());
        };
        let interval = format!("{:.0}% interval", self.confidence * 100.0);
        writeln!(
            f,
            "{:>8}  {:>10}  {:>24}  {:>16}  {:>6}  {:>7}  {:>8}  {:>8}",
            "microns",
            "megapixels",
            metric.title(),
            interval,
            "slides",
            "skipped",
            "seconds",
            "waiting"
        )?;
        for resolution in &self.resolutions {
            let optional = |value: Option<f64>, decimals: usize| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
            };
            let estimate = resolution.metrics.get(metric.name());
            let (value, interval) = match estimate {
                None => ("-".to_owned(), "-".to_owned()),
                Some(estimate) => (
                    format!("{:.3}", estimate.value),
                    format!("{:.3} to {:.3}", estimate.low, estimate.high),
                ),
            };
            let trainings = &resolution.trainings;
            let seconds: Option<f64> = trainings.iter().map(|training| training.seconds).sum();
            let waiting = trainings
                .first()
                .and_then(|training| training.waiting_share);
            let waiting = waiting.map(|share| share * 100.0);
            writeln!(
                f,
                "{:>8}  {:>10}  {value:>24}  {interval:>16}  {:>6}  {:>7}  {:>8}  {:>7}%",
                resolution
                    .microns_per_pixel
                    .map_or_else(|| "-".to_owned(), |microns| microns.to_string()),
                optional(resolution.mean_pixels.map(|pixels| pixels / 1e6), 3),
                resolution.slides,
                trainings
                    .iter()
                    .map(|training| training.skipped)
                    .sum::<usize>(),
                optional(seconds, 0),
                optional(waiting, 1),
            )?;
            if let Some(kappa) = resolution.patient_stage_kappa {
                writeln!(f, "{:>8}  stages of patients, quadratic kappa {kappa}", "")?;
            }
            if let Some((mean, deviation)) = resolution.spread() {
                writeln!(
                    f,
                    "{:>8}  {mean:.3} ± {deviation:.3} over {} trainings",
                    "",
                    trainings.len()
                )?;
            }
        }
        for row in &self.published {
            writeln!(f, "\npublished: {}", row.source)?;
            for figure in &row.figures {
                writeln!(
                    f,
                    "{:>8}  {:>10.3}  {:>24.3}",
                    "", figure.megapixels, figure.value
                )?;
            }
        }
        writeln!(f, "\n{}", self.conclusion())
    }
}
