//! The loss of one slide for each task.

use candle_core::{D, Tensor};
use candle_nn::ops::log_softmax;

use crate::data::{Label, Task};
use crate::error::{Result, TrainError};

/// Loss of the outputs `[1, outputs]` of one slide, as the task says:
///
/// - two classes: binary cross-entropy (PyTorch's `binary_cross_entropy_with_logits`);
/// - several classes: cross-entropy;
/// - several labels: the mean of their binary cross-entropies;
/// - levels: `-ln P(level)`, where output `k` is the log-odds of a level above `k` among those of at least `k`. This is the loss
///   of CORN (Shi, Cao, Raschka, "Deep neural networks for rank-consistent ordinal regression based on conditional
///   probabilities", 2021, equation 5) without its division by the number of conditions;
/// - a number: squared error.
///
/// # Errors
/// [`TrainError::State`] for outputs of another shape, a label that the task does not take, or a task of pixels, which have a
/// [`SegmentationLoss`](super::SegmentationLoss); [`TrainError::Tensor`].
pub fn slide_loss(task: Task, outputs: &Tensor, label: &Label) -> Result<Tensor> {
    let refuse = |name: &str, expected: String, found: String| {
        let name = name.to_owned();
        Err(TrainError::State {
            name,
            expected,
            found,
        })
    };
    if outputs.dims() != [1, task.outputs()] {
        let expected = format!("[1, {}]", task.outputs());
        return refuse("outputs", expected, format!("{:?}", outputs.dims()));
    }
    if !task.accepts(label) {
        return refuse("label", format!("one of {task:?}"), format!("{label:?}"));
    }
    let number = label.number().unwrap_or_default();
    let class = label.class().unwrap_or_default();
    Ok(match (task, label) {
        (Task::Classification { .. }, _) => log_softmax(outputs, D::Minus1)?
            .narrow(1, class, 1)?
            .neg()?
            .sum_all()?,
        (Task::Regression, _) => (outputs - number)?.sqr()?.sum_all()?,
        (Task::Segmentation { .. }, _) | (_, Label::Map(_)) => {
            let expected = "a task with a label for each slide".to_owned();
            return refuse("task", expected, format!("{task:?}"));
        }
        (_, Label::Set(_)) => several_labels(outputs, label, None)?,
        (Task::Ordinal { levels }, Label::Number(_)) => {
            // Conditions beyond the level are not known: they have no part in the loss.
            let known = (class + 1).min(levels - 1);
            let truth: Vec<f64> = (0..known).map(|k| f64::from(u8::from(k < class))).collect();
            binary_cross_entropy(&outputs.narrow(1, 0, known)?, &truth)?.sum_all()?
        }
        (_, Label::Number(_)) => binary_cross_entropy(outputs, &[number])?.sum_all()?,
    })
}

/// Mean of the binary cross-entropies of several labels, each times its factor.
pub(super) fn several_labels(
    outputs: &Tensor,
    label: &Label,
    factors: Option<&[f64]>,
) -> Result<Tensor> {
    let Label::Set(set) = label else {
        return Err(TrainError::State {
            name: "label".to_owned(),
            expected: "several labels".to_owned(),
            found: label.to_string(),
        });
    };
    let truth: Vec<f64> = set.iter().map(|has| f64::from(u8::from(*has))).collect();
    let losses = binary_cross_entropy(outputs, &truth)?;
    let Some(factors) = factors else {
        return Ok(losses.mean_all()?);
    };
    let factors = Tensor::from_slice(factors, (1, factors.len()), outputs.device())?;
    Ok((losses * factors.to_dtype(outputs.dtype())?)?.mean_all()?)
}

/// Binary cross-entropy of each of the logits `[1, N]`.
fn binary_cross_entropy(logits: &Tensor, truth: &[f64]) -> Result<Tensor> {
    let truth = Tensor::from_slice(truth, (1, truth.len()), logits.device())?;
    let truth = truth.to_dtype(logits.dtype())?;
    // max(z, 0) - z y + ln(1 + exp(-|z|)): no overflow at either end.
    let softplus = ((logits.abs()?.neg()?.exp()? + 1.0)?).log()?;
    Ok(((logits.relu()? - (logits * truth)?)? + softplus)?)
}
