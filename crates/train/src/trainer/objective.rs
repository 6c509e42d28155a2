//! What a step asks of a slide, and what the answer is made of: the one place where labels of slides and of pixels differ.

use std::sync::Arc;

use candle_core::Tensor;
use stream_grad::TileSource;

use super::timing::{Clock, Timed};
use crate::augment::{Augmentation, Augmented, AugmentedLabels};
use crate::data::{Label, Sample, Task};
use crate::error::{Result, TrainError};
use crate::gradients::Gradients;
use crate::loss::{ClassWeights, Objective};
use crate::metrics::Confusion;
use crate::model::{Model, PixelModel, TaskModel};

/// The model, and what it is to minimise.
pub(super) enum StepObjective<'a> {
    Slides {
        model: &'a dyn Model,
        objective: Objective,
    },
    Pixels(PixelModel<'a>),
}

/// What one slide gave to a step.
pub(super) struct SlideStep {
    pub(super) loss: f64,
    /// Empty if the loss is not finite.
    pub(super) gradients: Gradients,
    pub(super) agreement: Agreement,
}

/// How far the answer was right.
pub(super) enum Agreement {
    /// Whether the label was the predicted one; and the pooled features, for running statistics.
    Label { is_predicted: bool, pooled: Tensor },
    /// How often each class was taken for each.
    Pixels(Confusion),
}

/// An image as it is trained on.
pub(super) struct Shown {
    pub(super) image: Augmented<Arc<dyn TileSource>>,
    augmentation: Augmentation,
    /// Height and width before the augmentation.
    extent: (u64, u64),
}

impl Shown {
    pub(super) fn new(image: Arc<dyn TileSource>, augmentation: Augmentation) -> Result<Self> {
        let extent = image.extent();
        Ok(Self {
            image: Augmented::new(image, augmentation.clone())?,
            augmentation,
            extent,
        })
    }
}

impl<'a> StepObjective<'a> {
    /// Takes from the training split what a loss needs to know of it.
    pub(super) fn fit(
        model: TaskModel<'a>,
        task: Task,
        class_weights: &ClassWeights,
        train: &[Sample],
    ) -> Result<Self> {
        match (model, task) {
            (TaskModel::Pixels(pixels), Task::Segmentation { classes }) => {
                pixels.loss.check()?;
                let found = (pixels.loss.classes, pixels.model.classes());
                if found == (classes, classes) {
                    return Ok(Self::Pixels(pixels));
                }
                Err(TrainError::setting(
                    "data.task.classes",
                    format!("{classes} classes of loss and model"),
                    format!("{} and {}", found.0, found.1),
                ))
            }
            (TaskModel::Slides(model), task) if !matches!(task, Task::Segmentation { .. }) => {
                let objective = Objective::fit(task, class_weights, train)?;
                if task == Task::Regression {
                    model.set_target_scale(objective.target_scale())?;
                }
                Ok(Self::Slides { model, objective })
            }
            (model, task) => Err(TrainError::setting(
                "data.task",
                "the task of the model",
                format!("{task:?} for {model:?}"),
            )),
        }
    }

    /// Loss and gradients of a slide, by a forward and a backward sweep.
    pub(super) fn step(&self, sample: &Sample, shown: Shown, clock: &Clock) -> Result<SlideStep> {
        let Shown {
            image: source,
            augmentation,
            extent,
        } = shown;
        let image = Timed { source, clock };
        match self {
            Self::Slides { model, objective } => {
                // `execute` refuses samples without a label.
                let label = sample.label.clone().unwrap_or(Label::Number(f64::NAN));
                let found = model.gradients(&image, &|logits| objective.loss(logits, &label))?;
                let predicted = objective.task().predicted(&found.logits);
                Ok(SlideStep {
                    loss: found.loss,
                    gradients: found.gradients,
                    agreement: Agreement::Label {
                        is_predicted: sample.label == Some(predicted),
                        pooled: found.pooled,
                    },
                })
            }
            Self::Pixels(pixels) => {
                let labels = clock.during(|| pixels.labels_of(sample, extent))?;
                let source = AugmentedLabels::new(labels, augmentation);
                let labels = Timed { source, clock };
                let found = pixels.model.gradients(&image, &labels, pixels.loss)?;
                Ok(SlideStep {
                    loss: found.loss,
                    gradients: found.gradients,
                    agreement: Agreement::Pixels(found.confusion),
                })
            }
        }
    }

    /// Updates running statistics with what a group of slides gave.
    pub(super) fn update_statistics(&self, pooled: &[Tensor]) -> Result<()> {
        match self {
            Self::Slides { model, .. } => model.update_statistics(pooled),
            Self::Pixels(_) => Ok(()),
        }
    }
}
