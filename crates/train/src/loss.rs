//! Losses of one slide.

use candle_core::{D, Tensor};
use candle_nn::ops::log_softmax;

use crate::data::{Task, label_class};
use crate::error::{Result, TrainError};

/// Loss of the logits `[1, outputs]` of one slide: binary cross-entropy, cross-entropy or squared error, as the task says.
///
/// # Errors
/// [`TrainError::State`] for logits of another shape, [`TrainError::Tensor`].
pub fn slide_loss(task: Task, logits: &Tensor, label: f64) -> Result<Tensor> {
    if logits.dims() != [1, task.outputs()] {
        return Err(TrainError::State {
            name: "logits".to_owned(),
            expected: format!("[1, {}]", task.outputs()),
            found: format!("{:?}", logits.dims()),
        });
    }
    Ok(match task {
        Task::Binary => {
            // max(z, 0) - z y + ln(1 + exp(-|z|)): no overflow at either end.
            let softplus = ((logits.abs()?.neg()?.exp()? + 1.0)?).log()?;
            ((logits.relu()? - (logits * label)?)? + softplus)?.sum_all()?
        }
        Task::Classification { .. } => log_softmax(logits, D::Minus1)?
            .narrow(1, label_class(label), 1)?
            .neg()?
            .sum_all()?,
        Task::Regression => (logits - label)?.sqr()?.sum_all()?,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn value_and_gradient(task: Task, logits: &[f64], label: f64) -> (f64, Vec<f64>) {
        let logits = Var::from_slice(logits, (1, logits.len()), &Device::Cpu).unwrap();
        let loss = slide_loss(task, logits.as_tensor(), label).unwrap();
        let gradients = loss.backward().unwrap();
        let gradient = gradients
            .get(logits.as_tensor())
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        (loss.to_scalar().unwrap(), gradient)
    }

    /// `torch.nn.functional.binary_cross_entropy_with_logits` is `-ln sigmoid(z)` or `-ln(1 - sigmoid(z))`, its
    /// derivative `sigmoid(z) - y`.
    #[test]
    fn binary_cross_entropy_by_its_definition() {
        for logit in [-3.0_f64, -0.5, 0.25, 4.0] {
            for label in [0.0, 1.0] {
                let sigmoid = 1.0 / (1.0 + (-logit).exp());
                let expected = if label > 0.5 {
                    -sigmoid.ln()
                } else {
                    -(1.0 - sigmoid).ln()
                };
                let (value, gradient) = value_and_gradient(Task::Binary, &[logit], label);
                assert!((value - expected).abs() < 1e-12);
                assert!((gradient[0] - (sigmoid - label)).abs() < 1e-12);
            }
        }
        let (value, gradient) = value_and_gradient(Task::Binary, &[-800.0], 1.0);
        assert!((value - 800.0).abs() < 1e-9 && (gradient[0] + 1.0).abs() < 1e-12);
    }

    #[test]
    fn cross_entropy_and_squared_error_by_hand() {
        let (value, _) =
            value_and_gradient(Task::Classification { classes: 3 }, &[0.0, 0.0, 0.0], 2.0);
        assert!((value - 3.0_f64.ln()).abs() < 1e-12);
        let (value, gradient) = value_and_gradient(Task::Regression, &[1.5], 1.0);
        assert!((value - 0.25).abs() < 1e-12 && (gradient[0] - 1.0).abs() < 1e-12);
        let logits = Tensor::zeros((1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(slide_loss(Task::Binary, &logits, 1.0).is_err());
    }
}
