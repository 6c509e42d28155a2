//! Metrics of predicted classes.

use super::{check_lengths, check_not_empty, count};
use crate::error::{Result, TrainError};

/// Share of predictions that are right. For several labels an example is the set of its labels (subset accuracy).
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ or there is nothing to compare.
pub fn accuracy_score<T: PartialEq>(truth: &[T], predictions: &[T]) -> Result<f64> {
    check_lengths("accuracy", truth.len(), predictions.len())?;
    check_not_empty("accuracy", truth.len())?;
    let right = truth
        .iter()
        .zip(predictions)
        .filter(|(a, b)| a == b)
        .count();
    Ok(count(right) / count(truth.len()))
}

/// Mean over the classes that `truth` holds of the share of their examples that are right.
///
/// # Errors
/// As [`confusion_matrix`].
pub fn balanced_accuracy_score(
    truth: &[usize],
    predictions: &[usize],
    classes: usize,
) -> Result<f64> {
    let matrix = counts("balanced_accuracy", truth, predictions, classes)?;
    let (mut sum, mut present) = (0.0, 0);
    for (class, row) in matrix.iter().enumerate() {
        let examples: usize = row.iter().sum();
        if examples > 0 {
            sum += count(row[class]) / count(examples);
            present += 1;
        }
    }
    Ok(sum / count(present))
}

/// How a disagreement counts in [`cohen_kappa_score`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KappaWeights {
    /// All disagreements count the same.
    Unweighted,
    /// By the difference of the levels.
    Linear,
    /// By the square of the difference of the levels.
    Quadratic,
}

/// Cohen's kappa: agreement beyond chance, 1 for full agreement and 0 for that of chance.
///
/// The weights go by the classes' own numbers, whether a class between them has examples or not. (scikit-learn without
/// `labels` leaves out absent classes, so that their neighbours move together.)
///
/// # Errors
/// As [`confusion_matrix`]; [`TrainError::Metric`] if truth and predictions are all of one class, so that no chance is left.
pub fn cohen_kappa_score(
    truth: &[usize],
    predictions: &[usize],
    classes: usize,
    weights: KappaWeights,
) -> Result<f64> {
    const METRIC: &str = "cohen_kappa";
    let matrix = counts(METRIC, truth, predictions, classes)?;
    let rows: Vec<usize> = matrix.iter().map(|row| row.iter().sum()).collect();
    let columns: Vec<usize> = (0..classes)
        .map(|column| matrix.iter().map(|row| row[column]).sum())
        .collect();
    let weight = |row: usize, column: usize| {
        let difference = count(row.abs_diff(column));
        match weights {
            KappaWeights::Unweighted => f64::from(u8::from(row != column)),
            KappaWeights::Linear => difference,
            KappaWeights::Quadratic => difference * difference,
        }
    };
    let (mut observed, mut by_chance) = (0.0, 0.0);
    for row in 0..classes {
        for column in 0..classes {
            observed += weight(row, column) * count(matrix[row][column]);
            by_chance += weight(row, column) * count(rows[row]) * count(columns[column]);
        }
    }
    if by_chance > 0.0 {
        return Ok(1.0 - observed * count(truth.len()) / by_chance);
    }
    Err(TrainError::Metric {
        metric: METRIC,
        expected: "two classes or more in labels or predictions",
        found: format!("{} examples, all of class {}", truth.len(), truth[0]),
    })
}

/// How often each class was taken for each: `matrix[truth][prediction]`, with `classes` rows and columns.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ, there is nothing to compare, or a class is not below `classes`.
pub fn confusion_matrix(
    truth: &[usize],
    predictions: &[usize],
    classes: usize,
) -> Result<Vec<Vec<usize>>> {
    counts("confusion_matrix", truth, predictions, classes)
}

fn counts(
    metric: &'static str,
    truth: &[usize],
    predictions: &[usize],
    classes: usize,
) -> Result<Vec<Vec<usize>>> {
    check_lengths(metric, truth.len(), predictions.len())?;
    check_not_empty(metric, truth.len())?;
    let mut matrix = vec![vec![0; classes]; classes];
    for (&row, &column) in truth.iter().zip(predictions) {
        match matrix.get_mut(row).and_then(|line| line.get_mut(column)) {
            Some(cell) => *cell += 1,
            None => {
                return Err(TrainError::Metric {
                    metric,
                    expected: "classes below the number of classes",
                    found: format!("classes {row} and {column} of {classes}"),
                });
            }
        }
    }
    Ok(matrix)
}
