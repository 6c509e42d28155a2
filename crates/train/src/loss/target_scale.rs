//! The scale of numbers that are learnt.

use serde::{Deserialize, Serialize};

/// Targets are learnt as `(target - mean) / deviation`, whatever their unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetScale {
    /// Mean of the training split's targets.
    pub mean: f64,
    /// Their standard deviation, divided by their number (scikit-learn's `StandardScaler`); more than 0.
    pub deviation: f64,
}

impl Default for TargetScale {
    /// Targets are learnt as they are.
    fn default() -> Self {
        Self {
            mean: 0.0,
            deviation: 1.0,
        }
    }
}

/// Standardised targets are multiples of its inverse.
///
/// A change of the unit of targets changes their standardised values in the last bits, which training would make as large as one
/// likes. Rounded to a grid that is coarse beside the last bits, and fine beside what a network can tell apart, they do not
/// change.
const GRID: f64 = 65_536.0;

impl TargetScale {
    /// Mean and deviation of `targets`; a deviation of 1 where all are alike.
    pub fn of(targets: impl IntoIterator<Item = f64>) -> Self {
        let targets: Vec<f64> = targets.into_iter().collect();
        let largest = targets
            .iter()
            .fold(0.0_f64, |most, target| most.max(target.abs()));
        if largest == 0.0 {
            return Self::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "numbers of slides are small")]
        let count = targets.len() as f64;
        // In units of the largest: no square overflows.
        let mean = targets.iter().map(|target| target / largest).sum::<f64>() / count;
        let squares = targets
            .iter()
            .map(|target| (target / largest - mean).powi(2));
        let deviation = (squares.sum::<f64>() / count).sqrt() * largest;
        // What rounding leaves of targets that are alike is no deviation.
        let is_spread = deviation.is_normal() && deviation > largest * 1e-14;
        Self {
            mean: mean * largest,
            deviation: if is_spread { deviation } else { 1.0 },
        }
    }

    /// A target as it is learnt: in deviations from the mean, rounded to a multiple of 2^-16.
    #[must_use]
    pub fn standardise(self, target: f64) -> f64 {
        (self.standardise_exactly(target) * GRID).round() / GRID
    }

    /// A number in deviations from the mean.
    #[must_use]
    pub fn standardise_exactly(self, number: f64) -> f64 {
        (number - self.mean) / self.deviation
    }

    /// A network's output in the unit of the targets.
    #[must_use]
    pub fn restore(self, output: f64) -> f64 {
        output * self.deviation + self.mean
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `sklearn.preprocessing.StandardScaler` of 1, 2, 3, 6: mean 3, deviation sqrt(3.5).
    #[test]
    fn mean_and_deviation_by_hand() {
        let scale = TargetScale::of([1.0, 2.0, 3.0, 6.0]);
        assert!((scale.mean - 3.0).abs() < 1e-12);
        assert!((scale.deviation - 3.5_f64.sqrt()).abs() < 1e-12);
        assert!((scale.restore(scale.standardise_exactly(6.0)) - 6.0).abs() < 1e-12);
    }

    #[test]
    fn targets_without_spread_keep_their_unit() {
        assert_eq!(TargetScale::of([]), TargetScale::default());
        assert_eq!(TargetScale::of([0.0, 0.0]), TargetScale::default());
        let alike = TargetScale::of([0.1; 7]);
        assert!((alike.mean - 0.1).abs() < 1e-15 && alike.deviation == 1.0);
        let large = TargetScale::of([-1e300, 1e300]);
        assert!((large.deviation / 1e300 - 1.0).abs() < 1e-12 && large.mean.abs() < 1e285);
    }

    proptest! {
        /// Targets in another unit are learnt as the same numbers, but for one step of the grid where a value lies between two.
        #[test]
        fn the_unit_does_not_matter(
            targets in proptest::collection::vec(-3.0..3.0_f64, 2..40),
            mean in -1e4..1e4_f64,
            deviation in 1e-2..1e4_f64,
        ) {
            let plain = TargetScale::of(targets.iter().copied());
            prop_assume!(plain.deviation > 1e-2 && plain.deviation != 1.0);
            let mapped: Vec<f64> = targets.iter().map(|target| target * deviation + mean).collect();
            let scale = TargetScale::of(mapped.iter().copied());
            for (target, mapped) in targets.iter().zip(&mapped) {
                let (a, b) = (plain.standardise(*target), scale.standardise(*mapped));
                prop_assert!((a - b).abs() <= 1.0 / GRID, "{a} {b}");
            }
        }
    }
}
