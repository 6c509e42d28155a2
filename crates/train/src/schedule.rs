//! Learning rates over the steps of a run.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

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
    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self) -> Result<()> {
        let Self::OneCycle {
            rising_share,
            initial_divisor,
            final_divisor,
        } = *self
        else {
            return Ok(());
        };
        let illegal = |name: &str, expected, value| {
            TrainError::setting(format!("train.schedule.{name}"), expected, value)
        };
        if !(0.0..=1.0).contains(&rising_share) {
            return Err(illegal("rising_share", "from 0 to 1", rising_share));
        }
        for (name, value) in [
            ("initial_divisor", initial_divisor),
            ("final_divisor", final_divisor),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(illegal(name, "a finite number above 0", value));
            }
        }
        Ok(())
    }

    /// Learning rate of step `step`, from 0, of `total`. Beyond the last step it stays as it is there. Where the rise would
    /// end at step 0 exactly, where PyTorch divides by zero, it begins at the peak.
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

    /// PyTorch 2.15: see `tests/golden/optimizers.py`.
    #[test]
    fn one_cycle_agrees_with_torch() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/golden/optimizers.json")).unwrap();
        for cycle in golden["one_cycle"].as_array().unwrap() {
            let schedule = Schedule::OneCycle {
                rising_share: cycle["rising_share"].as_f64().unwrap(),
                initial_divisor: 25.0,
                final_divisor: 1e4,
            };
            schedule.check().unwrap();
            let total = cycle["total"].as_u64().unwrap();
            for (step, expected) in (0..).zip(cycle["rates"].as_array().unwrap()) {
                let (found, expected) =
                    (schedule.rate(1.0, step, total), expected.as_f64().unwrap());
                assert!(
                    (found - expected).abs() < 1e-15,
                    "{step} of {cycle}: {found}"
                );
            }
        }
        assert!(schedule_error(1.5, 1e4).contains("train.schedule.rising_share"));
        assert!(schedule_error(0.3, 0.0).contains("train.schedule.final_divisor"));
    }

    fn schedule_error(rising_share: f64, final_divisor: f64) -> String {
        let schedule = Schedule::OneCycle {
            rising_share,
            initial_divisor: 25.0,
            final_divisor,
        };
        schedule.check().unwrap_err().to_string()
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
