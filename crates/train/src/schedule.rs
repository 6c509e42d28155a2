//! Learning rates over the steps of a run.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// How the learning rate changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The peak all along.
    Constant,
    /// Up from `peak / div_factor` to the peak and down to a `final_div_factor`-th of the start, both along a cosine
    /// (Smith and Topin 2017, as in PyTorch's `OneCycleLR` without cycling momentum).
    OneCycle {
        /// Share of the steps that lead up, from 0 to 1. By default 0.3, as in PyTorch.
        #[serde(default = "default_pct_start")]
        pct_start: f64,
        /// The peak divided by the first rate; above 0. By default 25, as in PyTorch.
        #[serde(default = "default_div_factor")]
        div_factor: f64,
        /// The first rate divided by the last; above 0. By default 1e4, as in PyTorch.
        #[serde(default = "default_final_div_factor")]
        final_div_factor: f64,
    },
}

impl Default for Schedule {
    /// One cycle with PyTorch's defaults.
    fn default() -> Self {
        Self::OneCycle {
            pct_start: default_pct_start(),
            div_factor: default_div_factor(),
            final_div_factor: default_final_div_factor(),
        }
    }
}

const fn default_pct_start() -> f64 {
    0.3
}

const fn default_div_factor() -> f64 {
    25.0
}

const fn default_final_div_factor() -> f64 {
    1e4
}

impl Schedule {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self) -> Result<()> {
        let Self::OneCycle {
            pct_start,
            div_factor,
            final_div_factor,
        } = *self
        else {
            return Ok(());
        };
        let illegal = |name: &str, expected, value| {
            TrainError::setting(format!("train.schedule.{name}"), expected, value)
        };
        if !(0.0..=1.0).contains(&pct_start) {
            return Err(illegal("pct_start", "from 0 to 1", pct_start));
        }
        for (name, value) in [
            ("div_factor", div_factor),
            ("final_div_factor", final_div_factor),
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
                pct_start,
                div_factor,
                final_div_factor,
            } => {
                let first = peak / div_factor;
                let last = first / final_div_factor;
                let end = number(total) - 1.0;
                let top = pct_start * number(total) - 1.0;
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
                pct_start: cycle["pct_start"].as_f64().unwrap(),
                div_factor: 25.0,
                final_div_factor: 1e4,
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
        assert!(schedule_error(1.5, 1e4).contains("train.schedule.pct_start"));
        assert!(schedule_error(0.3, 0.0).contains("train.schedule.final_div_factor"));
    }

    fn schedule_error(pct_start: f64, final_div_factor: f64) -> String {
        let schedule = Schedule::OneCycle {
            pct_start,
            div_factor: 25.0,
            final_div_factor,
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
