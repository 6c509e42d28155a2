//! Running statistics of pooled features, constants to the gradient.

use candle_core::{DType, Tensor, Var};
use candle_nn::VarBuilder;

use crate::error::{ModelError, Result};

/// Running mean and variance of each pooled feature, and how often they were updated.
#[derive(Debug, Clone)]
pub(super) struct RunningStatistics {
    mean: Tensor,
    variance: Tensor,
    updates: Tensor,
    momentum: f64,
    epsilon: f64,
    prefix: String,
}

impl RunningStatistics {
    pub(super) fn new(
        inputs: usize,
        momentum: f64,
        epsilon: f64,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        if !(momentum > 0.0 && momentum <= 1.0) {
            return Err(ModelError::Setting {
                setting: "least weight of running statistics",
                expected: "a number above 0 and not above 1",
                found: momentum.to_string(),
            });
        }
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(ModelError::Setting {
                setting: "epsilon of running statistics",
                expected: "a finite number above 0",
                found: epsilon.to_string(),
            });
        }
        Ok(Self {
            mean: vb.get_with_hints(inputs, "running_mean", candle_nn::init::ZERO)?,
            variance: vb.get_with_hints(inputs, "running_var", candle_nn::init::ONE)?,
            updates: vb.get_with_hints(1, "updates", candle_nn::init::ZERO)?,
            momentum,
            epsilon,
            prefix: vb.prefix(),
        })
    }

    /// Number of updates so far.
    pub(super) fn updates(&self) -> Result<f64> {
        Ok(self.updates.to_dtype(DType::F64)?.get(0)?.to_scalar()?)
    }

    /// `(x - mean) / sqrt(variance + epsilon)`.
    pub(super) fn standardise(&self, pooled: &Tensor) -> Result<Tensor> {
        let deviation = (self.variance.detach() + self.epsilon)?.sqrt()?;
        Ok(pooled
            .broadcast_sub(&self.mean.detach())?
            .broadcast_div(&deviation)?)
    }

    /// Moves the statistics towards those of the finite rows of `group`, each `[N, P]`; returns how many there were.
    pub(super) fn update(&self, group: &[Tensor]) -> Result<usize> {
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for pooled in group {
            rows.extend(pooled.to_dtype(DType::F64)?.to_vec2::<f64>()?);
        }
        rows.retain(|row| row.iter().all(|value| value.is_finite()));
        if rows.is_empty() {
            return Ok(0);
        }
        let updates = self.updates()?;
        let weight = (1.0 / (updates + 1.0)).max(self.momentum);
        let mut means = self.mean.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let mut variances = self.variance.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        for (index, (mean, variance)) in means.iter_mut().zip(&mut variances).enumerate() {
            let column = || rows.iter().map(|row| row[index]);
            let group_mean = average(column(), rows.len());
            let group_variance = if updates > 0.0 {
                Some(average(
                    column().map(|value| (value - *mean).powi(2)),
                    rows.len(),
                ))
            } else {
                first_variance(
                    column().map(|value| (value - group_mean).powi(2)),
                    rows.len(),
                )
            };
            *mean += weight * (group_mean - *mean);
            *variance += group_variance.map_or(0.0, |group| weight * (group - *variance));
        }
        let store = [
            (self.variable(&self.mean, "running_mean")?, means),
            (self.variable(&self.variance, "running_var")?, variances),
            (
                self.variable(&self.updates, "updates")?,
                vec![updates + 1.0],
            ),
        ];
        for (variable, values) in store {
            let values = Tensor::new(values, variable.device())?;
            variable.set(&values.to_dtype(variable.dtype())?)?;
        }
        Ok(rows.len())
    }

    fn variable(&self, tensor: &Tensor, name: &str) -> Result<Var> {
        if tensor.is_variable() {
            // Of a variable's tensor this makes the variable itself, not a copy.
            return Ok(Var::from_tensor(tensor)?);
        }
        let dot = if self.prefix.is_empty() { "" } else { "." };
        Err(ModelError::NotVariable {
            name: format!("{}{dot}{name}", self.prefix),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "groups are far below 2^53 rows")]
fn average(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    values.sum::<f64>() / count as f64
}

/// The unbiased variance from squared deviations, which one row cannot tell.
fn first_variance(squares: impl Iterator<Item = f64>, count: usize) -> Option<f64> {
    (count > 1).then(|| average(squares, count - 1))
}
