//! Progress bars with the time that is left.

use std::fmt::Display;

use indicatif::ProgressBar;
use stream_grad_train::data::Split;
use stream_grad_train::experiment::RunKey;
use stream_grad_train::trainer::{TrainEvent, TrainObserver};

use crate::progress::{counting_bar, tell_above};

/// The bars of one training: training, where one step is one slide, then testing.
pub(crate) struct Bars {
    run: String,
    training: ProgressBar,
    testing: Option<ProgressBar>,
}

impl Bars {
    pub(crate) fn new(run: &RunKey, epochs: u64, slides: usize) -> Self {
        let message = format!("training {run}");
        Self {
            run: run.to_string(),
            training: counting_bar(&message, epochs.saturating_mul(slides as u64)),
            testing: None,
        }
    }

    /// Leaves the bars as they are.
    pub(crate) fn finish(&self) {
        self.testing.as_ref().unwrap_or(&self.training).abandon();
    }

    fn say(&self, line: impl Display) {
        tell_above(self.testing.as_ref().unwrap_or(&self.training), line);
    }

    fn tested(&mut self, done: usize, slides: usize) {
        let bar = self.testing.get_or_insert_with(|| {
            self.training.abandon();
            counting_bar(&format!("testing {}", self.run), slides as u64)
        });
        bar.set_position(done as u64);
    }
}

/// Moves the bars, and prints what a person should know.
impl TrainObserver for Bars {
    fn notice(&mut self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Started {
                epoch,
                slides_done,
                slides,
                ..
            } => {
                let done = epoch * *slides as u64 + *slides_done as u64;
                self.training.set_position(done);
                // A resumed run's speed is that of this session.
                self.training.reset_eta();
            }
            TrainEvent::SlideTrained {
                epoch,
                done,
                slides,
                ..
            } => self
                .training
                .set_position(epoch * *slides as u64 + *done as u64),
            TrainEvent::SlideEvaluated {
                split: Split::Test,
                done,
                slides,
            } => self.tested(*done, *slides),
            TrainEvent::SlideSkipped(skipped) => self.say(skipped),
            TrainEvent::EpochEnded(record) => {
                let mut line = format!(
                    "{}, epoch {}: loss {:.3}",
                    self.run,
                    record.epoch + 1,
                    record.train_loss
                );
                if let (Some(loss), Some(metric)) =
                    (record.validation_loss, record.validation_metric)
                {
                    line += &format!(", validation loss {loss:.3}, metric {metric:.3}");
                }
                self.say(line);
            }
            _ => {}
        }
    }
}
