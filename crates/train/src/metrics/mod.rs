//! How well predictions agree with what is known.
//!
//! Functions on slices have the names and the values of scikit-learn's and SciPy's; where these give a NaN or a made-up number
//! with a warning, such as the area under a curve of one class, these give an error. [`Metric`] says which of them a task has,
//! [`Outcomes`] computes them from predictions, and [`Bootstrap`] draws their intervals.

mod bootstrap;
mod calibration;
mod classes;
mod confusion;
mod correlation;
mod outcomes;
mod ranking;
mod regression;
mod task;

pub use bootstrap::{Band, Bootstrap, Estimate, Groups};
pub use calibration::{CalibrationBin, calibration_curve, expected_calibration_error};
pub use classes::{
    KappaWeights, accuracy_score, balanced_accuracy_score, cohen_kappa_score, confusion_matrix,
};
pub use confusion::{Confusion, MapOutcomes};
pub use correlation::{pearsonr, spearmanr};
pub use outcomes::Outcomes;
pub use ranking::{
    PrecisionRecallCurve, RocCurve, average_precision_score, precision_recall_curve, roc_auc_score,
    roc_curve,
};
pub use regression::{mean_absolute_error, mean_squared_error};
pub use task::{Metric, Orientation};

use crate::error::{Result, TrainError};

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of slides are far below 2^53"
)]
fn count(value: usize) -> f64 {
    value as f64
}

/// Refuses values of another number than `expected`, which is that of the labels.
fn check_lengths(metric: &'static str, labels: usize, predictions: usize) -> Result<()> {
    if labels == predictions {
        return Ok(());
    }
    Err(TrainError::Metric {
        metric,
        expected: "as many predictions as labels",
        found: format!("{predictions} predictions and {labels} labels"),
    })
}

fn check_not_empty(metric: &'static str, labels: usize) -> Result<()> {
    if labels > 0 {
        return Ok(());
    }
    Err(TrainError::Metric {
        metric,
        expected: "one prediction or more",
        found: "none".to_owned(),
    })
}

fn check_not_nan(metric: &'static str, scores: &[f64]) -> Result<()> {
    match scores.iter().position(|score| score.is_nan()) {
        None => Ok(()),
        Some(place) => Err(TrainError::Metric {
            metric,
            expected: "numbers",
            found: format!("NaN at place {place}"),
        }),
    }
}

/// Checks two slices of finite numbers of one length.
fn check_numbers(metric: &'static str, truth: &[f64], predictions: &[f64]) -> Result<()> {
    check_lengths(metric, truth.len(), predictions.len())?;
    for (what, values) in [("label", truth), ("prediction", predictions)] {
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(TrainError::Metric {
                metric,
                expected: "finite numbers",
                found: format!("{what} {} at place {place}", values[place]),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
