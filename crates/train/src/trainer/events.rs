//! What a run tells whoever watches it.

use std::path::Path;

use crate::checkpoint::EpochRecord;
use crate::data::Split;

/// Why a slide did not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipReason {
    /// It could not be opened or read; it is tried again in the next epoch.
    Broken(String),
    /// Its loss or a gradient was no number; it is left out of the rest of the run.
    NotFinite,
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
    /// The optimiser made a step.
    Stepped {
        /// Steps so far.
        steps: u64,
        /// Its learning rate.
        learning_rate: f64,
        /// Norm of the gradients before clipping.
        norm: f64,
    },
    /// A group gave gradients whose norm is no number, though each slide's loss was one; no step was made.
    StepSkipped {
        /// Steps so far.
        steps: u64,
    },
    /// An epoch ended.
    EpochEnded(&'a EpochRecord),
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
