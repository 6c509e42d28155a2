//! Learning rates over the steps of a run.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the learning rate changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The peak all along.
    Constant,
    /// Up from `peak / initial_divisor` to the peak and down to a `final_divisor`-th of the start, both along a cosine
    /// (Smith and Topin 2017, as in PyTorch's `OneCycleLR` without cycling momentum).
    OneCycle {
        /// Share of the steps that lead up.
        rising_share: f64,
        /// The peak divided by the first rate.
        initial_divisor: f64,
        /// The first rate divided by the last.
        final_divisor: f64,
    },
}

impl Default for Schedule {
    /// One cycle with PyTorch's defaults.
    fn default() -> Self {
        Self::OneCycle {
            rising_share: 0.3,
            initial_divisor: 25.0,
            final_divisor: 1e4,
        }
    }
}

impl Schedule {
    /// Learning rate of step `step`, from 0, of `total`. Beyond the last step it stays as it is there.
    #[must_use]
    pub fn rate(&self, peak: f64, step: u64, total: u64) -> f64 {
        match *self {
            Self::Constant => peak,
            Self::OneCycle {
                rising_share,
                initial_divisor,
                final_divisor,
            } => {
                let first = peak / initial_divisor;
                let last = first / final_divisor;
                let end = number(total) - 1.0;
                let top = rising_share * number(total) - 1.0;
                let step = number(step).min(end.max(0.0));
                if step <= top {
                    cosine(first, peak, share(step, top))
                } else {
                    cosine(peak, last, share(step - top, end - top))
                }
            }
        }
    }
}

/// Part of `whole`, taken as all where the whole is nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 1.0 }
}

fn cosine(start: f64, end: f64, share: f64) -> f64 {
    end + (start - end) / 2.0 * ((PI * share).cos() + 1.0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of steps are far below 2^53"
)]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_rises_to_the_peak_and_falls() {
        let schedule = Schedule::default();
        let rates: Vec<f64> = (0..100).map(|step| schedule.rate(1.0, step, 100)).collect();
        assert!((rates[0] - 0.04).abs() < 1e-12);
        assert!((rates[29] - 1.0).abs() < 1e-12);
        assert!((rates[99] - 0.04e-4).abs() < 1e-12);
        assert!(rates[..30].windows(2).all(|pair| pair[0] < pair[1]));
        assert!(rates[29..].windows(2).all(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn short_runs_have_finite_rates() {
        for total in 0..6 {
            for step in 0..8 {
                assert!(
                    Schedule::default().rate(1.0, step, total).is_finite(),
                    "{step} of {total}"
                );
            }
        }
    }
}
