//! What training minimises: losses of one slide or of its pixels, weights of classes, and the scale of
//! targets.

mod class_weights;
mod segmentation;
mod slide;
mod target_scale;

use candle_core::{DType, Device, Tensor};

pub use class_weights::ClassWeights;
use class_weights::Factors;
pub(crate) use segmentation::likeliest;
pub use segmentation::{
    SegmentationCotangents, SegmentationLoss, SegmentationSink, SegmentationSums,
};
pub use slide::slide_loss;
pub use target_scale::TargetScale;

use crate::data::{Label, Sample, Task};
use crate::error::{Result, TrainError};

/// What is minimised: the loss of a task, with what was learnt about it from the training split.
///
/// ```
/// use stream_grad_train::data::{Label, Sample, Task};
/// use stream_grad_train::loss::{ClassWeights, Objective};
///
/// let train = [10.0, 12.0, 14.0].map(|score| Sample::new(format!("{score}.svs"), score));
/// let objective = Objective::fit(Task::Regression, &ClassWeights::None, &train)?;
/// assert_eq!(objective.target_scale().mean, 12.0);
/// // Predicting the mean costs one squared deviation on average.
/// let losses = train.map(|sample| objective.of_prediction(&[12.0], &sample.label.unwrap()).unwrap());
/// assert!((losses.iter().sum::<f64>() / 3.0 - 1.0).abs() < 1e-4);
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    task: Task,
    factors: Factors,
    scale: TargetScale,
}

impl Objective {
    /// Takes class weights and the scale of targets from the training split; samples without a label do not count.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for weights that the task does not take; [`TrainError::State`] for a label that it does not take.
    pub fn fit(task: Task, weights: &ClassWeights, train: &[Sample]) -> Result<Self> {
        let labels: Vec<&Label> = train
            .iter()
            .filter_map(|sample| sample.label.as_ref())
            .collect();
        if let Some(wrong) = labels.iter().find(|label| !task.accepts(label)) {
            return Err(TrainError::State {
                name: "label".to_owned(),
                expected: format!("one of {task:?}"),
                found: wrong.to_string(),
            });
        }
        let scale = match task {
            Task::Regression => TargetScale::of(labels.iter().filter_map(|label| label.number())),
            _ => TargetScale::default(),
        };
        let factors = Factors::new(task, weights, &labels)?;
        Ok(Self {
            task,
            factors,
            scale,
        })
    }

    /// What is predicted.
    #[must_use]
    pub const fn task(&self) -> Task {
        self.task
    }

    /// How targets become what the network learns; mean 0 and deviation 1 unless a number is predicted.
    #[must_use]
    pub const fn target_scale(&self) -> TargetScale {
        self.scale
    }

    /// Loss of a network's outputs `[1, outputs]`, of a number in [deviations](TargetScale).
    ///
    /// # Errors
    /// As [`slide_loss`].
    pub fn loss(&self, outputs: &Tensor, label: &Label) -> Result<Tensor> {
        let standard = match label {
            Label::Number(number) if self.task == Task::Regression => {
                Some(Label::Number(self.scale.standardise(*number)))
            }
            _ => None,
        };
        let label = standard.as_ref().unwrap_or(label);
        let Some(factors) = self.factors.of(label) else {
            return slide_loss(self.task, outputs, label);
        };
        match factors.as_slice() {
            [factor] => Ok((slide_loss(self.task, outputs, label)? * *factor)?),
            factors => slide::several_labels(outputs, label, Some(factors)),
        }
    }

    /// Loss of a prediction, a number being in its own unit.
    ///
    /// # Errors
    /// As [`slide_loss`].
    pub fn of_prediction(&self, outputs: &[f64], label: &Label) -> Result<f64> {
        let standard: Vec<f64> = match self.task {
            Task::Regression => outputs
                .iter()
                .map(|output| self.scale.standardise_exactly(*output))
                .collect(),
            _ => outputs.to_vec(),
        };
        let outputs = Tensor::from_slice(&standard, (1, standard.len()), &Device::Cpu)?;
        let loss = self.loss(&outputs, label)?;
        Ok(loss.to_dtype(DType::F64)?.to_scalar()?)
    }
}

#[cfg(test)]
mod tests;
