//! What a run of hours takes, said before it starts and checked against what is free, and measured when it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::FormattedDuration;
use stream_grad::{ByteCount, Plan, cores};
use stream_grad_cli::resident_memory::{available_bytes, forget_peak, peak_rss_bytes, rss_bytes};
use stream_grad_cli::training::cost_model;
use stream_grad_files::write_whole;
use stream_grad_slides::MicronsPerPixel;
use stream_grad_train::cohort::{CohortConfig, SplitSizes, Subject, generate};
use stream_grad_train::data::{Round, Sample, Split};
use stream_grad_train::model::{Model, StreamedModel};
use stream_grad_train::report::{self, TableNote};
use stream_grad_train::settings::Settings;
use stream_grad_train::source::{ImageLoader, ReadSettings, SlideLoader};

use crate::tables::csv_bytes;

/// Name of the table in the folder of results.
pub(super) const TABLE: &str = "prediction.csv";
/// Edge of the slides that are made to see how long that takes and how many bytes they have, in pixels.
const TRIAL_EDGE: f64 = 1024.0;
/// Values that an optimiser keeps for each parameter at most, such as Adam's two moments.
const MOMENTS: u64 = 2;

/// What a run takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Prediction {
    /// Of writing the cohort, on a quiet machine.
    writing: Duration,
    /// Of training and testing, on a quiet machine, with pixels at hand.
    training: Duration,
    /// The most memory at a time.
    memory: ByteCount,
    /// What lies on disk in the end.
    disk: ByteCount,
}

impl Prediction {
    /// Of a run on a cohort that is to be written.
    pub(super) fn of_made_up(
        settings: &Settings,
        cohort: &CohortConfig,
        rounds: &[Round],
    ) -> anyhow::Result<Self> {
        let [_, edge] = cohort.edge_microns;
        let extent = |_: &Sample, microns: f64| Ok([pixels(edge / microns); 2]);
        let mut prediction = Self::of_training(settings, rounds, &extent)?;
        let trial = Trial::of(cohort).context("writing slides to see how long that takes")?;
        let slides = cohort.splits.total();
        let pixels = (edge / cohort.microns_per_pixel).powi(2);
        #[expect(clippy::cast_precision_loss, reason = "a few slides")]
        let turns = slides.div_ceil(cores()) as f64;
        #[expect(clippy::cast_precision_loss, reason = "a few slides")]
        let bytes = trial.bytes_of_pixel * pixels * slides as f64;
        prediction.writing = Duration::from_secs_f64(trial.seconds_of_pixel * pixels * turns);
        prediction.disk = ByteCount::bytes(prediction.disk.get() + whole(bytes));
        Ok(prediction)
    }

    /// Of a run on slides that are there. `folder` takes their masks of tissue, which the run uses, too.
    pub(super) fn of_given(
        settings: &Settings,
        folder: &Path,
        rounds: &[Round],
    ) -> anyhow::Result<Self> {
        // Nothing is decoded but what masks need.
        let read = ReadSettings {
            held_bytes: 0,
            decoding_threads: 0,
            ..settings.data.read.clone()
        };
        let mut extents = BTreeMap::new();
        for &microns in &settings.data.microns_per_pixel {
            let scale = MicronsPerPixel::new(microns)?;
            let loader = SlideLoader::with_folder(scale, read.clone(), folder)?;
            for sample in rounds.iter().flat_map(|round| &round.samples) {
                loader.state_scales(std::slice::from_ref(sample));
                // A slide that cannot be read is left out by the run, too, which names it.
                if let Ok(image) = loader.load(&sample.slide) {
                    let (height, width) = image.extent();
                    extents.insert((sample.slide.clone(), microns.to_bits()), [height, width]);
                }
            }
        }
        let extent = |sample: &Sample, microns: f64| {
            let key = (sample.slide.clone(), microns.to_bits());
            Ok(extents.get(&key).copied().unwrap_or_default())
        };
        Self::of_training(settings, rounds, &extent)
    }

    /// Of training and testing. `extent` gives the height and width of a slide's image at a number of microns per pixel; 0 for a slide
    /// that is left out.
    fn of_training(
        settings: &Settings,
        rounds: &[Round],
        extent: &dyn Fn(&Sample, f64) -> anyhow::Result<[u64; 2]>,
    ) -> anyhow::Result<Self> {
        let Settings {
            data, model, train, ..
        } = settings;
        let streamed = StreamedModel::new(model, data.task.outputs(), train.seed)?
            .cost_model(cost_model(settings)?)
            .reuse(data.read.background.reuse());
        let mut seconds = 0.0;
        let (mut peak, mut held) = (0, 0);
        for &microns in &data.microns_per_pixel {
            for round in rounds {
                let mut times = Times::default();
                let mut bytes = 0;
                for sample in &round.samples {
                    let [height, width] = extent(sample, microns)?;
                    if height * width == 0 {
                        continue;
                    }
                    let plan = streamed.plan(height, width)?;
                    peak = peak.max(plan.peak_bytes().get());
                    bytes += 3 * height * width;
                    times.add(sample.split, &plan);
                }
                held = held.max(bytes);
                seconds += times.of_run(settings);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a few seeds")]
        let seeds = train.seeds as f64;
        let sizes = Sizes::of(&streamed, settings);
        // Slides to come, and blocks of those that are read region by region.
        let held = held.min(data.read.held_bytes + data.read.held_bytes / 4);
        let runs = data.microns_per_pixel.len() * rounds.len();
        Ok(Self {
            writing: Duration::ZERO,
            training: Duration::from_secs_f64(seconds * seeds),
            memory: ByteCount::bytes(rss_bytes().unwrap_or_default() + peak + held + sizes.memory),
            disk: ByteCount::bytes(
                sizes
                    .disk
                    .saturating_mul(u64::try_from(runs)?)
                    .saturating_mul(train.seeds),
            ),
        })
    }

    /// Refuses a run that needs more memory, or more disk besides what is in `folder` already, than is free.
    fn check(&self, folder: &Path) -> anyhow::Result<()> {
        if let Some(free) = available_bytes().map(ByteCount::bytes)
            && self.memory > free
        {
            bail!(
                "the run takes up to {} of memory, and {free} are free: free some, or take less by `memory_bytes` of [model] and \
                 `held_bytes` of [data.read] in --settings",
                self.memory
            );
        }
        let needed = ByteCount::bytes(self.disk.get().saturating_sub(size_of(folder)));
        let place = existing(folder);
        let free = fs4::available_space(&place).with_context(|| place.display().to_string())?;
        let free = ByteCount::bytes(free);
        if needed > free {
            bail!(
                "the run writes {needed} more into {}, where {free} are free: free some, give another --output, or take fewer \
                 slides by --slides",
                folder.display()
            );
        }
        Ok(())
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Predicted, for a machine without other work:")?;
        if self.writing > Duration::ZERO {
            writeln!(
                f,
                "  writing the cohort    {}",
                FormattedDuration(self.writing)
            )?;
        }
        writeln!(
            f,
            "  training and testing  {}",
            FormattedDuration(self.training)
        )?;
        writeln!(f, "  memory                {}", self.memory)?;
        write!(f, "  disk                  {}", self.disk)
    }
}

/// Seconds of a pass over each split.
#[derive(Debug, Default)]
struct Times {
    /// Forward and backward of every slide to learn from, and forward alone.
    train: [f64; 2],
    slides: f64,
    /// Forward of every slide.
    validation: f64,
    test: f64,
}

impl Times {
    fn add(&mut self, split: Option<Split>, plan: &Plan) {
        let step = plan.predicted_time().as_secs_f64();
        let cost = plan.cost();
        #[expect(clippy::cast_precision_loss, reason = "a share of the work")]
        let forward = step * (cost.forward as f64 / cost.total().max(1) as f64);
        match split {
            Some(Split::Train) => {
                self.train[0] += step;
                self.train[1] += forward;
                self.slides += 1.0;
            }
            Some(Split::Validation) => self.validation += forward,
            Some(Split::Test) => self.test += forward,
            None => {}
        }
    }

    /// Of one training, with its first statistics, its validations and its test.
    #[expect(clippy::cast_precision_loss, reason = "epochs and slides")]
    fn of_run(&self, settings: &Settings) -> f64 {
        let train = &settings.train;
        let [step, forward] = self.train;
        let first_group = (train.batch_size as f64 / self.slides.max(1.0)).min(1.0);
        let validations = match train.validate_every {
            0 => 0,
            every => train.epochs.div_ceil(every),
        };
        let statistics = if settings.model.momentum > 0.0 {
            first_group * forward
        } else {
            0.0
        };
        statistics + train.epochs as f64 * step + validations as f64 * self.validation + self.test
    }
}

/// What the parameters of a training take.
struct Sizes {
    memory: u64,
    disk: u64,
}

impl Sizes {
    fn of(model: &StreamedModel, settings: &Settings) -> Self {
        let tensors = model.tensors();
        let weights: u64 = tensors.values().map(bytes).sum();
        let trainable: u64 = model
            .variables()
            .iter()
            .map(|(_, variable)| bytes(variable.as_tensor()))
            .sum();
        let averaged = u64::from(settings.train.ema_decay.is_some());
        let state = weights + (MOMENTS + averaged) * trainable;
        // One more than are kept, while the newest is written.
        let checkpoints = u64::try_from(settings.train.keep_checkpoints)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        Self {
            // The sum of a group's gradients, and a checkpoint before it is written.
            memory: state + trainable + state,
            // The weights of the best epoch, and the model.
            disk: checkpoints
                .saturating_mul(state)
                .saturating_add(2 * weights),
        }
    }
}

fn bytes(tensor: &candle_core::Tensor) -> u64 {
    let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Slides that were made to be measured.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// Of one thread, while all are at work.
    seconds_of_pixel: f64,
    bytes_of_pixel: f64,
}

impl Trial {
    /// Writes a small slide on each core, of the tissue of `cohort`.
    fn of(cohort: &CohortConfig) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let edge = TRIAL_EDGE * cohort.microns_per_pixel;
        let slides = cores();
        let small = CohortConfig {
            subject: Subject::Metastasis,
            splits: SplitSizes {
                train: slides,
                validation: 0,
                test: 0,
            },
            ..cohort.clone().resized(edge)
        };
        let started = Instant::now();
        generate(&small, folder.path(), &AtomicBool::new(false), &|_, _| {})?;
        let seconds = started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "some MB on some cores")]
        Ok(Self {
            seconds_of_pixel: seconds / TRIAL_EDGE.powi(2),
            bytes_of_pixel: size_of(folder.path()) as f64 / slides as f64 / TRIAL_EDGE.powi(2),
        })
    }
}

/// A run whose prediction was made, while it goes on.
#[derive(Debug)]
pub(super) struct Timed {
    prediction: Prediction,
    started: Instant,
    /// Whether something was there before.
    goes_on: bool,
}

impl Timed {
    /// Prints `prediction`, and refuses what there is no room for. Results are to lie in `folder`.
    pub(super) fn begin(prediction: Prediction, folder: &Path) -> anyhow::Result<Self> {
        println!("{prediction}");
        prediction.check(folder)?;
        let timed = Self {
            prediction,
            started: Instant::now(),
            goes_on: folder.join("run.toml").exists(),
        };
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        timed.write(folder, None)?;
        forget_peak();
        Ok(timed)
    }

    /// Puts what was measured beside the prediction, on the terminal and in the report.
    pub(super) fn end(self, folder: &Path) -> anyhow::Result<()> {
        let measured = Measured {
            time: self.started.elapsed(),
            memory: peak_rss_bytes().map(ByteCount::bytes),
            disk: ByteCount::bytes(size_of(folder)),
        };
        let memory = measured
            .memory
            .map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string());
        println!(
            "{}: {} (predicted {}), memory {memory} (predicted {}), disk {} (predicted {})",
            if self.goes_on {
                "Measured since it went on"
            } else {
                "Measured"
            },
            FormattedDuration(measured.time),
            FormattedDuration(self.prediction.writing + self.prediction.training),
            self.prediction.memory,
            measured.disk,
            self.prediction.disk
        );
        self.write(folder, Some(&measured))?;
        report::write(folder)?;
        Ok(())
    }

    fn write(&self, folder: &Path, measured: Option<&Measured>) -> anyhow::Result<()> {
        let prediction = self.prediction;
        let minutes = |time: Duration| format!("{:.1}", time.as_secs_f64() / 60.0);
        #[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
        let gib = |bytes: ByteCount| format!("{:.2}", bytes.get() as f64 / f64::from(1 << 30));
        let rows = [
            (
                "minutes",
                minutes(prediction.writing + prediction.training),
                measured.map(|measured| minutes(measured.time)),
            ),
            (
                "GiB of memory",
                gib(prediction.memory),
                measured.and_then(|measured| measured.memory.map(gib)),
            ),
            (
                "GiB on disk",
                gib(prediction.disk),
                measured.map(|measured| gib(measured.disk)),
            ),
        ];
        let rows = rows.map(|(what, predicted, measured)| {
            [what.to_owned(), predicted, measured.unwrap_or_default()]
        });
        let table = csv_bytes(["what", "predicted", "measured"], rows)?;
        Ok(write_whole(folder.join(TABLE), &table)?)
    }
}

struct Measured {
    time: Duration,
    memory: Option<ByteCount>,
    disk: ByteCount,
}

/// The table for the report.
pub(super) fn note() -> TableNote {
    TableNote {
        title: "What the run takes".to_owned(),
        caption: "Predicted before the start, for a machine without other work, and measured since it was last started"
            .to_owned(),
        file: PathBuf::from(TABLE),
    }
}

/// Bytes of the files in `folder` and below; 0 for what cannot be read.
fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The folder, or the nearest one above it that there is.
fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|place| place.is_dir());
    found.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float to u64 cast saturates"
)]
fn whole(value: f64) -> u64 {
    value.ceil() as u64
}

fn pixels(value: f64) -> u64 {
    // A hair above a whole number is that number.
    whole(value - 1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(memory: u64, disk: u64) -> Prediction {
        Prediction {
            memory: ByteCount::bytes(memory),
            disk: ByteCount::bytes(disk),
            ..Prediction::default()
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("not/there");
        prediction(1 << 20, 1 << 20).check(&place).unwrap();
        assert!(!place.exists());
        for (prediction, expected) in [
            (
                prediction(0, u64::MAX),
                ["16777216.00 TiB more into", "--slides"],
            ),
            (prediction(u64::MAX, 0), ["of memory", "memory_bytes"]),
        ] {
            if available_bytes().is_none() && prediction.disk.get() == 0 {
                continue;
            }
            let error = prediction.check(&place).unwrap_err().to_string();
            for part in expected {
                assert!(error.contains(part), "{part:?} in {error:?}");
            }
        }
    }

    /// What is on disk already is not asked for again.
    #[test]
    fn a_run_that_goes_on_needs_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("cohort")).unwrap();
        std::fs::write(folder.path().join("cohort/slide.tif"), [0; 1000]).unwrap();
        assert_eq!(size_of(folder.path()), 1000);
        let free = fs4::available_space(folder.path()).unwrap();
        prediction(0, free / 2 + 1000).check(folder.path()).unwrap();
    }

    #[test]
    fn a_training_is_its_steps_and_passes() {
        let times = Times {
            train: [30.0, 10.0],
            slides: 10.0,
            validation: 2.0,
            test: 5.0,
        };
        let mut settings = Settings::default();
        settings.train.epochs = 3;
        settings.train.batch_size = 5;
        settings.train.validate_every = 2;
        // Half of the slides for the first statistics, three epochs, validation after the second and the last, test.
        assert!((times.of_run(&settings) - (5.0 + 90.0 + 4.0 + 5.0)).abs() < 1e-12);
        settings.model.momentum = 0.0;
        settings.train.validate_every = 0;
        assert!((times.of_run(&settings) - 95.0).abs() < 1e-12);
    }

    #[test]
    fn what_was_measured_stands_beside_the_prediction() {
        let folder = tempfile::tempdir().unwrap();
        let timed = Timed::begin(prediction(1 << 20, 3 << 28), folder.path()).unwrap();
        let table = || std::fs::read_to_string(folder.path().join(TABLE)).unwrap();
        assert_eq!(
            table(),
            "what,predicted,measured\nminutes,0.0,\nGiB of memory,0.00,\nGiB on disk,0.75,\n"
        );
        let measured = Measured {
            time: Duration::from_secs(90),
            memory: None,
            disk: ByteCount::gib(1),
        };
        timed.write(folder.path(), Some(&measured)).unwrap();
        let expected = "minutes,0.0,1.5\nGiB of memory,0.00,\nGiB on disk,0.75,1.00\n";
        assert!(table().ends_with(expected), "{}", table());
    }
}
