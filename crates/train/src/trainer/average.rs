//! Exponential moving averages of weights.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use crate::error::{Result, TrainError};
use crate::gradients::NamedVariables;
use crate::in_place::update;

/// Averages of the trainable weights over the steps of a run (Polyak and Juditsky 1992, with exponential weights).
///
/// The decay warms up as in TensorFlow's `ExponentialMovingAverage`: of step `n`, from 1, it is at most `(1 + n) / (10 + n)`, so
/// that the weights that the run began with are soon forgotten.
#[derive(Debug, Clone)]
pub(super) struct Average {
    decay: f64,
    steps: u64,
    weights: BTreeMap<String, Tensor>,
}

impl Average {
    /// Averages that begin with the weights as they are.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    pub(super) fn new(decay: f64, variables: &NamedVariables) -> Result<Self> {
        // A variable's own tensor changes with it.
        let copy = |(name, variable): &(String, Var)| Ok((name.clone(), variable.copy()?));
        Ok(Self {
            decay,
            steps: 0,
            weights: variables.iter().map(copy).collect::<Result<_>>()?,
        })
    }

    /// What a checkpoint kept.
    ///
    /// # Errors
    /// [`TrainError::State`] for tensors that are not those of the variables.
    pub(super) fn stored(
        decay: f64,
        variables: &NamedVariables,
        steps: u64,
        weights: BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        for (name, variable) in variables {
            let found = weights.get(name);
            if found.map(Tensor::dims) != Some(variable.dims()) {
                return Err(TrainError::State {
                    name: format!("ema.{name}"),
                    expected: format!("{:?}", variable.dims()),
                    found: found.map_or_else(
                        || "nothing of that name".to_owned(),
                        |tensor| format!("{:?}", tensor.dims()),
                    ),
                });
            }
        }
        Ok(Self {
            decay,
            steps,
            weights,
        })
    }

    /// Takes in the weights after a step.
    pub(super) fn update(&mut self, variables: &NamedVariables) -> Result<()> {
        self.steps = self.steps.saturating_add(1);
        #[expect(clippy::cast_precision_loss, reason = "steps are far below 2^53")]
        let step = self.steps as f64;
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        for (name, variable) in variables {
            if let Some(mean) = self.weights.get(name) {
                update(mean, variable, |mean, value| {
                    decay * mean + (1.0 - decay) * value
                })?;
            }
        }
        Ok(())
    }

    /// Steps so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// The averages.
    pub(super) fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// The recurrence in plain numbers.
    #[test]
    fn averages_warm_up_and_then_decay() {
        let variable = Var::new(&[1.0_f64], &Device::Cpu).unwrap();
        let variables = vec![("a".to_owned(), variable.clone())];
        let mut average = Average::new(0.5, &variables).unwrap();
        let mut expected = 1.0;
        for step in 1..=20_u32 {
            let value = f64::from(step * step);
            variable
                .set(&Tensor::new(&[value], &Device::Cpu).unwrap())
                .unwrap();
            average.update(&variables).unwrap();
            let decay = f64::min(0.5, f64::from(1 + step) / f64::from(10 + step));
            expected = decay * expected + (1.0 - decay) * value;
            let found = average.weights()["a"].to_vec1::<f64>().unwrap()[0];
            assert!((found - expected).abs() < 1e-12, "{step}");
        }
        assert_eq!(average.steps(), 20);

        let stored = average.weights().clone();
        let again = Average::stored(0.5, &variables, 20, stored).unwrap();
        assert_eq!(again.steps(), 20);
        let error = Average::stored(0.5, &variables, 20, BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("ema.a"), "{error}");
    }
}
