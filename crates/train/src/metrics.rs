//! How well predictions agree with what is known.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// Area under the receiver operating characteristic curve, by the rank statistic of Mann and Whitney; ties count half.
///
/// `labels[i]` says whether example `i` is positive, `scores[i]` how positive it was predicted to be, on any scale.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ, a score is NaN, or a class has no example.
///
/// # Examples
/// ```
/// use stream_grad_train::metrics::area_under_curve;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// assert_eq!(area_under_curve(&[false, false, true, true], &[0.1, 0.4, 0.35, 0.8])?, 0.75);
/// # Ok(())
/// # }
/// ```
pub fn area_under_curve(labels: &[bool], scores: &[f64]) -> Result<f64> {
    const METRIC: &str = "area under the curve";
    check_pairs(METRIC, labels.len(), scores)?;
    let positives = labels.iter().filter(|label| **label).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(TrainError::Metric {
            metric: METRIC,
            expected: "examples of both classes",
            found: format!("{positives} positive and {negatives} negative"),
        });
    }
    let rank_sum: f64 = ranks(scores)
        .iter()
        .zip(labels)
        .filter(|(_, label)| **label)
        .map(|(rank, _)| rank)
        .sum();
    let (positives, negatives) = (count(positives), count(negatives));
    Ok((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// Rank correlation of Spearman: Pearson's correlation of the ranks, ties sharing their mean rank.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ, a value is NaN, there are fewer than two, or all of a side are equal.
pub fn spearman(truth: &[f64], predictions: &[f64]) -> Result<f64> {
    const METRIC: &str = "Spearman's correlation";
    check_pairs(METRIC, truth.len(), predictions)?;
    check_pairs(METRIC, predictions.len(), truth)?;
    let (truth_ranks, prediction_ranks) = (ranks(truth), ranks(predictions));
    let mean = (count(truth.len()) + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(x, y)| (x - mean) * (y - mean)).sum()
    };
    let spread = (product(&truth_ranks, &truth_ranks)
        * product(&prediction_ranks, &prediction_ranks))
    .sqrt();
    if spread > 0.0 {
        Ok(product(&truth_ranks, &prediction_ranks) / spread)
    } else {
        Err(TrainError::Metric {
            metric: METRIC,
            expected: "two or more values that differ on either side",
            found: format!("{} values without spread", truth.len()),
        })
    }
}

/// Share of predictions that are right.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ or there is nothing to compare.
pub fn accuracy(truth: &[usize], predictions: &[usize]) -> Result<f64> {
    check_classes("accuracy", truth, predictions)?;
    let right = truth
        .iter()
        .zip(predictions)
        .filter(|(a, b)| a == b)
        .count();
    Ok(count(right) / count(truth.len()))
}

/// How often each class was taken for each: `matrix[truth][prediction]`, with `classes` rows and columns.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ, there is nothing to compare, or a class is not below `classes`.
pub fn confusion(truth: &[usize], predictions: &[usize], classes: usize) -> Result<Vec<Vec<u64>>> {
    check_classes("confusion matrix", truth, predictions)?;
    let mut matrix = vec![vec![0; classes]; classes];
    for (&row, &column) in truth.iter().zip(predictions) {
        match matrix.get_mut(row).and_then(|line| line.get_mut(column)) {
            Some(cell) => *cell += 1,
            None => {
                return Err(TrainError::Metric {
                    metric: "confusion matrix",
                    expected: "classes below the number of classes",
                    found: format!("classes {row} and {column} of {classes}"),
                });
            }
        }
    }
    Ok(matrix)
}

/// A metric with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The metric on all examples.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// How to draw a bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: usize,
    /// Share of resamples inside the interval.
    pub confidence: f64,
    /// Seed of the resampling.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 2000,
            confidence: 0.95,
            seed: 0,
        }
    }
}

impl Bootstrap {
    /// Percentile interval of [`area_under_curve`] over resampled examples. Each class is resampled by itself, so that
    /// every resample has both.
    ///
    /// # Errors
    /// As [`area_under_curve`]; [`TrainError::Setting`] for no resamples or a confidence outside 0 to 1.
    pub fn area_under_curve(&self, labels: &[bool], scores: &[f64]) -> Result<Estimate> {
        let value = area_under_curve(labels, scores)?;
        let of_class = |class: bool| -> Vec<f64> {
            labels
                .iter()
                .zip(scores)
                .filter(|(label, _)| **label == class)
                .map(|(_, score)| *score)
                .collect()
        };
        let (negative, positive) = (of_class(false), of_class(true));
        let mut resampled_labels = vec![false; negative.len()];
        resampled_labels.resize(labels.len(), true);
        let mut resampled = Vec::with_capacity(scores.len());
        self.interval(value, |rng| {
            resampled.clear();
            for class in [&negative, &positive] {
                resampled.extend((0..class.len()).map(|_| class[rng.random_range(0..class.len())]));
            }
            area_under_curve(&resampled_labels, &resampled)
        })
    }

    /// Percentile interval of [`spearman`] over resampled pairs; resamples without spread are drawn again.
    ///
    /// # Errors
    /// As [`spearman`]; [`TrainError::Setting`] for no resamples or a confidence outside 0 to 1.
    pub fn spearman(&self, truth: &[f64], predictions: &[f64]) -> Result<Estimate> {
        let value = spearman(truth, predictions)?;
        self.interval(value, |rng| {
            loop {
                let picks: Vec<usize> = (0..truth.len())
                    .map(|_| rng.random_range(0..truth.len()))
                    .collect();
                let pick = |values: &[f64]| -> Vec<f64> {
                    picks.iter().map(|&index| values[index]).collect()
                };
                if let Ok(value) = spearman(&pick(truth), &pick(predictions)) {
                    return Ok(value);
                }
            }
        })
    }

    /// Percentile interval of [`accuracy`] over resampled examples.
    ///
    /// # Errors
    /// As [`accuracy`]; [`TrainError::Setting`] for no resamples or a confidence outside 0 to 1.
    pub fn accuracy(&self, truth: &[usize], predictions: &[usize]) -> Result<Estimate> {
        let value = accuracy(truth, predictions)?;
        self.interval(value, |rng| {
            let right = (0..truth.len()).filter(|_| {
                let pick = rng.random_range(0..truth.len());
                truth[pick] == predictions[pick]
            });
            Ok(count(right.count()) / count(truth.len()))
        })
    }

    fn interval(
        &self,
        value: f64,
        mut resample: impl FnMut(&mut ChaCha8Rng) -> Result<f64>,
    ) -> Result<Estimate> {
        if self.resamples == 0 || !(0.0..1.0).contains(&self.confidence) {
            return Err(TrainError::setting(
                "bootstrap",
                "one resample or more and a confidence from 0 to below 1",
                format!("{} and {}", self.resamples, self.confidence),
            ));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut values = (0..self.resamples)
            .map(|_| resample(&mut rng))
            .collect::<Result<Vec<_>>>()?;
        values.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        Ok(Estimate {
            value,
            low: quantile(&values, tail),
            high: quantile(&values, 1.0 - tail),
        })
    }
}

/// Quantile of sorted values, with linear interpolation between them (NumPy's default).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the place is clamped to the slice"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len() - 1;
    let place = (share * count(last)).clamp(0.0, count(last));
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
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

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of slides are far below 2^53"
)]
fn count(value: usize) -> f64 {
    value as f64
}

fn check_pairs(metric: &'static str, expected: usize, scores: &[f64]) -> Result<()> {
    if scores.len() != expected {
        return Err(TrainError::Metric {
            metric,
            expected: "as many predictions as labels",
            found: format!("{} predictions and {expected} labels", scores.len()),
        });
    }
    match scores.iter().position(|score| score.is_nan()) {
        None => Ok(()),
        Some(place) => Err(TrainError::Metric {
            metric,
            expected: "numbers",
            found: format!("NaN at place {place}"),
        }),
    }
}

fn check_classes(metric: &'static str, truth: &[usize], predictions: &[usize]) -> Result<()> {
    if truth.is_empty() || truth.len() != predictions.len() {
        return Err(TrainError::Metric {
            metric,
            expected: "one prediction or more, and as many labels",
            found: format!(
                "{} predictions and {} labels",
                predictions.len(),
                truth.len()
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half() {
        assert_eq!(area_under_curve(&[true, false], &[0.5, 0.5]).unwrap(), 0.5);
        assert_eq!(
            area_under_curve(&[true, false, true], &[0.5, 0.5, 0.9]).unwrap(),
            0.75
        );
        assert_eq!(
            area_under_curve(&[true, false, true], &[-3.0, 2.0, -9.0]).unwrap(),
            0.0
        );
    }

    #[test]
    fn one_class_and_nan_are_refused() {
        let error = area_under_curve(&[true, true], &[0.1, 0.2])
            .unwrap_err()
            .to_string();
        assert!(error.contains("2 positive and 0 negative"), "{error}");
        let error = area_under_curve(&[true, false], &[0.1, f64::NAN])
            .unwrap_err()
            .to_string();
        assert!(error.contains("NaN at place 1"), "{error}");
        assert!(area_under_curve(&[true], &[0.1, 0.2]).is_err());
    }

    /// scikit-learn 1.9.1 and SciPy: see `tests/golden/metrics.py`.
    #[test]
    fn agrees_with_scikit_learn() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/golden/metrics.json")).unwrap();
        for case in golden["area_under_curve"].as_array().unwrap() {
            let labels: Vec<bool> = case["labels"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_u64() == Some(1))
                .collect();
            let scores = numbers(&case["scores"]);
            let expected = case["value"].as_f64().unwrap();
            assert!((area_under_curve(&labels, &scores).unwrap() - expected).abs() < 1e-14);
        }
        for case in golden["spearman"].as_array().unwrap() {
            let value = spearman(&numbers(&case["truth"]), &numbers(&case["predictions"])).unwrap();
            assert!((value - case["value"].as_f64().unwrap()).abs() < 1e-14);
        }
    }

    fn numbers(value: &serde_json::Value) -> Vec<f64> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect()
    }

    #[test]
    fn interval_holds_the_value_and_repeats() {
        let labels: Vec<bool> = (0..60).map(|i| i % 2 == 0).collect();
        let scores: Vec<f64> = (0..60)
            .map(|i| f64::from(i * 37 % 60) + if i % 2 == 0 { 20.0 } else { 0.0 })
            .collect();
        let bootstrap = Bootstrap {
            resamples: 500,
            ..Bootstrap::default()
        };
        let estimate = bootstrap.area_under_curve(&labels, &scores).unwrap();
        assert!(
            estimate.low < estimate.value && estimate.value < estimate.high,
            "{estimate:?}"
        );
        assert_eq!(
            estimate,
            bootstrap.area_under_curve(&labels, &scores).unwrap()
        );
        let other = Bootstrap {
            seed: 1,
            ..bootstrap
        }
        .area_under_curve(&labels, &scores)
        .unwrap();
        assert_ne!(estimate, other);
    }

    /// The interval of a perfect separation has no width; of a normal approximation (Hanley and McNeil 1982) it is close.
    #[test]
    fn interval_has_the_right_width() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let labels: Vec<bool> = (0..400).map(|i| i % 2 == 0).collect();
        let scores: Vec<f64> = labels
            .iter()
            .map(|label| rng.random::<f64>() + if *label { 0.3 } else { 0.0 })
            .collect();
        let estimate = Bootstrap::default()
            .area_under_curve(&labels, &scores)
            .unwrap();
        let area = estimate.value;
        let (q1, q2) = (area / (2.0 - area), 2.0 * area * area / (1.0 + area));
        let variance =
            (area * (1.0 - area) + 199.0 * (q1 - area * area) + 199.0 * (q2 - area * area))
                / 40_000.0;
        let width = (estimate.high - estimate.low) / (2.0 * 1.96 * variance.sqrt());
        assert!((0.85..1.15).contains(&width), "{estimate:?}, {width}");
    }

    #[test]
    fn confusion_and_accuracy_by_hand() {
        let (truth, predictions) = ([0, 1, 2, 1, 0], [0, 2, 2, 1, 1]);
        assert_eq!(
            confusion(&truth, &predictions, 3).unwrap(),
            [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
        );
        assert!((accuracy(&truth, &predictions).unwrap() - 0.6).abs() < 1e-15);
        assert!(confusion(&truth, &predictions, 2).is_err());
        assert!(accuracy(&[], &[]).is_err());
    }

    #[test]
    fn spearman_without_spread_is_refused() {
        assert!(spearman(&[1.0, 1.0], &[1.0, 2.0]).is_err());
        assert!((spearman(&[1.0, 2.0, 3.0], &[9.0, 4.0, 1.0]).unwrap() + 1.0).abs() < 1e-15);
    }

    #[test]
    fn quantiles_interpolate() {
        assert!((quantile(&[0.0, 1.0, 2.0], 0.25) - 0.5).abs() < 1e-15);
        assert!((quantile(&[4.0], 0.9) - 4.0).abs() < 1e-15);
    }
}
