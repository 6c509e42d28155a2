//! The training loop: epochs of groups of slides, each slide streamed by itself, gradients summed over the group.

mod evaluate;
mod events;
mod recipes;
mod run;
mod settings;
mod timing;

pub use evaluate::{Evaluation, Prediction, evaluate};
pub use events::{NoObserver, SkipReason, TrainEvent, TrainObserver};
pub use run::{Outcome, Run, Summary};
pub use settings::TrainSettings;
pub use timing::Timing;

#[cfg(test)]
mod tests;
