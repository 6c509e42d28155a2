//! Correlations of predicted numbers with true ones.

use super::{check_numbers, count};
use crate::error::{Result, TrainError};

/// Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank.
///
/// # Errors
/// As [`pearsonr`].
pub fn spearmanr(truth: &[f64], predictions: &[f64]) -> Result<f64> {
    check_numbers("spearman", truth, predictions)?;
    correlation("spearman", &ranks(truth), &ranks(predictions))
}

/// Pearson's correlation.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ, a value is not finite, there are fewer than two, or all of a side are equal.
pub fn pearsonr(truth: &[f64], predictions: &[f64]) -> Result<f64> {
    check_numbers("pearson", truth, predictions)?;
    correlation("pearson", truth, predictions)
}

fn correlation(metric: &'static str, a: &[f64], b: &[f64]) -> Result<f64> {
    let (Some(a_unit), Some(b_unit)) = (unit(a), unit(b)) else {
        return Err(TrainError::Metric {
            metric,
            expected: "two or more values that differ on either side",
            found: format!("{} values without spread", a.len()),
        });
    };
    let product: f64 = a_unit.iter().zip(&b_unit).map(|(x, y)| x * y).sum();
    Ok(product.clamp(-1.0, 1.0))
}

/// Deviations from the mean, of norm 1; `None` if all values are equal.
fn unit(values: &[f64]) -> Option<Vec<f64>> {
    let first = values.first()?;
    if values.iter().all(|value| value == first) {
        return None;
    }
    // Scaled first, so that neither sums nor squares overflow.
    let largest = values
        .iter()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    let scaled: Vec<f64> = values.iter().map(|value| value / largest).collect();
    let mean = scaled.iter().sum::<f64>() / count(values.len());
    let mut deviations: Vec<f64> = scaled.iter().map(|value| value - mean).collect();
    let spread = deviations
        .iter()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    deviations.iter_mut().for_each(|value| *value /= spread);
    let norm = deviations
        .iter()
        .map(|value| value * value)
        .sum::<f64>()
        .sqrt();
    deviations.iter_mut().for_each(|value| *value /= norm);
    Some(deviations)
}

/// Ranks from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = count(start) + (count(run.len()) + 1.0) / 2.0;
        for &index in run {
            ranks[index] = mean;
        }
        start += run.len();
    }
    ranks
}
