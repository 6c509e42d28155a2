//! What a run tells whoever watches it.

use std::fmt;
use std::path::Path;

use stream_grad::StreamError;
use stream_grad::tiling::TilingError;

use super::log::StepRecord;
use crate::checkpoint::{BestEpoch, EpochRecord};
use crate::data::Split;
use crate::error::TrainError;

/// Why a slide did not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipReason {
    /// It could not be opened or read; it is tried again in the next epoch.
    Broken(String),
    /// Its loss or a gradient was no number; it is left out of the rest of the run.
    NotFinite,
}

impl SkipReason {
    /// A slide that `error` came of, with what to do where that is known.
    #[must_use]
    pub fn broken(error: &TrainError) -> Self {
        let advice = match error {
            TrainError::Stream(StreamError::Geometry(TilingError::InputTooSmall { .. })) => {
                "; the slide is too small for this network: read it at fewer microns per pixel, or leave it out"
            }
            TrainError::Stream(StreamError::Geometry(TilingError::BudgetTooSmall { .. })) => {
                "; raise `memory_bytes` in [model], or read the slide at more microns per pixel"
            }
            _ => "",
        };
        Self::Broken(format!("{error}{advice}"))
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(reason) => write!(f, "{reason}; it is tried again in the next epoch"),
            Self::NotFinite => f.write_str(
                "its loss or a gradient was no finite number; it is left out of the rest of the run",
            ),
        }
    }
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// The run begins, or goes on where a checkpoint left it.
    Started {
        /// Epoch that comes next, from 0.
        epoch: u64,
        /// All epochs.
        epochs: u64,
        /// Slides of an epoch that are done already.
        slides_done: usize,
        /// Slides of an epoch.
        slides: usize,
    },
    /// A slide of the training split was streamed forward and back.
    SlideTrained {
        /// Epoch, from 0.
        epoch: u64,
        /// Slides of the epoch that are done, skipped ones included.
        done: usize,
        /// Slides of the epoch.
        slides: usize,
        /// The slide.
        slide: &'a Path,
        /// Its loss.
        loss: f64,
    },
    /// A slide did not count.
    SlideSkipped {
        /// The slide.
        slide: &'a Path,
        /// Why.
        reason: SkipReason,
    },
    /// A slide was evaluated.
    SlideEvaluated {
        /// Split that is evaluated.
        split: Split,
        /// Slides that are done, skipped ones included.
        done: usize,
        /// Slides of the split.
        slides: usize,
    },
    /// A slide without a split was predicted, or skipped.
    SlidePredicted {
        /// The slide.
        slide: &'a Path,
        /// Slides that are done, skipped ones included.
        done: usize,
        /// Slides to predict.
        slides: usize,
    },
    /// A step ended. If the norm of its gradients is no number, though each slide's loss and gradients were, the weights are as they
    /// were.
    Stepped(&'a StepRecord),
    /// An epoch ended.
    EpochEnded(&'a EpochRecord),
    /// The validation split got no better for as long as the settings allow: no epoch comes after this one.
    StoppedEarly {
        /// Epoch that ended, from 0.
        epoch: u64,
        /// The best epoch.
        best: Option<BestEpoch>,
    },
    /// A checkpoint cannot be used, being damaged: the one before it is tried.
    CheckpointUnusable {
        /// The checkpoint.
        path: &'a Path,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint was written.
    CheckpointWritten(&'a Path),
}

/// Is told what happens in a run: progress bars and logs are built on it.
pub trait TrainObserver {
    /// Takes notice of `event`.
    fn notice(&mut self, event: &TrainEvent<'_>);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl TrainObserver for NoObserver {
    fn notice(&mut self, _: &TrainEvent<'_>) {}
}

impl<F: FnMut(&TrainEvent<'_>)> TrainObserver for F {
    fn notice(&mut self, event: &TrainEvent<'_>) {
        self(event);
    }
}

#[cfg(test)]
mod tests {
    use stream_grad::tiling::Axis;

    use super::*;

    #[test]
    fn a_slide_that_is_too_small_is_told_what_to_do() {
        let error = TrainError::Stream(StreamError::Geometry(TilingError::InputTooSmall {
            layer: "pool".to_owned(),
            axis: Axis::Rows,
            found: 1,
            needed: 3,
            padded: 1,
        }));
        let told = SkipReason::broken(&error).to_string();
        for part in ["pool", "needs at least 3", "too small for this network"] {
            assert!(told.contains(part), "{part:?} in {told}");
        }
        assert_eq!(
            SkipReason::broken(&TrainError::Settings("odd".to_owned())),
            SkipReason::Broken("settings: odd".to_owned())
        );
    }
}
