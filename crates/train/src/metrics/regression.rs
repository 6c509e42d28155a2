//! Errors of predicted numbers.

use super::{check_not_empty, check_numbers, count};
use crate::error::Result;

/// Mean of the squared errors, in the label's unit squared.
///
/// # Errors
/// [`TrainError::Metric`](crate::TrainError::Metric) if the lengths differ, a value is not finite, or there is none.
pub fn mean_squared_error(truth: &[f64], predictions: &[f64]) -> Result<f64> {
    mean("mean_squared_error", truth, predictions, |error| {
        error * error
    })
}

/// Mean of the errors without their sign, in the label's unit.
///
/// # Errors
/// As [`mean_squared_error`].
pub fn mean_absolute_error(truth: &[f64], predictions: &[f64]) -> Result<f64> {
    mean("mean_absolute_error", truth, predictions, f64::abs)
}

fn mean(
    metric: &'static str,
    truth: &[f64],
    predictions: &[f64],
    loss: impl Fn(f64) -> f64,
) -> Result<f64> {
    check_numbers(metric, truth, predictions)?;
    check_not_empty(metric, truth.len())?;
    let losses = truth.iter().zip(predictions).map(|(a, b)| loss(a - b));
    Ok(losses.sum::<f64>() / count(truth.len()))
}
