//! Where the numbers of an axis stand, and how they are written.

use super::{Axis, Scale};

/// About as many numbers stand on an axis.
const MANY: f64 = 6.0;
/// More do not.
const MOST: usize = 10;

impl Axis {
    /// The values at which numbers stand: two or more, but on an axis of whole numbers that holds one.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let (low, high) = (self.low, self.high);
        let step = round_step((high - low) / MANY);
        match self.scale {
            Scale::Linear => multiples(step, low, high),
            Scale::Whole => multiples(step.max(1.0).round(), low, high),
            Scale::Log => {
                let ticks = of_decades(&[1.0, 2.0, 5.0], low, high);
                let decades = of_decades(&[1.0], low, high);
                if ticks.len() < 2 {
                    multiples(step, low, high)
                } else if ticks.len() <= MOST {
                    ticks
                } else {
                    let every = decades.len().div_ceil(MOST).max(1);
                    decades.into_iter().step_by(every).collect()
                }
            }
        }
    }

    /// A number of the axis.
    pub(super) fn label(&self, value: f64) -> String {
        match self.scale {
            Scale::Linear => linear_label(value, self.high - self.low),
            Scale::Whole => format!("{value:.0}"),
            Scale::Log => plain_label(value),
        }
    }
}

/// The least of 1, 2 and 5 times a power of ten that is no less than `step`, or a little less.
fn round_step(step: f64) -> f64 {
    if !(step.is_finite() && step > 0.0) {
        return 1.0;
    }
    let decade = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * decade >= step * 0.8);
    factor.unwrap_or(10.0) * decade
}

/// Whole multiples of `step` from `low` to `high`.
fn multiples(step: f64, low: f64, high: f64) -> Vec<f64> {
    let first = (low / step).ceil();
    let mut ticks = Vec::new();
    for place in 0_u8..20 {
        let value = (first + f64::from(place)) * step;
        if value > high {
            break;
        }
        if value.is_finite() && value >= low && ticks.last() != Some(&value) {
            ticks.push(value);
        }
    }
    ticks
}

/// `factors` times powers of ten from `low` to `high`.
fn of_decades(factors: &[f64], low: f64, high: f64) -> Vec<f64> {
    let exponents = -310..=308;
    let all = exponents.flat_map(|exponent| {
        let decade = 10_f64.powi(exponent);
        factors.iter().map(move |factor| factor * decade)
    });
    all.filter(|value| (low..=high).contains(value)).collect()
}

/// A number on a linear axis of that span, with the decimals that its steps need.
fn linear_label(value: f64, span: f64) -> String {
    if value != 0.0 && !(1e-3..1e6).contains(&span) {
        return format!("{value:.1e}");
    }
    // As many for all numbers of the axis, but never so few that a number is rounded.
    let step = span / MANY;
    let is_fine = |decimals: i32| step * 10_f64.powi(decimals) >= 0.55;
    let is_exact = |decimals: i32| {
        let scaled = value * 10_f64.powi(decimals);
        (scaled - scaled.round()).abs() < 1e-6 * span * 10_f64.powi(decimals)
    };
    let decimals = (0..9).find(|decimals| is_fine(*decimals) && is_exact(*decimals));
    let text = format!(
        "{value:.*}",
        usize::try_from(decimals.unwrap_or(9)).unwrap_or(0)
    );
    if text
        .trim_start_matches('-')
        .chars()
        .all(|c| c == '0' || c == '.')
    {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// A number above 0, whatever its size.
fn plain_label(value: f64) -> String {
    if (1e-3..1e6).contains(&value) {
        format!("{}", (value * 1e9).round() / 1e9)
    } else {
        format!("{value:.0e}")
    }
}

/// A number on a logarithmic axis whose ticks are not chosen here; those between 1, 2 and 5 of a decade have none, for they would
/// stand in each other's way.
pub(in crate::report) fn log_label(value: f64) -> String {
    let decade = 10_f64.powf(value.log10().floor());
    let first = (value / decade).round();
    if [1.0, 2.0, 5.0, 10.0].contains(&first) {
        plain_label(value)
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_numbers_stand_on_an_axis_that_is_not_ours() {
        let values = [0.1, 0.3, 0.5, 1.0, 2.0, 9.0, 10.0, 20.0, 70.0, 500.0];
        let labels = values.map(log_label);
        let expected = ["0.1", "", "0.5", "1", "2", "", "10", "20", "", "500"];
        assert_eq!(labels, expected);
    }

    fn labels(axis: &Axis) -> Vec<String> {
        let ticks = axis.ticks();
        ticks.into_iter().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn epochs_are_whole() {
        let epochs = |last: u8| Axis::counting("epoch", (1..=last).map(f64::from));
        assert_eq!(labels(&epochs(1)), ["1"]);
        assert_eq!(labels(&epochs(2)), ["1", "2"]);
        assert_eq!(labels(&epochs(4)), ["1", "2", "3", "4"]);
        assert_eq!(labels(&epochs(12)), ["2", "4", "6", "8", "10", "12"]);
        assert_eq!(labels(&epochs(20)), ["5", "10", "15", "20"]);
    }

    #[test]
    fn logarithmic_axes_have_numbers_however_narrow_they_are() {
        let log = |low, high| Axis {
            scale: Scale::Log,
            ..Axis::fixed("norm", low, high)
        };
        assert_eq!(labels(&log(0.8, 6.0)), ["1", "2", "5"]);
        assert_eq!(
            labels(&log(3.1, 4.2)),
            ["3.2", "3.4", "3.6", "3.8", "4", "4.2"]
        );
        let wide = labels(&log(1e-7, 1e3));
        assert_eq!((wide[0].as_str(), wide.len() <= MOST), ("1e-7", true));
    }

    proptest! {
        #[test]
        fn any_axis_has_a_few_different_numbers(
            middle in -1e6_f64..1e6,
            exponent in -4_i32..9,
            ratio in 1.1_f64..1e6,
        ) {
            let half = 10_f64.powi(exponent);
            let linear = Axis::fixed("x", middle - half, middle + half);
            let log = Axis { scale: Scale::Log, ..Axis::fixed("x", half, half * ratio) };
            for axis in [linear, log] {
                let ticks = axis.ticks();
                prop_assert!((2..=14).contains(&ticks.len()), "{ticks:?} on {axis:?}");
                prop_assert!(ticks.iter().all(|tick| (axis.low..=axis.high).contains(tick)));
                prop_assert!(ticks.is_sorted());
            }
        }
    }
}
