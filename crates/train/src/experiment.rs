//! The same training at several resolutions, with several seeds, in several rounds of splits: in a folder that a second call goes on
//! with.

mod claim;
mod evaluated;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use stream_grad::CostModel;
use stream_grad_slides::{FurtherCell, MicronsPerPixel};

use crate::checkpoint::BestEpoch;
use crate::data::{
    ClassNames, Round, Sample, SampleWarning, Split, check_classes, check_labels, check_samples,
    of_split,
};
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::machine::Machine;
use crate::model::{BuiltModel, PixelModel, TaskModel};
use crate::model_file::{self, ModelDescription, TrainedBy};
use crate::report::{ResolutionResult, SkippedSlides};
use crate::settings::Settings;
use crate::source::{MapClasses, SlideLabelLoader, SlideLoader};
use crate::trainer::{Outcome, Run, TrainObserver, TrainSettings};
use claim::FolderLock;
use evaluated::Splits;

/// An experiment and the folder that holds what it gives. While it exists, none is opened in that folder by another process.
#[derive(Debug, Clone)]
pub struct Experiment {
    folder: PathBuf,
    settings: Settings,
    rounds: Vec<Round>,
    classes: ClassNames,
    warnings: Vec<SampleWarning>,
    cost_model: CostModel,
    _lock: Arc<FolderLock>,
}

/// Which training of an experiment: a resolution, a seed and a round of splits. Its text is the name of its folder, such as `8-microns`,
/// `8-microns-seed-1` or `8-microns-seed-1-fold-2`; what the experiment has one of is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunKey {
    /// Edge of a pixel in microns.
    pub microns_per_pixel: f64,
    /// Seed of weights, orders and augmentations.
    pub seed: u64,
    /// Whether the experiment has other seeds.
    pub is_one_of_seeds: bool,
    /// Name of the round, where the experiment has several.
    pub round: Option<String>,
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-microns", self.microns_per_pixel)?;
        if self.is_one_of_seeds {
            write!(f, "-seed-{}", self.seed)?;
        }
        match &self.round {
            Some(round) => write!(f, "-{round}"),
            None => Ok(()),
        }
    }
}

/// What a training gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Which training.
    pub key: RunKey,
    /// The best epoch on the validation split, if it was evaluated.
    pub best: Option<BestEpoch>,
    /// Epoch whose weights were tested, from 0.
    pub tested_epoch: u64,
    /// How it went, and what the test split gave.
    #[serde(flatten)]
    pub result: ResolutionResult,
}

impl Experiment {
    /// Claims `folder` for an experiment: writes `run.toml` and `samples.csv` there, or finds the same ones ([`Settings::claim`]). In
    /// each round every sample has a split, and [`check_samples`] and [`check_classes`] let it pass. Where there are several rounds,
    /// `samples.csv` has a column of splits for each, called as the round.
    ///
    /// Slides may lie in another folder than when the run began: `contents.csv` says by what they are recognised.
    ///
    /// # Errors
    /// [`TrainError::InUse`] if another process has an experiment open there; [`TrainError::OtherSettings`] and
    /// [`TrainError::OtherSlides`] if the folder holds other settings or other slides; [`TrainError::Classes`] if a class has no slide
    /// to learn from in a round, or if the slides to learn from, or those to test on of the only round, have labels of one kind only;
    /// [`TrainError::Splits`] for samples without a split, or no round; as [`check_samples`]; [`TrainError::Setting`];
    /// [`TrainError::File`].
    pub fn open(
        folder: impl Into<PathBuf>,
        settings: Settings,
        classes: ClassNames,
        rounds: Vec<Round>,
    ) -> Result<Self> {
        let folder = folder.into();
        settings.check()?;
        settings.model.check_task(settings.data.task)?;
        classes.check(settings.data.task)?;
        let mut warnings = Vec::new();
        for round in &rounds {
            for warning in check_round(round, &settings, &classes)? {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        let samples = table_of_rounds(&rounds)?;
        let lock = FolderLock::hold(&folder)?;
        settings.check_folder(&folder)?;
        claim::claim(&folder, &samples)?;
        settings.claim(&folder)?;
        Ok(Self {
            folder,
            settings,
            rounds,
            classes,
            warnings,
            cost_model: CostModel::FIXED,
            _lock: Arc::new(lock),
        })
    }

    /// The same experiment, with recipes chosen by `cost_model`; without this, by a fixed table. A run that goes on keeps the
    /// recipes of its checkpoint.
    #[must_use]
    pub fn cost_model(mut self, cost_model: CostModel) -> Self {
        self.cost_model = cost_model;
        self
    }

    /// All settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is suspicious in the samples: to be told to whoever runs the experiment.
    #[must_use]
    pub fn warnings(&self) -> &[SampleWarning] {
        &self.warnings
    }

    /// All trainings, in the order in which they are best run: resolution by resolution, of each all rounds, of each round all seeds.
    #[must_use]
    pub fn runs(&self) -> Vec<RunKey> {
        let TrainSettings { seed, seeds, .. } = self.settings.train;
        let mut keys = Vec::new();
        for &microns_per_pixel in &self.settings.data.microns_per_pixel {
            for round in &self.rounds {
                for seed in seed..seed.saturating_add(seeds) {
                    keys.push(RunKey {
                        microns_per_pixel,
                        seed,
                        is_one_of_seeds: seeds > 1,
                        round: round.name.clone(),
                    });
                }
            }
        }
        keys
    }

    /// The samples of `split` in the round of `key`.
    #[must_use]
    pub fn split(&self, key: &RunKey, split: Split) -> Vec<Sample> {
        let round = self.rounds.iter().find(|round| round.name == key.round);
        round.map_or_else(Vec::new, |round| of_split(&round.samples, split))
    }

    /// Trains on the training split of `key`, evaluates on its test split, and writes, into a folder of the experiment's that is called
    /// as the key, `checkpoints`, `steps.csv`, `epochs.csv`, events for TensorBoard, `model.safetensors`, `predictions.csv` and
    /// `result.json`. The predictions are those of the validation and of the test split. Where settings ask for them, masks of tissue
    /// and profiles of stains are kept in `masks` and `stains`, for all trainings.
    ///
    /// A training whose `result.json` is there is not begun again; one whose checkpoint is there goes on. Returns `None` if `stop` was
    /// set before the end. The test split is looked at once, after the last epoch, with the weights that
    /// [`TrainSettings::test_weights`] asks for.
    ///
    /// # Errors
    /// As [`Run::execute`] and [`evaluate`](crate::trainer::evaluate).
    pub fn run(
        &self,
        key: &RunKey,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<RunResult>> {
        let folder = self.folder.join(key.to_string());
        let path = folder.join("result.json");
        if path.is_file() {
            return stored(&path).map(Some);
        }
        let result = self.train(key, &folder, stop, observer)?;
        if let Some(result) = &result {
            // Written last: its being there says that the training is finished.
            let json = serde_json::to_vec_pretty(result).map_err(TrainError::json(&path))?;
            write_whole(&path, &json)?;
        }
        Ok(result)
    }

    /// What the settings say of masks and annotations.
    fn map_classes(&self) -> MapClasses {
        MapClasses {
            names: self.classes.clone(),
            ignore_index: self.settings.data.ignore_index,
            unlabelled: self.settings.data.unlabelled,
        }
    }

    fn train(
        &self,
        key: &RunKey,
        folder: &Path,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<RunResult>> {
        let started = Instant::now();
        let Self { settings, .. } = self;
        let task = settings.data.task;
        let [train, validation, test] = Split::ALL.map(|split| self.split(key, split));
        let scale = MicronsPerPixel::new(key.microns_per_pixel)?;
        let loader = SlideLoader::with_folder(scale, settings.data.read.clone(), &self.folder)?;
        for samples in [&train, &validation, &test] {
            loader.state_scales(samples);
        }
        let model = BuiltModel::new(&settings.model, task, key.seed)?
            .cost_model(self.cost_model.clone())
            .reuse(settings.data.read.background.reuse());
        let labels = SlideLabelLoader::new(&loader, self.map_classes());
        let loss = settings
            .train
            .segmentation_loss(task.outputs(), settings.data.ignore_index);
        let trained = match &model {
            BuiltModel::Slides(model) => model.into(),
            BuiltModel::Pixels(model) => TaskModel::Pixels(PixelModel {
                model,
                labels: &labels,
                loss: &loss,
            }),
        };
        let train_settings = TrainSettings {
            seed: key.seed,
            ..settings.train.clone()
        };
        let run = Run {
            settings: &train_settings,
            task,
            train: &train,
            validation: &validation,
            model: trained,
            loader: &loader,
            folder: Some(folder),
        };
        let Outcome::Finished(summary) = run.execute(stop, observer)? else {
            return Ok(None);
        };
        let planned_bytes = planned_bytes(&model)?;
        let splits = Splits {
            task,
            validation: &validation,
            test: &test,
            loader: &loader,
            bootstrap: &settings.report.bootstrap,
            table: folder.join("predictions.csv"),
        };
        let Some(tested) = splits.evaluate(trained, stop, observer)? else {
            return Ok(None);
        };
        let description = ModelDescription {
            model: settings.model.clone(),
            task,
            classes: self.classes.clone(),
            microns_per_pixel: key.microns_per_pixel,
            read: settings.data.read.clone(),
            trained_by: TrainedBy {
                is_averaged: settings.train.ema_decay.is_some(),
                slides: train.len(),
                ..TrainedBy::new(key.seed, summary.tested_epoch)
            },
        };
        model_file::save(
            &folder.join("model.safetensors"),
            &description,
            &model.tensors(),
        )?;
        let skipped = SkippedSlides {
            validation: tested.skipped_validation,
            test: tested.skipped_test,
            broken: summary.broken,
            not_finite: summary.not_finite,
        };
        Ok(Some(RunResult {
            key: key.clone(),
            best: summary.best,
            tested_epoch: summary.tested_epoch,
            result: ResolutionResult {
                microns_per_pixel: key.microns_per_pixel,
                mean_pixels: tested.mean_pixels,
                test: tested.test,
                test_slides: tested.test_slides,
                skipped,
                bad_regions: loader.bad_regions().by_slide(),
                seconds: started.elapsed().as_secs_f64(),
                planned_bytes,
                training: summary.timing,
                history: summary.history,
                machine: Machine::this(),
            },
        }))
    }
}

/// The largest peak of all plans that the model was trained by.
fn planned_bytes(model: &BuiltModel) -> Result<u64> {
    let mut most = 0;
    for recipe in model.recipes() {
        let plan = model.plan(recipe.image.rows, recipe.image.columns)?;
        most = most.max(plan.peak_bytes().get());
    }
    Ok(most)
}

/// Refuses a round that nothing can be learnt or measured in, and tells what is suspicious in it.
fn check_round(
    round: &Round,
    settings: &Settings,
    classes: &ClassNames,
) -> Result<Vec<SampleWarning>> {
    check_splits(&round.samples)?;
    let mut warnings = check_samples(&round.samples)?;
    let place = round.name.as_ref();
    let place = place.map_or_else(String::new, |name| format!(" of {name}"));
    for split in [Split::Train, Split::Test] {
        let set = format!("the {} split{place}", split.name());
        let samples = of_split(&round.samples, split);
        // The test splits of several rounds are measured together: those of a centre may be of one class.
        let is_part = split == Split::Test && round.name.is_some() && !samples.is_empty();
        if !is_part {
            check_labels(&set, &samples)?;
        }
    }
    let lacking = check_classes(&round.samples, settings.data.task, classes);
    let lacking = lacking.map_err(|error| match error {
        TrainError::Classes {
            set,
            expected,
            found,
        } => TrainError::Classes {
            set: set + &place,
            expected,
            found,
        },
        error => error,
    })?;
    warnings.extend(lacking.into_iter().map(|class| SampleWarning::NoSlides {
        class,
        round: round.name.clone(),
    }));
    Ok(warnings)
}

/// The samples of all rounds as one table: those of one round as they are; of several without a split, and with a column for each round
/// that says in which split of it a sample is.
fn table_of_rounds(rounds: &[Round]) -> Result<Vec<Sample>> {
    let Some((first, others)) = rounds.split_first() else {
        return Err(TrainError::Splits {
            place: "an experiment",
            expected: "one round of splits or more",
            count: 0,
            total: 0,
            found: "rounds",
            first: PathBuf::new(),
        });
    };
    if others.is_empty() {
        return Ok(first.samples.clone());
    }
    let splits_of = |slide: &Path| -> Vec<FurtherCell> {
        let rounds = rounds.iter().enumerate();
        let cells = rounds.map(|(place, round)| {
            let sample = round.samples.iter().find(|sample| sample.slide == slide);
            let column = round.name.clone();
            FurtherCell {
                column: column.unwrap_or_else(|| format!("round-{}", place + 1)),
                text: sample
                    .and_then(|sample| sample.split)
                    .map_or("", Split::name)
                    .to_owned(),
            }
        });
        cells.collect()
    };
    let samples = first.samples.iter().map(|sample| {
        let mut further = sample.further.clone();
        further.extend(splits_of(&sample.slide));
        Sample {
            split: None,
            further,
            ..sample.clone()
        }
    });
    Ok(samples.collect())
}

/// Samples without a split would be left out without a word.
fn check_splits(samples: &[Sample]) -> Result<()> {
    let without = |sample: &&Sample| sample.split.is_none();
    match samples.iter().find(without) {
        None => Ok(()),
        Some(first) => Err(TrainError::Splits {
            place: "an experiment",
            expected: "a split for each sample (`assign_splits` draws them)",
            count: samples.iter().filter(without).count(),
            total: samples.len(),
            found: "without one",
            first: first.slide.clone(),
        }),
    }
}

fn stored(path: &Path) -> Result<RunResult> {
    let text = std::fs::read(path).map_err(TrainError::file(path))?;
    serde_json::from_slice(&text).map_err(TrainError::json(path))
}

#[cfg(test)]
mod tests;
