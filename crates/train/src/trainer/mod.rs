//! The training loop: epochs of groups of slides, each slide streamed by itself, gradients summed over the group.

mod evaluate;
mod events;
mod run;
mod settings;

pub use evaluate::{Evaluation, Prediction, evaluate};
pub use events::{NoObserver, SkipReason, TrainEvent, TrainObserver};
pub use run::{Outcome, Run, Summary};
pub use settings::TrainSettings;

#[cfg(test)]
mod tests;
