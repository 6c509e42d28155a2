//! A step: the slides of a group one by one, and what their gradients change.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use stream_grad::TileSource;

use super::events::{TrainEvent, TrainObserver};
use super::log::{StepRecord, now, resident_bytes};
use super::objective::{Agreement, Shown, SlideStep, StepObjective};
use super::run::{Flow, Run, number};
use super::skipped::{Phase, SkipReason, Skipped};
use super::state::State;
use crate::checkpoint::Progress;
use crate::data::Sample;
use crate::error::Result;
use crate::gradients::Gradients;
use crate::metrics::{Confusion, Metric};
use crate::model::Model;

/// A group under way: nothing of it shows in the state until it is complete.
struct Group {
    gradients: Gradients,
    pooled: Vec<Tensor>,
    losses: Vec<f64>,
    /// Slides whose label was the predicted one.
    correct: u64,
    /// How often each class was taken for each, where pixels have classes.
    confusion: Option<Confusion>,
    failures: Vec<(usize, Skipped)>,
    pixels: u64,
    started: Instant,
    /// Seconds that the run had waited for pixels when the group began.
    waited: f64,
}

impl Run<'_> {
    /// Trains on the group that begins at `start` in the epoch's order.
    pub(super) fn group(
        &self,
        state: &mut State<'_>,
        (order, start): (&[usize], usize),
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Flow> {
        let end = (start + self.settings.batch_size).min(order.len());
        let ahead = (end + self.settings.batch_size).min(order.len());
        let excluded = &state.progress.excluded;
        let is_kept = |place: &usize| !excluded.contains(&order[*place]);
        let places: Vec<usize> = (start..end).filter(is_kept).collect();
        let sample = |place: usize| &self.train[order[place]];
        let upcoming: Vec<&Path> = (start..ahead)
            .filter(is_kept)
            .map(|place| sample(place).slide.as_path())
            .collect();
        self.loader.expect(&upcoming);
        if let StepObjective::Slides { model, .. } = state.objective
            && model.needs_statistics()?
        {
            self.first_statistics(state, model, (order, &places))?;
            // They were loaded, and will be once more.
            self.loader.expect(&upcoming);
        }
        let epoch = state.progress.epoch;
        let mut group = Group::new(state.waiting.seconds());
        for place in start..end {
            if stop.load(Ordering::Relaxed) {
                return Ok(Flow::Stopped);
            }
            if !places.contains(&place) {
                continue;
            }
            let slide = sample(place).slide.as_path();
            let answer = self.slide(state, sample(place), place);
            match Phase::Epoch(epoch).check(slide, answer, self.loader)? {
                Ok((found, pixels)) => {
                    group.take(&found, pixels)?;
                    observer.notice(&TrainEvent::SlideTrained {
                        epoch,
                        done: place + 1,
                        slides: order.len(),
                        slide,
                        loss: found.loss,
                    });
                }
                Err(skipped) => {
                    observer.notice(&TrainEvent::SlideSkipped(&skipped));
                    group.failures.push((order[place], skipped));
                }
            }
        }
        self.finish(state, group, order.len(), observer)?;
        Ok(Flow::Completed)
    }

    /// Statistics to begin with: the first group is swept once without going back.
    fn first_statistics(
        &self,
        state: &State<'_>,
        model: &dyn Model,
        (order, places): (&[usize], &[usize]),
    ) -> Result<()> {
        let mut pooled = Vec::with_capacity(places.len());
        for &place in places {
            // A slide that fails here fails again when it is trained on, and is reported then.
            let found = self
                .image(state, &self.train[order[place]], place)
                .and_then(|shown| model.pooled(&shown.image));
            pooled.extend(found.ok());
        }
        model.update_statistics(&pooled)
    }

    fn image(&self, state: &State<'_>, sample: &Sample, place: usize) -> Result<Shown> {
        let image = self.loader.load(&sample.slide)?;
        let place = u64::try_from(place).unwrap_or(u64::MAX);
        let augmentation = self.settings.augmentation.draw(
            image.extent(),
            self.settings.seed,
            state.progress.epoch,
            place,
        );
        Shown::new(image, augmentation)
    }

    /// Gradients of a slide, and how many pixels it has; `None` where something is no finite number.
    fn slide(
        &self,
        state: &State<'_>,
        sample: &Sample,
        place: usize,
    ) -> Result<Option<(SlideStep, u64)>> {
        let clock = &state.waiting;
        let shown = clock.during(|| self.image(state, sample, place))?;
        let (height, width) = shown.image.extent();
        self.model.draw(&mut self.chance(state, place))?;
        let found = state.objective.step(sample, shown, clock);
        self.model.settle()?;
        let found = found?;
        let is_finite = found.loss.is_finite() && found.gradients.norm()?.is_finite();
        Ok(is_finite.then(|| (found, height.saturating_mul(width))))
    }

    /// What decides in the network while the image at `place` of the epoch is trained on: a function of the seed, the epoch and the place.
    fn chance(&self, state: &State<'_>, place: usize) -> ChaCha8Rng {
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
        state: &mut State<'_>,
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
        for (index, skipped) in group.failures {
            match skipped.reason {
                SkipReason::NotFinite => progress.excluded.push(index),
                SkipReason::Broken(_) => *progress.broken.entry(index).or_insert(0) += 1,
            }
            state.last_failure = Some(skipped);
        }
        if group.losses.is_empty() {
            return Ok(());
        }
        let count = record.slides;
        progress.loss_sum += group.losses.iter().sum::<f64>();
        progress.loss_count += count;
        progress.correct = progress.correct.map(|correct| correct + group.correct);
        if let Some(confusion) = &group.confusion {
            let none = || Confusion::new(confusion.classes());
            let sum = progress.confusion.get_or_insert_with(none);
            sum.add_all(confusion);
        }
        let mut gradients = group.gradients;
        gradients.scale(1.0 / number(count))?;
        let gradient_norm = gradients.norm()?;
        if gradient_norm.is_finite() {
            gradients.limit_norm(gradient_norm, self.settings.max_norm)?;
            state.optimizer.step(&gradients, record.learning_rate)?;
            if let Some(average) = &mut state.average {
                average.update(&self.model.variables())?;
            }
        }
        state.objective.update_statistics(&group.pooled)?;
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
    fn record(&self, state: &State<'_>, group: &Group, slides: usize) -> StepRecord {
        let Progress { epoch, groups, .. } = state.progress;
        let count = u64::try_from(group.losses.len()).unwrap_or(u64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "rounding does no harm")]
        let megapixels = group.pixels as f64 / 1e6;
        let mean = |metric| group.confusion.as_ref()?.mean(metric).ok();
        StepRecord {
            step: epoch * self.steps_of_epoch(slides) + groups + 1,
            epoch,
            step_of_epoch: groups,
            slides: count,
            loss: group.losses.iter().sum::<f64>() / number(count),
            dice: mean(Metric::Dice),
            iou: mean(Metric::Iou),
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
            confusion: None,
            failures: Vec::new(),
            pixels: 0,
            started: Instant::now(),
            waited,
        }
    }

    /// Adds what a slide gave.
    fn take(&mut self, found: &SlideStep, pixels: u64) -> Result<()> {
        self.gradients.add_all(&found.gradients)?;
        match &found.agreement {
            Agreement::Label {
                is_predicted,
                pooled,
            } => {
                self.correct += u64::from(*is_predicted);
                self.pooled.push(pooled.clone());
            }
            Agreement::Pixels(confusion) => {
                let none = || Confusion::new(confusion.classes());
                self.confusion.get_or_insert_with(none).add_all(confusion);
            }
        }
        self.losses.push(found.loss);
        self.pixels = self.pixels.saturating_add(pixels);
        Ok(())
    }
}
