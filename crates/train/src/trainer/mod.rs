//! The training loop: epochs of groups of slides, each slide streamed by itself, gradients summed over the group.

mod average;
mod evaluate;
mod evaluate_maps;
mod events;
mod group;
mod log;
mod objective;
mod recipes;
mod run;
mod settings;
mod skipped;
mod state;
mod tensorboard;
mod timing;
mod validate;

pub use evaluate::{Evaluation, Prediction, evaluate};
pub use evaluate_maps::{MapEvaluation, MapPrediction, evaluate_maps};
pub use events::{NoObserver, TrainEvent, TrainObserver};
pub use log::StepRecord;
pub use run::{Outcome, Run, Summary};
pub use settings::{Monitor, TestWeights, TrainSettings};
pub use skipped::{Phase, SkipReason, Skipped};
pub use timing::Timing;

#[cfg(test)]
mod tests;
