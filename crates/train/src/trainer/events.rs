//! What a run tells whoever watches it.

use std::path::Path;

use super::log::StepRecord;
use super::skipped::Skipped;
use crate::checkpoint::{BestEpoch, EpochRecord};
use crate::data::Split;

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
    SlideSkipped(&'a Skipped),
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
