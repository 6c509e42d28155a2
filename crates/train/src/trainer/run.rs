//! One run of training, from nothing or from a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Tensor;
use stream_grad::TileSource;

use super::evaluate::{all_failed, evaluate};
use super::events::{SkipReason, TrainEvent, TrainObserver};
use super::recipes::RecipeFile;
use super::settings::TrainSettings;
use super::timing::{Clock, Timed, Timing};
use crate::augment::Augmented;
use crate::checkpoint::{Checkpoint, EpochRecord, Progress};
use crate::data::{Sample, Split, Task, check_labels, epoch_order};
use crate::error::{Result, TrainError};
use crate::gradients::Gradients;
use crate::loss::slide_loss;
use crate::model::{Model, SlideGradients};
use crate::optimizer::Optimizer;
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
    /// Slides that are evaluated on the way; may be empty. Nothing is chosen by them here.
    pub validation: &'a [Sample],
    /// What is trained.
    pub model: &'a dyn Model,
    /// Where images come from.
    pub loader: &'a dyn ImageLoader,
    /// File of the checkpoint: read first if it is there, written as the run goes on. Beside it, how images are cut is stored
    /// (`checkpoint.recipes.json`) before the first step that depends on it, and never changes.
    pub checkpoint: Option<&'a Path>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All epochs are done; the model holds the weights.
    Finished(Summary),
    /// It was told to stop; the checkpoint, if there is one, holds everything up to the last group.
    Stopped,
}

/// What a finished run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// All epochs.
    pub history: Vec<EpochRecord>,
    /// Slides left out because a loss or a gradient was no number.
    pub not_finite: Vec<PathBuf>,
    /// Slides that could not be read at least once.
    pub broken: Vec<PathBuf>,
    /// How long it took.
    pub timing: Timing,
}

/// What changes while a run goes on.
struct State {
    progress: Progress,
    optimizer: Optimizer,
    learning_rate: f64,
    last_failure: Option<(PathBuf, SkipReason)>,
    waiting: Clock,
    recipes: RecipeFile,
}

/// A group under way: nothing of it shows in the state until it is complete.
#[derive(Default)]
struct Group {
    gradients: Gradients,
    pooled: Vec<Tensor>,
    losses: Vec<f64>,
    failures: Vec<(usize, SkipReason)>,
}

/// Whether a part of the run was completed.
enum Flow {
    Completed,
    Stopped,
}

impl Run<'_> {
    /// Trains to the last epoch, or until `stop` is set: then within the time of one slide.
    ///
    /// A run that was stopped, or killed, and is executed again with the same checkpoint file ends with the same weights,
    /// bit for bit, as one that never stopped.
    ///
    /// # Errors
    /// [`TrainError::Setting`], [`TrainError::Classes`] before anything is read; [`TrainError::Checkpoint`] for a checkpoint of
    /// another run; whatever [`ImageLoader::stops_at`] says must stop it; [`TrainError::AllSlidesFailed`] if an epoch could use no slide; [`TrainError::File`] if a checkpoint cannot
    /// be written.
    pub fn execute(&self, stop: &AtomicBool, observer: &mut dyn TrainObserver) -> Result<Outcome> {
        self.settings.check()?;
        check_labels("the training split", self.train)?;
        let started = Instant::now();
        let mut state = self.state()?;
        let done = usize::try_from(state.progress.groups)
            .unwrap_or(usize::MAX)
            .saturating_mul(self.settings.group);
        observer.notice(&TrainEvent::Started {
            epoch: state.progress.epoch,
            epochs: self.settings.epochs,
            slides_done: done.min(self.train.len()),
            slides: self.train.len(),
        });
        while state.progress.epoch < self.settings.epochs {
            if let Flow::Stopped = self.epoch(&mut state, stop, observer)? {
                self.save(&state, observer)?;
                return Ok(Outcome::Stopped);
            }
        }
        let slide = |index: &usize| self.train.get(*index).map(|sample| sample.slide.clone());
        Ok(Outcome::Finished(Summary {
            history: state.progress.history,
            not_finite: state.progress.excluded.iter().filter_map(slide).collect(),
            broken: state.progress.broken.keys().filter_map(slide).collect(),
            timing: Timing {
                seconds: started.elapsed().as_secs_f64(),
                waiting_seconds: state.waiting.seconds(),
            },
        }))
    }

    fn state(&self) -> Result<State> {
        let fingerprint = self.fingerprint()?;
        let mut optimizer = Optimizer::new(self.settings.optimizer, self.model.variables());
        let mut progress = Progress {
            fingerprint,
            ..Progress::default()
        };
        let mut recipes = match self.checkpoint {
            Some(path) => RecipeFile::read(path, fingerprint)?,
            None => RecipeFile::default(),
        };
        if let Some(path) = self.checkpoint.filter(|path| path.exists()) {
            let checkpoint = Checkpoint::load(path)?;
            if checkpoint.progress.fingerprint != fingerprint {
                return Err(TrainError::Checkpoint {
                    path: path.to_path_buf(),
                    expected: format!("settings and slides of fingerprint {fingerprint:016x}"),
                    found: format!("{:016x}", checkpoint.progress.fingerprint),
                });
            }
            self.model.load_tensors(&checkpoint.model)?;
            recipes.join(&checkpoint.progress.recipes);
            optimizer.load_state(checkpoint.progress.optimizer_steps, checkpoint.optimizer)?;
            progress = checkpoint.progress;
        }
        if !recipes.recipes().is_empty() {
            self.model.load_recipes(recipes.recipes().to_vec());
        }
        Ok(State {
            progress,
            optimizer,
            learning_rate: 0.0,
            last_failure: None,
            waiting: Clock::default(),
            recipes,
        })
    }

    /// A number that any change of the settings or the slides changes (FNV-1a of their JSON).
    fn fingerprint(&self) -> Result<u64> {
        let settings = TrainSettings {
            checkpoint_every: 0,
            ..self.settings.clone()
        };
        let shapes: Vec<(String, Vec<usize>)> = self
            .model
            .variables()
            .into_iter()
            .map(|(name, variable)| (name, variable.dims().to_vec()))
            .collect();
        let everything = (settings, self.task, self.train, self.validation, shapes);
        let json = serde_json::to_string(&everything)
            .map_err(TrainError::json(Path::new("settings and slides")))?;
        Ok(json.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    fn save(&self, state: &State, observer: &mut dyn TrainObserver) -> Result<()> {
        let Some(path) = self.checkpoint else {
            return Ok(());
        };
        let progress = Progress {
            optimizer_steps: state.optimizer.steps(),
            recipes: self.model.recipes(),
            ..state.progress.clone()
        };
        let optimizer = state.optimizer.state()?;
        Checkpoint {
            progress,
            model: self.model.tensors(),
            optimizer,
        }
        .save(path)?;
        observer.notice(&TrainEvent::CheckpointWritten(path));
        Ok(())
    }

    fn epoch(
        &self,
        state: &mut State,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Flow> {
        let order = epoch_order(
            self.train,
            self.settings.sampling,
            self.settings.seed,
            state.progress.epoch,
        );
        while let Some(start) = self.next_group(state, order.len()) {
            if let Flow::Stopped = self.group(state, &order, start, stop, observer)? {
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
            let unknown = || (PathBuf::new(), SkipReason::NotFinite);
            let (slide, reason) = state.last_failure.take().unwrap_or_else(unknown);
            return Err(all_failed(
                format!("epoch {}", state.progress.epoch + 1),
                order.len(),
                &slide,
                &reason,
            ));
        }
        let Some((validation_loss, validation_metric)) = self.validate(state, stop, observer)?
        else {
            return Ok(Flow::Stopped);
        };
        let record = EpochRecord {
            epoch: state.progress.epoch,
            train_loss: state.progress.loss_sum / number(state.progress.loss_count),
            learning_rate: self.learning_rate(
                state.progress.epoch,
                state.progress.groups.saturating_sub(1),
                order.len(),
            ),
            validation_loss,
            validation_metric,
        };
        observer.notice(&TrainEvent::EpochEnded(&record));
        let progress = &mut state.progress;
        progress.history.push(record);
        progress.epoch += 1;
        (progress.groups, progress.loss_sum, progress.loss_count) = (0, 0.0, 0);
        self.save(state, observer)?;
        Ok(Flow::Completed)
    }

    /// Place in the epoch's order where the next group begins; `None` after the last.
    fn next_group(&self, state: &State, slides: usize) -> Option<usize> {
        let groups = usize::try_from(state.progress.groups).ok()?;
        groups
            .checked_mul(self.settings.group)
            .filter(|start| *start < slides)
    }

    fn learning_rate(&self, epoch: u64, group: u64, slides: usize) -> f64 {
        let groups = u64::try_from(slides.div_ceil(self.settings.group)).unwrap_or(u64::MAX);
        let total = groups.saturating_mul(self.settings.epochs);
        self.settings
            .schedule
            .rate(self.settings.learning_rate, epoch * groups + group, total)
    }

    fn group(
        &self,
        state: &mut State,
        order: &[usize],
        start: usize,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Flow> {
        let end = (start + self.settings.group).min(order.len());
        let ahead = (end + self.settings.group).min(order.len());
        let places: Vec<usize> = (start..end)
            .filter(|place| !state.progress.excluded.contains(&order[*place]))
            .collect();
        let sample = |place: usize| &self.train[order[place]];
        let upcoming: Vec<&Path> = (start..ahead)
            .map(|place| sample(place).slide.as_path())
            .collect();
        self.loader.expect(&upcoming);
        if self.model.needs_statistics()? {
            self.first_statistics(state, order, &places)?;
        }
        let mut group = Group::default();
        for place in start..end {
            if stop.load(Ordering::Relaxed) {
                return Ok(Flow::Stopped);
            }
            if !places.contains(&place) {
                continue;
            }
            let slide = sample(place).slide.as_path();
            match self.slide(state, sample(place), place) {
                Ok(found) if group.take(&found)? => {
                    let (epoch, slides) = (state.progress.epoch, order.len());
                    observer.notice(&TrainEvent::SlideTrained {
                        epoch,
                        done: place + 1,
                        slides,
                        slide,
                        loss: found.loss,
                    });
                }
                Ok(_) => group.fail(order[place], slide, SkipReason::NotFinite, observer),
                Err(error) if self.loader.stops_at(&error) => return Err(error),
                Err(error) => group.fail(
                    order[place],
                    slide,
                    SkipReason::Broken(error.to_string()),
                    observer,
                ),
            }
        }
        state.learning_rate =
            self.learning_rate(state.progress.epoch, state.progress.groups, order.len());
        self.finish(state, group, observer)?;
        Ok(Flow::Completed)
    }

    /// Statistics to begin with: the first group is swept once without going back.
    fn first_statistics(&self, state: &State, order: &[usize], places: &[usize]) -> Result<()> {
        let mut pooled = Vec::with_capacity(places.len());
        for &place in places {
            // A slide that fails here fails again when it is trained on, and is reported then.
            let found = self
                .image(state, &self.train[order[place]], place)
                .and_then(|image| self.model.pooled(&image));
            pooled.extend(found.ok());
        }
        self.model.update_statistics(&pooled)
    }

    fn image(
        &self,
        state: &State,
        sample: &Sample,
        place: usize,
    ) -> Result<Augmented<Arc<dyn TileSource>>> {
        let image = self.loader.load(&sample.slide)?;
        let place = u64::try_from(place).unwrap_or(u64::MAX);
        let augmentation = self.settings.augmentation.draw(
            image.extent(),
            self.settings.seed,
            state.progress.epoch,
            place,
        );
        Augmented::new(image, augmentation)
    }

    fn slide(&self, state: &State, sample: &Sample, place: usize) -> Result<SlideGradients> {
        let clock = &state.waiting;
        let source = clock.during(|| self.image(state, sample, place))?;
        self.model.gradients(&Timed { source, clock }, &|logits| {
            slide_loss(self.task, logits, sample.label)
        })
    }

    /// Makes the step of a complete group, and writes down what it gave.
    fn finish(
        &self,
        state: &mut State,
        group: Group,
        observer: &mut dyn TrainObserver,
    ) -> Result<()> {
        if let Some(path) = self.checkpoint {
            state.recipes.keep(path, self.model.recipes())?;
        }
        let progress = &mut state.progress;
        for (index, reason) in group.failures {
            match reason {
                SkipReason::NotFinite => progress.excluded.push(index),
                SkipReason::Broken(_) => *progress.broken.entry(index).or_insert(0) += 1,
            }
            state.last_failure = Some((self.train[index].slide.clone(), reason));
        }
        if group.losses.is_empty() {
            return Ok(());
        }
        let count = u64::try_from(group.losses.len()).unwrap_or(u64::MAX);
        progress.loss_sum += group.losses.iter().sum::<f64>();
        progress.loss_count += count;
        let mut gradients = group.gradients;
        gradients.scale(1.0 / number(count))?;
        let norm = gradients.norm()?;
        if norm.is_finite() {
            if self.settings.clip_norm > 0.0 {
                gradients.clip(self.settings.clip_norm)?;
            }
            state.optimizer.step(&gradients, state.learning_rate)?;
            let (steps, learning_rate) = (state.optimizer.steps(), state.learning_rate);
            observer.notice(&TrainEvent::Stepped {
                steps,
                learning_rate,
                norm,
            });
        } else {
            observer.notice(&TrainEvent::StepSkipped {
                steps: state.optimizer.steps(),
            });
        }
        self.model.update_statistics(&group.pooled)
    }

    /// Loss and metric of the validation split, where they are due; `None` if the run was stopped meanwhile.
    fn validate(
        &self,
        state: &State,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<(Option<f64>, Option<f64>)>> {
        let epoch = state.progress.epoch + 1;
        let due = self.settings.validate_every > 0
            && (epoch.is_multiple_of(self.settings.validate_every)
                || epoch == self.settings.epochs);
        if !due || self.validation.is_empty() {
            return Ok(Some((None, None)));
        }
        let set = (self.validation, Split::Validation);
        let Some(evaluation) = evaluate(self.model, self.loader, set, stop, observer)? else {
            return Ok(None);
        };
        // A split of one class has a loss but no area under the curve.
        Ok(Some((
            Some(evaluation.loss(self.task)?),
            evaluation.metric(self.task).ok(),
        )))
    }
}

impl Group {
    /// Adds what a slide gave, unless some of it is no number.
    fn take(&mut self, found: &SlideGradients) -> Result<bool> {
        if !found.loss.is_finite() || !found.gradients.norm()?.is_finite() {
            return Ok(false);
        }
        self.gradients.add_all(&found.gradients)?;
        self.pooled.push(found.pooled.clone());
        self.losses.push(found.loss);
        Ok(true)
    }

    fn fail(
        &mut self,
        index: usize,
        slide: &Path,
        reason: SkipReason,
        observer: &mut dyn TrainObserver,
    ) {
        observer.notice(&TrainEvent::SlideSkipped {
            slide,
            reason: reason.clone(),
        });
        self.failures.push((index, reason));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of slides are far below 2^53"
)]
fn number(value: u64) -> f64 {
    value as f64
}
