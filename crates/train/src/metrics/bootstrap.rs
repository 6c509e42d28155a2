//! Intervals by resampling.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::count;
use crate::error::{Result, TrainError};

/// A metric with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The metric on all examples.
    pub value: f64,
    /// Lower end of the interval; NaN if no resample had a metric.
    #[serde(deserialize_with = "nan_for_null")]
    pub low: f64,
    /// Upper end of the interval; NaN if no resample had a metric.
    #[serde(deserialize_with = "nan_for_null")]
    pub high: f64,
    /// Resamples that were dropped, since the metric has no meaning on them: those of one class, say.
    #[serde(default)]
    pub dropped: usize,
}

/// JSON has no NaN: one is written as null.
fn nan_for_null<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Three decimals: `0.860 (0.800 to 0.914)`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.value)?;
        if self.low.is_nan() || self.high.is_nan() {
            write!(f, " (no interval)")
        } else {
            write!(f, " ({:.3} to {:.3})", self.low, self.high)
        }
    }
}

/// A curve's interval, point by point.
#[derive(Debug, Clone, PartialEq)]
pub struct Band {
    /// Lower ends; NaN if no resample had a curve.
    pub low: Vec<f64>,
    /// Upper ends; NaN if no resample had a curve.
    pub high: Vec<f64>,
    /// Resamples that were dropped.
    pub dropped: usize,
}

/// Examples that are drawn together, since they are not independent: the slides of one patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups(Vec<Vec<usize>>);

impl Groups {
    /// Examples of equal keys are one group.
    ///
    /// ```
    /// use stream_grad_train::metrics::Groups;
    /// assert_eq!(Groups::new(["p1", "p2", "p1"]).len(), 2);
    /// ```
    pub fn new<K: Ord>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
        for (index, key) in keys.into_iter().enumerate() {
            groups.entry(key).or_default().push(index);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        // By their first examples, so that other names of patients give the same resamples.
        groups.sort_unstable();
        Self(groups)
    }

    /// Slides, each with its patient where one is known: those of a patient are one group, and a slide without a patient is one by
    /// itself.
    pub fn by_patient<'a>(slides: impl IntoIterator<Item = (Option<&'a str>, &'a Path)>) -> Self {
        Self::new(slides.into_iter().map(|(patient, slide)| match patient {
            Some(patient) => (Some(patient), None),
            None => (None, Some(slide)),
        }))
    }

    /// Number of groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of examples.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// As many groups as there are, drawn with replacement: the places of their examples.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        (0..self.0.len())
            .flat_map(|_| self.0[rng.random_range(0..self.0.len())].iter().copied())
            .collect()
    }
}

/// How to draw a bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bootstrap {
    /// Number of resamples, 1 or more. By default 2000, with which the ends of an interval of 95% vary by a few thousandths.
    pub resamples: usize,
    /// Share of resamples inside the interval, from 0 to below 1. By default 0.95, as is usual.
    pub confidence: f64,
    /// Seed of the resampling, any whole number.
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
    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for no resamples or a confidence outside 0 to below 1.
    pub fn check(&self) -> Result<()> {
        if self.resamples == 0 || !(0.0..1.0).contains(&self.confidence) {
            return Err(TrainError::setting(
                "bootstrap",
                "one resample or more and a confidence from 0 to below 1",
                format!("{} and {}", self.resamples, self.confidence),
            ));
        }
        Ok(())
    }

    /// `metric` on all examples, and its percentile interval over resampled groups.
    ///
    /// `metric` takes the places of the examples that count, some of them several times. Resamples that it refuses with
    /// [`TrainError::Metric`], such as those of one class, are dropped and counted: the interval is that of a set with both
    /// classes.
    ///
    /// # Errors
    /// As `metric` on all examples; any other error than [`TrainError::Metric`]; as [`check`](Self::check).
    ///
    /// # Examples
    /// ```
    /// use stream_grad_train::metrics::{Bootstrap, Groups, mean_absolute_error};
    /// let (truth, predictions) = ([1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 2.0, 4.0]);
    /// let pick = |values: &[f64], places: &[usize]| places.iter().map(|&i| values[i]).collect::<Vec<_>>();
    /// let patients = Groups::new(["a", "a", "b", "c"]);
    /// let error = Bootstrap::default().estimate(&patients, |places| {
    ///     mean_absolute_error(&pick(&truth, places), &pick(&predictions, places))
    /// })?;
    /// assert_eq!(error.value, 0.375);
    /// assert!(error.low <= error.value && error.value <= error.high && error.dropped == 0);
    /// # Ok::<(), stream_grad_train::TrainError>(())
    /// ```
    pub fn estimate(
        &self,
        groups: &Groups,
        metric: impl Fn(&[usize]) -> Result<f64>,
    ) -> Result<Estimate> {
        let everything: Vec<usize> = (0..groups.examples()).collect();
        let value = metric(&everything)?;
        let band = self.band(groups, |places| Ok(vec![metric(places)?]))?;
        Ok(Estimate {
            value,
            low: band.low.first().copied().unwrap_or(f64::NAN),
            high: band.high.first().copied().unwrap_or(f64::NAN),
            dropped: band.dropped,
        })
    }

    /// The percentile interval of each value of `curve`, which gives as many for every resample; otherwise as
    /// [`estimate`](Self::estimate). Empty if no resample has a curve.
    ///
    /// # Errors
    /// Any error of `curve` but [`TrainError::Metric`]; as [`check`](Self::check).
    pub fn band(
        &self,
        groups: &Groups,
        curve: impl Fn(&[usize]) -> Result<Vec<f64>>,
    ) -> Result<Band> {
        self.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let (mut points, mut dropped): (Vec<Vec<f64>>, _) = (Vec::new(), 0);
        for _ in 0..self.resamples {
            match curve(&groups.draw(&mut rng)) {
                Ok(values) => {
                    points.resize(values.len().max(points.len()), Vec::new());
                    for (point, value) in points.iter_mut().zip(values) {
                        point.push(value);
                    }
                }
                Err(TrainError::Metric { .. }) => dropped += 1,
                Err(error) => return Err(error),
            }
        }
        let tail = (1.0 - self.confidence) / 2.0;
        points
            .iter_mut()
            .for_each(|values| values.sort_by(f64::total_cmp));
        let ends = |share| {
            points
                .iter()
                .map(|values| quantile(values, share))
                .collect()
        };
        Ok(Band {
            low: ends(tail),
            high: ends(1.0 - tail),
            dropped,
        })
    }
}

/// Quantile of one sorted value or more, with linear interpolation between them (NumPy's default).
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

#[cfg(test)]
mod tests {
    use super::super::{accuracy_score, roc_auc_score};
    use super::*;

    fn picked<T: Copy>(values: &[T], places: &[usize]) -> Vec<T> {
        places.iter().map(|&place| values[place]).collect()
    }

    #[test]
    fn interval_holds_the_value_and_repeats() {
        let labels: Vec<bool> = (0..40).map(|index| index % 2 == 0).collect();
        let scores: Vec<f64> = (0..40).map(|index| f64::from(index * 7 % 11)).collect();
        let slides = Groups::new(0..40);
        let auc =
            |places: &[usize]| roc_auc_score(&picked(&labels, places), &picked(&scores, places));
        let estimate = Bootstrap::default().estimate(&slides, auc).unwrap();
        assert_eq!(estimate.value, roc_auc_score(&labels, &scores).unwrap());
        assert!(estimate.low < estimate.value && estimate.value < estimate.high);
        assert_eq!(
            Bootstrap::default().estimate(&slides, auc).unwrap(),
            estimate
        );
        let other = Bootstrap {
            seed: 1,
            ..Bootstrap::default()
        };
        assert_ne!(other.estimate(&slides, auc).unwrap(), estimate);
    }

    /// The share of successes of n independent examples is binomial: its deviation is known.
    #[test]
    fn interval_has_the_width_of_a_binomial() {
        let truth = vec![0_usize; 400];
        let predictions: Vec<usize> = (0..400).map(|index| usize::from(index % 4 == 0)).collect();
        let accuracy = |places: &[usize]| {
            accuracy_score(&picked(&truth, places), &picked(&predictions, places))
        };
        let estimate = Bootstrap::default()
            .estimate(&Groups::new(0..400), accuracy)
            .unwrap();
        let expected = 2.0 * 1.96 * (0.25_f64 * 0.75 / 400.0).sqrt();
        assert!((estimate.high - estimate.low - expected).abs() < 0.1 * expected);
        // Four equal slides of a patient are no more than one: the interval doubles.
        let patients = Groups::new((0..400).map(|index| index % 100));
        let estimate = Bootstrap::default().estimate(&patients, accuracy).unwrap();
        assert!((estimate.high - estimate.low - 2.0 * expected).abs() < 0.2 * expected);
    }

    /// Two patients of a class each: a resample has one class with probability one half.
    #[test]
    fn resamples_of_one_class_are_dropped_and_counted() {
        let labels = [false, false, true];
        let scores = [0.1, 0.2, 0.9];
        let patients = Groups::new(["a", "a", "b"]);
        let estimate = Bootstrap::default()
            .estimate(&patients, |places| {
                roc_auc_score(&picked(&labels, places), &picked(&scores, places))
            })
            .unwrap();
        assert_eq!(
            (estimate.value, estimate.low, estimate.high),
            (1.0, 1.0, 1.0)
        );
        assert!(
            (900..1100).contains(&estimate.dropped),
            "{}",
            estimate.dropped
        );
    }

    #[test]
    fn an_estimate_without_interval_is_said_and_survives_json() {
        let only_all = |places: &[usize]| {
            if places == [0, 1, 2] {
                return Ok(0.5);
            }
            Err(TrainError::Metric {
                metric: "none",
                expected: "all",
                found: String::new(),
            })
        };
        let bootstrap = Bootstrap {
            resamples: 1,
            seed: 3,
            ..Bootstrap::default()
        };
        let estimate = bootstrap.estimate(&Groups::new(0..3), only_all).unwrap();
        assert_eq!(
            (estimate.dropped, estimate.to_string().as_str()),
            (1, "0.500 (no interval)")
        );
        let json = serde_json::to_string(&estimate).unwrap();
        let read: Estimate = serde_json::from_str(&json).unwrap();
        assert!(read.low.is_nan() && read.high.is_nan() && read.value == 0.5);
        let read: Estimate =
            serde_json::from_str(r#"{"value":0.5,"low":0.25,"high":0.75}"#).unwrap();
        assert_eq!(read.to_string(), "0.500 (0.250 to 0.750)");
    }

    #[test]
    fn names_of_patients_do_not_matter() {
        assert_eq!(Groups::new(["b", "a", "b"]), Groups::new(["x", "y", "x"]));
        assert!(Groups::new(Vec::<u8>::new()).is_empty());
        // A slide that is called as a patient is not that patient's.
        let slides = [
            (Some("p"), Path::new("a")),
            (None, Path::new("p")),
            (Some("p"), Path::new("b")),
        ];
        assert_eq!(Groups::by_patient(slides), Groups::new([0, 1, 0]));
    }

    #[test]
    fn errors_of_all_examples_and_of_settings_are_given() {
        let none = Bootstrap {
            resamples: 0,
            ..Bootstrap::default()
        };
        let two = Groups::new(0..2);
        let refused = |bootstrap: &Bootstrap| {
            let estimate = bootstrap.estimate(&two, |_| Ok(1.0));
            estimate.unwrap_err().to_string()
        };
        let told = "setting `bootstrap`: expected one resample or more and a confidence from 0 to below 1, found";
        assert_eq!(refused(&none), format!("{told} 0 and {}", none.confidence));
        let sure = Bootstrap {
            confidence: 1.0,
            ..Bootstrap::default()
        };
        assert_eq!(refused(&sure), format!("{told} {} and 1", sure.resamples));
        let one_class =
            Bootstrap::default().estimate(&two, |_| roc_auc_score(&[true, true], &[0.0, 1.0]));
        assert!(
            matches!(
                &one_class,
                Err(TrainError::Metric {
                    metric: "roc_auc",
                    ..
                })
            ),
            "{one_class:?}"
        );
    }

    #[test]
    fn quantiles_as_in_numpy() {
        let values = [1.0, 2.0, 4.0, 8.0];
        for (share, expected) in [(0.0, 1.0), (0.5, 3.0), (0.25, 1.75), (1.0, 8.0)] {
            assert_eq!(quantile(&values, share), expected);
        }
    }
}
