//! Percentiles, means and deviations.

use crate::numbers::{float, to_usize, whole, wide};

/// The percentile (0 to 100) of `values`, linear between neighbours as NumPy computes it. Reorders the values.
pub(super) fn percentile(values: &mut [f64], percent: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let last = u32::try_from(last).ok()?;
    let place = percent / 100.0 * f64::from(last);
    let below = to_usize(whole(place.clamp(0.0, f64::from(last))));
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Some(low + (high - low) * (place - place.floor()))
}

/// Mean and standard deviation (of the population) of each channel.
pub(super) fn moments(values: &[[f64; 3]]) -> ([f64; 3], [f64; 3]) {
    let count = float(wide(values.len())).max(1.0);
    let mut mean = [0.0; 3];
    for value in values {
        for (mean, value) in mean.iter_mut().zip(value) {
            *mean += value / count;
        }
    }
    let mut variance = [0.0; 3];
    for value in values {
        for ((variance, value), mean) in variance.iter_mut().zip(value).zip(mean) {
            *variance += (value - mean) * (value - mean) / count;
        }
    }
    (mean, variance.map(f64::sqrt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_linear_between_neighbours() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        for (percent, expected) in [(0.0, 1.0), (50.0, 2.5), (99.0, 3.97), (100.0, 4.0)] {
            let found = percentile(&mut values, percent).unwrap();
            assert!((found - expected).abs() < 1e-12, "{percent}: {found}");
        }
        assert_eq!(percentile(&mut [], 50.0), None);
        assert_eq!(percentile(&mut [7.0], 99.0), Some(7.0));
    }

    #[test]
    fn moments_are_those_of_the_population() {
        let (mean, deviation) = moments(&[[1.0, 0.0, 5.0], [3.0, 0.0, 9.0]]);
        assert_eq!((mean, deviation), ([2.0, 0.0, 7.0], [1.0, 0.0, 2.0]));
    }
}
