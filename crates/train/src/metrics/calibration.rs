//! Whether predicted probabilities are those that come true.

use super::{check_lengths, check_not_empty, count};
use crate::error::{Result, TrainError};

/// Predictions of about one probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationBin {
    /// Mean of the predicted probabilities.
    pub prob_pred: f64,
    /// Share that came true.
    pub prob_true: f64,
    /// How many predictions they are.
    pub examples: usize,
}

/// The bins of `bins` equal widths that hold a prediction, by rising probability. A probability on the border of two bins is in
/// the lower one.
///
/// `labels[i]` says whether `probabilities[i]` came true: that an example is positive, or that the predicted class is right.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ, there is nothing to compare, `bins` is 0, or a probability is not from 0 to 1.
pub fn calibration_curve(
    labels: &[bool],
    probabilities: &[f64],
    bins: usize,
) -> Result<Vec<CalibrationBin>> {
    const METRIC: &str = "calibration_curve";
    check_lengths(METRIC, labels.len(), probabilities.len())?;
    check_not_empty(METRIC, labels.len())?;
    let refused = |expected, found| TrainError::Metric {
        metric: METRIC,
        expected,
        found,
    };
    if bins == 0 {
        return Err(refused("one bin or more", "0".to_owned()));
    }
    let borders: Vec<f64> = (1..bins).map(|bin| count(bin) / count(bins)).collect();
    let mut sums = vec![(0.0, 0_usize, 0_usize); bins];
    for (place, (label, probability)) in labels.iter().zip(probabilities).enumerate() {
        if !(0.0..=1.0).contains(probability) {
            let found = format!("{probability} at place {place}");
            return Err(refused("probabilities from 0 to 1", found));
        }
        let bin = &mut sums[borders.partition_point(|border| border < probability)];
        *bin = (bin.0 + probability, bin.1 + usize::from(*label), bin.2 + 1);
    }
    Ok(sums
        .into_iter()
        .filter(|bin| bin.2 > 0)
        .map(|(sum, positives, examples)| CalibrationBin {
            prob_pred: sum / count(examples),
            prob_true: count(positives) / count(examples),
            examples,
        })
        .collect())
}

/// Expected calibration error: the mean, over all examples, of the distance of their bin's two coordinates in
/// [`calibration_curve`].
///
/// # Errors
/// As [`calibration_curve`].
pub fn expected_calibration_error(
    labels: &[bool],
    probabilities: &[f64],
    bins: usize,
) -> Result<f64> {
    let curve = calibration_curve(labels, probabilities, bins)?;
    let gaps = curve
        .iter()
        .map(|bin| count(bin.examples) * (bin.prob_true - bin.prob_pred).abs());
    Ok(gaps.sum::<f64>() / count(labels.len()))
}
