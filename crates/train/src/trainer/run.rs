//! One run of training, from nothing or from a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::events::{TrainEvent, TrainObserver};
use super::settings::TrainSettings;
use super::skipped::{Phase, SkipReason, Skipped};
use super::state::State;
use super::timing::Timing;
use crate::checkpoint::{BestEpoch, EpochRecord, Progress};
use crate::data::{Label, Sample, Task, check_labels, epoch_order};
use crate::error::{Result, TrainError};
use crate::metrics::Metric;
use crate::model::TaskModel;
use crate::source::ImageLoader;

/// What is trained on what, and how.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// How.
    pub settings: &'a TrainSettings,
    /// What is predicted.
    pub task: Task,
    /// Slides to learn from.
    pub train: &'a [Sample],
    /// Slides that are evaluated on the way; may be empty. What is chosen by them, the settings say: when to stop, and which
    /// epoch's weights are the result.
    pub validation: &'a [Sample],
    /// What is trained.
    pub model: TaskModel<'a>,
    /// Where images come from.
    pub loader: &'a dyn ImageLoader,
    /// Folder of the run, which goes on with what is there: `checkpoints`, `steps.csv`, `epochs.csv`, and a file of events for
    /// TensorBoard. In `checkpoints` are the last few checkpoints, the weights of the best epoch, and how images are cut
    /// (`recipes.json`), which is stored before the first step that depends on it, and never changes.
    pub folder: Option<&'a Path>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All epochs are done, or the validation split got no better. The model holds the weights that the settings ask for: of the
    /// last or of the best epoch, averaged or not.
    Finished(Summary),
    /// It was told to stop; the checkpoint, if there is one, holds everything up to the last group.
    Stopped,
}

/// What a finished run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// All epochs.
    pub history: Vec<EpochRecord>,
    /// The best of those after which the validation split was evaluated.
    pub best: Option<BestEpoch>,
    /// Epoch whose weights the model holds, from 0.
    pub tested_epoch: u64,
    /// Slides left out because a loss or a gradient was no number.
    pub not_finite: Vec<PathBuf>,
    /// Slides that could not be read at least once.
    pub broken: Vec<PathBuf>,
    /// How long it took.
    pub timing: Timing,
}

/// Whether a part of the run was completed.
pub(super) enum Flow {
    Completed,
    Stopped,
}

impl Run<'_> {
    /// Trains to the last epoch, or until `stop` is set: then within the time of one slide.
    ///
    /// A run that was stopped, or killed, and is executed again with the same folder ends with the same weights, bit for bit, as
    /// one that never stopped. A checkpoint that is damaged is told to `observer`, and the one before it is used.
    ///
    /// # Errors
    /// [`TrainError::Setting`], [`TrainError::Classes`] before anything is read; [`TrainError::LabelMap`] for a label map of another
    /// size, scale or class, of which all but the classes in masks are seen before the first step; [`TrainError::Checkpoint`] for a checkpoint of
    /// another run, [`TrainError::NoCheckpoint`] where none is whole; whatever [`ImageLoader::stops_at`] says must stop it;
    /// [`TrainError::AllSlidesFailed`] if an epoch could use no slide; [`TrainError::CheckpointNotWritten`] if the disk is full,
    /// [`TrainError::File`] if something else cannot be written.
    pub fn execute(&self, stop: &AtomicBool, observer: &mut dyn TrainObserver) -> Result<Outcome> {
        self.settings.check()?;
        check_labels("the training split", self.train)?;
        self.check_maps()?;
        self.check_validation()?;
        let started = Instant::now();
        let mut state = self.begin(observer)?;
        let done = usize::try_from(state.progress.groups)
            .unwrap_or(usize::MAX)
            .saturating_mul(self.settings.batch_size);
        observer.notice(&TrainEvent::Started {
            epoch: state.progress.epoch,
            epochs: self.settings.epochs,
            slides_done: done.min(self.train.len()),
            slides: self.train.len(),
        });
        while state.progress.epoch < self.settings.epochs && !state.progress.stopped_early {
            if let Flow::Stopped = self.epoch(&mut state, stop, observer)? {
                self.save(&state, observer)?;
                return Ok(Outcome::Stopped);
            }
        }
        let tested_epoch = self.take_result(&state)?;
        let slide = |index: &usize| self.train.get(*index).map(|sample| sample.slide.clone());
        Ok(Outcome::Finished(Summary {
            history: state.progress.history,
            best: state.progress.best,
            tested_epoch,
            not_finite: state.progress.excluded.iter().filter_map(slide).collect(),
            broken: state.progress.broken.keys().filter_map(slide).collect(),
            timing: Timing {
                seconds: started.elapsed().as_secs_f64(),
                waiting_seconds: state.waiting.seconds(),
            },
        }))
    }

    /// A slide that failed in an earlier process, of whose failures the checkpoint holds where they were.
    fn failed_before(&self, progress: &Progress, phase: Phase) -> Skipped {
        let broken =
            || SkipReason::Broken("it could not be read before the run went on".to_owned());
        let (index, reason) = match (progress.excluded.last(), progress.broken.keys().last()) {
            (Some(index), _) => (Some(index), SkipReason::NotFinite),
            (None, index) => (index, broken()),
        };
        let slide = index.and_then(|index| self.train.get(*index));
        Skipped {
            slide: slide.map_or_else(PathBuf::new, |sample| sample.slide.clone()),
            phase,
            reason,
        }
    }

    /// Refuses label maps that do not fit their slides, before hours were spent on others. What else cannot be read is told when it
    /// is the slide's turn.
    fn check_maps(&self) -> Result<()> {
        let TaskModel::Pixels(pixels) = self.model else {
            return Ok(());
        };
        for sample in self.train.iter().chain(self.validation) {
            if let Some(Label::Map(map)) = &sample.label
                && let Err(error @ TrainError::LabelMap { .. }) =
                    pixels.labels.labels(&sample.slide, map)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    fn epoch(
        &self,
        state: &mut State<'_>,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Flow> {
        let order = epoch_order(
            self.train,
            self.settings.sampling,
            self.settings.seed,
            state.progress.epoch,
        );
        if state.progress.groups == 0 {
            state.progress.correct = Some(0);
            state.progress.confusion = None;
        }
        while let Some(start) = self.next_group(state, order.len()) {
            if let Flow::Stopped = self.group(state, (&order, start), stop, observer)? {
                return Ok(Flow::Stopped);
            }
            state.progress.groups += 1;
            if self.settings.checkpoint_every > 0
                && state
                    .progress
                    .groups
                    .is_multiple_of(self.settings.checkpoint_every)
            {
                self.save(state, observer)?;
            }
        }
        if state.progress.loss_count == 0 {
            let phase = Phase::Epoch(state.progress.epoch);
            // Slides that an earlier epoch excluded are not tried again: the last failure may be that of another.
            let last = match state.last_failure.take() {
                Some(last) => Skipped { phase, ..last },
                None => self.failed_before(&state.progress, phase),
            };
            return Err(last.all_failed(order.len()));
        }
        let Some(validated) = self.validate(state, stop, observer)? else {
            return Ok(Flow::Stopped);
        };
        let of_pixels = |metric| state.progress.confusion.as_ref()?.mean(metric).ok();
        let record = EpochRecord {
            epoch: state.progress.epoch,
            train_loss: state.progress.loss_sum / number(state.progress.loss_count),
            train_accuracy: self.train_accuracy(&state.progress),
            learning_rate: self.learning_rate(
                state.progress.epoch,
                state.progress.groups.saturating_sub(1),
                order.len(),
            ),
            validation_loss: validated.loss,
            validation_metric: validated.metric,
            train_dice: of_pixels(Metric::Dice),
            train_iou: of_pixels(Metric::Iou),
            validation_iou: validated.iou,
        };
        observer.notice(&TrainEvent::EpochEnded(&record));
        self.compare(state, &record, observer)?;
        let progress = &mut state.progress;
        progress.history.push(record);
        progress.epoch += 1;
        (progress.groups, progress.loss_sum, progress.loss_count) = (0, 0.0, 0);
        if let Some(log) = &mut state.log {
            log.epoch(&progress.history)?;
        }
        self.save(state, observer)?;
        Ok(Flow::Completed)
    }

    /// Of the epoch's slides so far.
    fn train_accuracy(&self, progress: &Progress) -> Option<f64> {
        let correct = progress.correct?;
        let has_accuracy = Metric::of(self.task).contains(&Metric::Accuracy);
        has_accuracy.then(|| number(correct) / number(progress.loss_count))
    }

    /// Place in the epoch's order where the next group begins; `None` after the last.
    fn next_group(&self, state: &State<'_>, slides: usize) -> Option<usize> {
        let groups = usize::try_from(state.progress.groups).ok()?;
        groups
            .checked_mul(self.settings.batch_size)
            .filter(|start| *start < slides)
    }

    /// Steps of an epoch of `slides` slides.
    pub(super) fn steps_of_epoch(&self, slides: usize) -> u64 {
        u64::try_from(slides.div_ceil(self.settings.batch_size)).unwrap_or(u64::MAX)
    }

    pub(super) fn learning_rate(&self, epoch: u64, group: u64, slides: usize) -> f64 {
        let groups = self.steps_of_epoch(slides);
        let total = groups.saturating_mul(self.settings.epochs);
        self.settings
            .schedule
            .rate(self.settings.learning_rate, epoch * groups + group, total)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of slides are far below 2^53"
)]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}
