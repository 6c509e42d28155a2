//! A step: the slides of a group one by one, and what their gradients change.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use stream_grad::TileSource;

use super::events::{SkipReason, TrainEvent, TrainObserver};
use super::log::{StepRecord, now, resident_bytes};
use super::run::{Flow, Run, number};
use super::state::State;
use super::timing::Timed;
use crate::augment::Augmented;
use crate::checkpoint::Progress;
use crate::data::{Label, Sample};
use crate::error::Result;
use crate::gradients::Gradients;
use crate::model::SlideGradients;

/// A group under way: nothing of it shows in the state until it is complete.
struct Group {
    gradients: Gradients,
    pooled: Vec<Tensor>,
    losses: Vec<f64>,
    /// Slides whose label was the predicted one.
    correct: u64,
    failures: Vec<(usize, SkipReason)>,
    pixels: u64,
    started: Instant,
    /// Seconds that the run had waited for pixels when the group began.
    waited: f64,
}

impl Run<'_> {
    /// Trains on the group that begins at `start` in the epoch's order.
    pub(super) fn group(
        &self,
        state: &mut State,
        (order, start): (&[usize], usize),
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Flow> {
        let end = (start + self.settings.batch_size).min(order.len());
        let ahead = (end + self.settings.batch_size).min(order.len());
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
        let mut group = Group::new(state.waiting.seconds());
        for place in start..end {
            if stop.load(Ordering::Relaxed) {
                return Ok(Flow::Stopped);
            }
            if !places.contains(&place) {
                continue;
            }
            let slide = sample(place).slide.as_path();
            match self.slide(state, sample(place), place) {
                Ok((found, pixels)) if group.take(&found, pixels)? => {
                    let predicted = self.task.predicted(&found.logits);
                    if sample(place).label == Some(predicted) {
                        group.correct += 1;
                    }
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
                Err(error) => group.fail(order[place], slide, SkipReason::broken(&error), observer),
            }
        }
        self.finish(state, group, order.len(), observer)?;
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

    /// Gradients of a slide, and how many pixels it has.
    fn slide(&self, state: &State, sample: &Sample, place: usize) -> Result<(SlideGradients, u64)> {
        let clock = &state.waiting;
        let source = clock.during(|| self.image(state, sample, place))?;
        // `execute` refuses samples without a label.
        let label = sample.label.clone().unwrap_or(Label::Number(f64::NAN));
        let (height, width) = source.extent();
        self.model.draw(&mut self.chance(state, place))?;
        let found = self.model.gradients(&Timed { source, clock }, &|logits| {
            state.objective.loss(logits, &label)
        });
        self.model.settle()?;
        Ok((found?, height.saturating_mul(width)))
    }

    /// What decides in the network while the image at `place` of the epoch is trained on: a function of the seed, the epoch and the place.
    fn chance(&self, state: &State, place: usize) -> ChaCha8Rng {
        /// Apart from the seeds of augmentations.
        const NETWORK: u64 = 0x6e65_7477_6f72_6b00;
        let seed = self.settings.seed ^ state.progress.epoch.rotate_left(32) ^ NETWORK;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::try_from(place).unwrap_or(u64::MAX));
        rng
    }

    /// Makes the step of a complete group of an epoch of `slides` slides, and writes down what it gave.
    fn finish(
        &self,
        state: &mut State,
        group: Group,
        slides: usize,
        observer: &mut dyn TrainObserver,
    ) -> Result<()> {
        if let Some(checkpoints) = self.checkpoints() {
            state
                .recipes
                .keep(checkpoints.path(), self.model.recipes())?;
        }
        let record = self.record(state, &group, slides);
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
        let count = record.slides;
        progress.loss_sum += group.losses.iter().sum::<f64>();
        progress.loss_count += count;
        progress.correct = progress.correct.map(|correct| correct + group.correct);
        let mut gradients = group.gradients;
        gradients.scale(1.0 / number(count))?;
        let gradient_norm = gradients.norm()?;
        if gradient_norm.is_finite() {
            gradients.clip(self.settings.max_norm)?;
            state.optimizer.step(&gradients, record.learning_rate)?;
            if let Some(average) = &mut state.average {
                average.update(&self.model.variables())?;
            }
        }
        self.model.update_statistics(&group.pooled)?;
        let seconds = group.started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let record = StepRecord {
            gradient_norm,
            megapixels_per_second: record.megapixels_per_second / seconds,
            waiting_share: (state.waiting.seconds() - group.waited) / seconds,
            memory_bytes: resident_bytes(),
            time: now(),
            ..record
        };
        observer.notice(&TrainEvent::Stepped(&record));
        match &mut state.log {
            Some(log) => log.step(&record),
            None => Ok(()),
        }
    }

    /// What is known of a step before it is made.
    fn record(&self, state: &State, group: &Group, slides: usize) -> StepRecord {
        let Progress { epoch, groups, .. } = state.progress;
        let count = u64::try_from(group.losses.len()).unwrap_or(u64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "rounding does no harm")]
        let megapixels = group.pixels as f64 / 1e6;
        StepRecord {
            step: epoch * self.steps_of_epoch(slides) + groups + 1,
            epoch,
            step_of_epoch: groups,
            slides: count,
            loss: group.losses.iter().sum::<f64>() / number(count),
            gradient_norm: f64::NAN,
            learning_rate: self.learning_rate(epoch, groups, slides),
            megapixels_per_second: megapixels,
            waiting_share: 0.0,
            memory_bytes: 0,
            time: 0.0,
        }
    }
}

impl Group {
    fn new(waited: f64) -> Self {
        Self {
            gradients: Gradients::default(),
            pooled: Vec::new(),
            losses: Vec::new(),
            correct: 0,
            failures: Vec::new(),
            pixels: 0,
            started: Instant::now(),
            waited,
        }
    }

    /// Adds what a slide gave, unless some of it is no number.
    fn take(&mut self, found: &SlideGradients, pixels: u64) -> Result<bool> {
        if !found.loss.is_finite() || !found.gradients.norm()?.is_finite() {
            return Ok(false);
        }
        self.gradients.add_all(&found.gradients)?;
        self.pooled.push(found.pooled.clone());
        self.losses.push(found.loss);
        self.pixels = self.pixels.saturating_add(pixels);
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
