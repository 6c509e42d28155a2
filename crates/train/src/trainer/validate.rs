//! The validation split: how good an epoch is, which is the best, and when there is no use in going on.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use candle_core::Tensor;

use super::evaluate::evaluate;
use super::evaluate_maps::evaluate_maps;
use super::events::{TrainEvent, TrainObserver};
use super::objective::StepObjective;
use super::run::Run;
use super::settings::{Monitor, TestWeights};
use super::state::State;
use crate::checkpoint::{BestEpoch, EpochRecord};
use crate::data::Split;
use crate::error::{Result, TrainError};
use crate::metrics::Metric;

/// What the validation split gave, where it was evaluated.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Validated {
    pub(super) loss: Option<f64>,
    /// The task's main metric, where it has a meaning.
    pub(super) metric: Option<f64>,
    /// Of pixels.
    pub(super) iou: Option<f64>,
}

impl Run<'_> {
    /// Refuses settings that go by a validation split where there is none.
    pub(super) fn check_validation(&self) -> Result<()> {
        let settings = self.settings;
        let setting = match (settings.patience, settings.test_weights) {
            (Some(_), _) => "train.patience",
            (None, TestWeights::Best) => "train.test_weights",
            (None, TestWeights::Last) => return Ok(()),
        };
        if self.validation.iter().any(|sample| sample.label.is_some()) {
            return Ok(());
        }
        Err(TrainError::setting(
            setting,
            "a validation split with labels to go by",
            "none",
        ))
    }

    /// Loss and metric of the validation split, where they are due, with averaged weights where these are kept; `None` if the run was
    /// stopped meanwhile.
    pub(super) fn validate(
        &self,
        state: &State<'_>,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<Validated>> {
        let epoch = state.progress.epoch + 1;
        let due = self.settings.validate_every > 0
            && (epoch.is_multiple_of(self.settings.validate_every)
                || epoch == self.settings.epochs);
        if !due || self.validation.is_empty() {
            return Ok(Some(Validated::default()));
        }
        let set = (self.validation, Split::Validation);
        let stepped = copies(&self.model.tensors())?;
        self.model.load_tensors(&self.weights(state)?)?;
        let validated = match &state.objective {
            StepObjective::Slides { model, objective } => {
                evaluate(*model, self.loader, set, stop, observer).and_then(|evaluation| {
                    let Some(evaluation) = evaluation else {
                        return Ok(None);
                    };
                    // A split of one class has a loss but no area under the curve.
                    Ok(Some(Validated {
                        loss: Some(evaluation.loss(objective)?),
                        metric: evaluation.metric(self.task).ok(),
                        iou: None,
                    }))
                })
            }
            StepObjective::Pixels(pixels) => {
                evaluate_maps(*pixels, self.loader, set, stop, observer).and_then(|evaluation| {
                    let Some(evaluation) = evaluation else {
                        return Ok(None);
                    };
                    let pixels = evaluation.outcomes(pixels.loss.classes)?.sum();
                    Ok(Some(Validated {
                        loss: Some(evaluation.loss()),
                        metric: pixels.mean(Metric::main(self.task)).ok(),
                        iou: pixels.mean(Metric::Iou).ok(),
                    }))
                })
            }
        };
        self.model.load_tensors(&stepped)?;
        validated
    }

    /// Keeps the weights of an epoch that is the best so far, and decides whether the run ends here.
    pub(super) fn compare(
        &self,
        state: &mut State<'_>,
        record: &EpochRecord,
        observer: &mut dyn TrainObserver,
    ) -> Result<()> {
        if record.validation_loss.is_none() {
            return Ok(());
        }
        // Where the metric has no meaning, or the loss is no number, an epoch is never the best.
        let value = match self.settings.monitor {
            Monitor::Loss => record.validation_loss,
            Monitor::Metric => record.validation_metric,
        };
        let value = value.filter(|value| value.is_finite());
        let is_better = |value: f64, best: f64| match self.settings.monitor {
            Monitor::Loss => value < best,
            Monitor::Metric => value > best,
        };
        let best = state.progress.best;
        match value {
            Some(value) if best.is_none_or(|best| is_better(value, best.value)) => {
                let epoch = record.epoch;
                let weights = self.weights(state)?;
                match self.checkpoints() {
                    Some(checkpoints) => checkpoints.write_best(epoch, &weights)?,
                    None => state.best = weights,
                }
                state.progress.best = Some(BestEpoch { epoch, value });
                state.progress.evaluations_since_best = 0;
            }
            _ => state.progress.evaluations_since_best += 1,
        }
        let since = state.progress.evaluations_since_best;
        if self
            .settings
            .patience
            .is_some_and(|patience| since >= patience)
        {
            state.progress.stopped_early = true;
            observer.notice(&TrainEvent::StoppedEarly {
                epoch: record.epoch,
                best: state.progress.best,
            });
        }
        Ok(())
    }

    /// Gives the model the weights that are the run's result, and says of which epoch they are.
    pub(super) fn take_result(&self, state: &State<'_>) -> Result<u64> {
        let last = state.progress.epoch.saturating_sub(1);
        let best = match (self.settings.test_weights, state.progress.best) {
            (TestWeights::Last, _) => {
                self.model.load_tensors(&self.weights(state)?)?;
                return Ok(last);
            }
            (TestWeights::Best, Some(best)) => best,
            (TestWeights::Best, None) => {
                return Err(TrainError::Metric {
                    metric: "the best epoch",
                    expected: "a validation split with a finite loss, or metric, after some epoch",
                    found: "none".to_owned(),
                });
            }
        };
        match self.checkpoints() {
            Some(checkpoints) => self.model.load_tensors(&checkpoints.best(best.epoch)?)?,
            None => self.model.load_tensors(&state.best)?,
        }
        Ok(best.epoch)
    }

    /// The weights that are evaluated: averaged ones in place of those of the last step, where such are kept. Running statistics
    /// are as they are.
    fn weights(&self, state: &State<'_>) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = copies(&self.model.tensors())?;
        if let Some(average) = &state.average {
            tensors.extend(copies(average.weights())?);
        }
        Ok(tensors)
    }
}

/// Tensors of their own: those of a variable change with it.
fn copies(tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let copy = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.copy()?));
    tensors.iter().map(copy).collect()
}
