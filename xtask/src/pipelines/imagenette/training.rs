//! One of the two trainings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::Tensor;
use indicatif::ProgressBar;
use stream_grad_cli::exit::Stopped;
use stream_grad_cli::progress::{counting_bar, tell_above};
use stream_grad_train::checkpoint::EpochRecord;
use stream_grad_train::data::{Sample, Task};
use stream_grad_train::model::Model;
use stream_grad_train::source::PictureLoader;
use stream_grad_train::trainer::{Outcome, Run, Summary, TrainEvent, TrainObserver};

use super::model::{CLASSES, Classifier, Way};
use super::settings::Settings;

/// Folder of the trainings in that of the results.
const FOLDER: &str = "trainings";

/// What both have in common.
#[derive(Clone, Copy)]
pub(super) struct Training<'a> {
    pub(super) settings: &'a Settings,
    pub(super) train: &'a [Sample],
    pub(super) validation: &'a [Sample],
    /// Of the results.
    pub(super) folder: &'a Path,
}

/// What a training ended with.
#[derive(Debug, Clone)]
pub(super) struct Trained {
    pub(super) history: Vec<EpochRecord>,
    pub(super) weights: BTreeMap<String, Tensor>,
    /// Pictures to learn from that did not count at least once.
    pub(super) left_out: Vec<PathBuf>,
}

impl Training<'_> {
    /// Trains one way, or goes on with what was stopped.
    ///
    /// # Errors
    /// [`Stopped`] if `stop` was set before the end; as [`Run::execute`].
    pub(super) fn run(&self, way: Way, stop: &AtomicBool) -> anyhow::Result<Trained> {
        let settings = self.settings;
        let size = u64::try_from(settings.pictures.size)?;
        let model = Classifier::new(way, size, settings.train.seed)?;
        let training = self.train.iter().map(|sample| sample.slide.clone());
        let loader = PictureLoader::new(settings.pictures.clone(), training)?;
        let folder = self.folder.join(FOLDER).join(way.name());
        let run = Run {
            settings: &settings.train,
            task: Task::Classification { classes: CLASSES },
            train: self.train,
            validation: self.validation,
            model: (&model).into(),
            loader: &loader,
            folder: Some(&folder),
        };
        let pictures = settings.train.epochs * self.train.len() as u64;
        let mut watch = Watch {
            loader: &loader,
            way,
            bar: counting_bar(way.name(), pictures),
            told: BTreeSet::new(),
        };
        let outcome = run.execute(stop, &mut watch);
        watch.bar.abandon();
        let Outcome::Finished(Summary {
            history,
            not_finite,
            broken,
            ..
        }) = outcome?
        else {
            return Err(Stopped::error(format!("in the {} training", way.name())));
        };
        Ok(Trained {
            history,
            weights: model.tensors(),
            left_out: [not_finite, broken].concat(),
        })
    }
}

/// Tells the loader which epoch it is, moves the bar, and prints what a person should know.
struct Watch<'a> {
    loader: &'a PictureLoader,
    way: Way,
    bar: ProgressBar,
    /// Pictures that were named as skipped.
    told: BTreeSet<PathBuf>,
}

impl Watch<'_> {
    fn say(&self, line: &str) {
        tell_above(&self.bar, format_args!("{}: {line}", self.way.name()));
    }
}

impl TrainObserver for Watch<'_> {
    fn notice(&mut self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Started {
                epoch,
                slides_done,
                slides,
                ..
            } => {
                self.loader.set_epoch(*epoch);
                self.bar
                    .set_position(epoch * *slides as u64 + *slides_done as u64);
                self.bar.reset_eta();
            }
            TrainEvent::SlideTrained {
                epoch,
                done,
                slides,
                ..
            } => self.bar.set_position(epoch * *slides as u64 + *done as u64),
            TrainEvent::SlideSkipped(skipped) if self.told.insert(skipped.slide.clone()) => {
                self.say(&skipped.to_string());
            }
            TrainEvent::CheckpointUnusable { path, reason } => {
                self.say(&format!("{} cannot be used: {reason}", path.display()));
            }
            TrainEvent::EpochEnded(record) => {
                self.loader.set_epoch(record.epoch + 1);
                let share = |value: Option<f64>| {
                    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.3}"))
                };
                self.say(&format!(
                    "epoch {}: loss {:.3}, accuracy {}; validation loss {}, accuracy {}",
                    record.epoch + 1,
                    record.train_loss,
                    share(record.train_accuracy),
                    share(record.validation_loss),
                    share(record.validation_metric)
                ));
            }
            _ => {}
        }
    }
}
