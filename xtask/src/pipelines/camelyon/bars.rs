//! Progress bars with the time that is left.

use indicatif::ProgressBar;
use stream_grad_train::trainer::{SkipReason, TrainEvent, TrainObserver};

use crate::progress::counting_bar;

/// The bar of one part of the experiment.
pub(crate) struct Bars {
    bar: ProgressBar,
    evaluates: bool,
}

impl Bars {
    /// For writing the made-up cohort.
    pub(crate) fn cohort(slides: usize) -> ProgressBar {
        counting_bar("writing the made-up cohort", slides as u64)
    }

    /// For training at one resolution; one step of the bar is one slide.
    pub(crate) fn training(microns: f64, epochs: u64, slides: usize) -> Self {
        Self {
            bar: counting_bar(
                &format!("training at {microns} microns"),
                epochs * slides as u64,
            ),
            evaluates: false,
        }
    }

    /// For the test split.
    pub(crate) fn testing(microns: f64, slides: usize) -> Self {
        Self {
            bar: counting_bar(&format!("testing at {microns} microns"), slides as u64),
            evaluates: true,
        }
    }

    /// Leaves the bar as it is.
    pub(crate) fn finish(&self) {
        self.bar.abandon();
    }
}

/// Moves the bar, and prints what a person should know.
impl TrainObserver for Bars {
    fn notice(&mut self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Started {
                epoch,
                slides_done,
                slides,
                ..
            } => {
                self.bar
                    .set_position(epoch * *slides as u64 + *slides_done as u64);
                // A resumed run's speed is that of this session.
                self.bar.reset_eta();
            }
            TrainEvent::SlideTrained {
                epoch,
                done,
                slides,
                ..
            } => self.bar.set_position(epoch * *slides as u64 + *done as u64),
            TrainEvent::SlideEvaluated { done, .. } if self.evaluates => {
                self.bar.set_position(*done as u64);
            }
            TrainEvent::SlideSkipped { slide, reason } => self.bar.println(match reason {
                SkipReason::Broken(reason) => format!("skipped {}: {reason}", slide.display()),
                SkipReason::NotFinite => {
                    format!(
                        "{} gives no finite loss or gradient and is left out from here on",
                        slide.display()
                    )
                }
            }),
            TrainEvent::EpochEnded(record) => {
                let validation = match (record.validation_loss, record.validation_metric) {
                    (Some(loss), Some(metric)) => {
                        format!(", validation loss {loss:.3}, metric {metric:.3}")
                    }
                    _ => String::new(),
                };
                let line = format!(
                    "epoch {}: loss {:.3}{validation}",
                    record.epoch + 1,
                    record.train_loss
                );
                if self.bar.is_hidden() {
                    println!("{line}");
                } else {
                    self.bar.println(line);
                }
            }
            _ => {}
        }
    }
}
