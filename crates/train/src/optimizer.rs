//! AdamW and SGD with momentum over candle variables, with a state that can be saved.

use std::collections::HashMap;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::gradients::{Gradients, NamedVariables};

/// Which rule makes a step of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`.
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the mean of the gradients.
        first_decay: f64,
        /// Decay of the mean of their squares.
        second_decay: f64,
        /// Added to the root of the mean of the squares.
        epsilon: f64,
        /// Share of the learning rate by which a weight shrinks in each step.
        weight_decay: f64,
    },
    /// Gradient descent with momentum, as `torch.optim.SGD`.
    Sgd {
        /// Decay of the velocity; zero for none.
        momentum: f64,
        /// Multiple of the weight that is added to its gradient.
        weight_decay: f64,
    },
}

impl Default for OptimizerKind {
    fn default() -> Self {
        Self::AdamW {
            first_decay: 0.9,
            second_decay: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-2,
        }
    }
}

/// An optimiser: a rule, the variables it changes, and its state.
#[derive(Debug)]
pub struct Optimizer {
    kind: OptimizerKind,
    variables: Vec<State>,
    steps: u64,
}

#[derive(Debug)]
struct State {
    name: String,
    variable: Var,
    /// Mean of gradients, or velocity.
    first: Option<Tensor>,
    /// Mean of squares.
    second: Option<Tensor>,
}

impl Optimizer {
    /// An optimiser that has not made a step yet.
    #[must_use]
    pub fn new(kind: OptimizerKind, variables: NamedVariables) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, variable)| State {
                name,
                variable,
                first: None,
                second: None,
            })
            .collect();
        Self {
            kind,
            variables,
            steps: 0,
        }
    }

    /// Steps made so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Changes every variable that has a gradient, at `learning_rate`.
    ///
    /// # Errors
    /// [`TrainError::Tensor`] if a gradient does not have its variable's shape.
    pub fn step(&mut self, gradients: &Gradients, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        for state in &mut self.variables {
            let Some(gradient) = gradients.get(&state.name) else {
                continue;
            };
            let value = state.variable.as_detached_tensor();
            let value = match self.kind {
                OptimizerKind::AdamW {
                    first_decay,
                    second_decay,
                    epsilon,
                    weight_decay,
                } => {
                    let first = blend(state.first.as_ref(), gradient, first_decay)?;
                    let second = blend(state.second.as_ref(), &gradient.sqr()?, second_decay)?;
                    let step_size = learning_rate / (1.0 - first_decay.powi(steps));
                    let root = (second.sqrt()? / (1.0 - second_decay.powi(steps)).sqrt())?;
                    let update = (first.div(&(root + epsilon)?)? * step_size)?;
                    state.first = Some(first);
                    state.second = Some(second);
                    ((value * (1.0 - learning_rate * weight_decay))? - update)?
                }
                OptimizerKind::Sgd {
                    momentum,
                    weight_decay,
                } => {
                    let gradient = (gradient + (&value * weight_decay)?)?;
                    let velocity = match &state.first {
                        Some(velocity) => ((velocity * momentum)? + gradient)?,
                        None => gradient,
                    };
                    let value = (value - (&velocity * learning_rate)?)?;
                    state.first = Some(velocity);
                    value
                }
            };
            state.variable.set(&value)?;
        }
        Ok(())
    }

    /// The state under names made from the variables': `first.NAME` and `second.NAME`. The number of steps is apart.
    #[must_use]
    pub fn state(&self) -> HashMap<String, Tensor> {
        let mut tensors = HashMap::new();
        for state in &self.variables {
            for (kind, tensor) in [("first", &state.first), ("second", &state.second)] {
                if let Some(tensor) = tensor {
                    tensors.insert(format!("{kind}.{}", state.name), tensor.clone());
                }
            }
        }
        tensors
    }

    /// Takes up a state that [`state`](Self::state) gave, after `steps` steps.
    ///
    /// # Errors
    /// [`TrainError::State`] for a tensor that belongs to no variable or does not have its shape.
    pub fn load_state(&mut self, steps: u64, mut tensors: HashMap<String, Tensor>) -> Result<()> {
        for state in &mut self.variables {
            state.first = take(&mut tensors, "first", state)?;
            state.second = take(&mut tensors, "second", state)?;
        }
        if let Some(name) = tensors.into_keys().min() {
            return Err(TrainError::State {
                name,
                expected: "the state of a variable of this model".to_owned(),
                found: "a tensor that belongs to none".to_owned(),
            });
        }
        self.steps = steps;
        Ok(())
    }
}

fn take(
    tensors: &mut HashMap<String, Tensor>,
    kind: &str,
    state: &State,
) -> Result<Option<Tensor>> {
    let name = format!("{kind}.{}", state.name);
    let Some(tensor) = tensors.remove(&name) else {
        return Ok(None);
    };
    if tensor.shape() == state.variable.shape() && tensor.dtype() == state.variable.dtype() {
        return Ok(Some(tensor));
    }
    Err(TrainError::State {
        name,
        expected: format!(
            "{:?} of {:?}",
            state.variable.dtype(),
            state.variable.dims()
        ),
        found: format!("{:?} of {:?}", tensor.dtype(), tensor.dims()),
    })
}

/// `decay * mean + (1 - decay) * value`, from a mean of zero.
fn blend(mean: Option<&Tensor>, value: &Tensor, decay: f64) -> Result<Tensor> {
    let value = (value * (1.0 - decay))?;
    Ok(match mean {
        Some(mean) => ((mean * decay)? + value)?,
        None => value,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use serde_json::Value;

    use super::*;
    use crate::schedule::Schedule;

    fn variables() -> NamedVariables {
        let first: Vec<f64> = (0..6).map(|i| -1.0 + 0.4 * f64::from(i)).collect();
        vec![
            (
                "a".to_owned(),
                Var::from_vec(first, (2, 3), &Device::Cpu).unwrap(),
            ),
            (
                "b".to_owned(),
                Var::from_vec(vec![0.5_f64; 4], 4, &Device::Cpu).unwrap(),
            ),
        ]
    }

    fn gradients(step: u32) -> Gradients {
        let values: Vec<f64> = (0..10)
            .map(|i| (1.3 * f64::from(i) + 0.7 * f64::from(step)).cos() * (1.0 + f64::from(i)))
            .collect();
        let mut gradients = Gradients::default();
        gradients
            .add(
                "a",
                &Tensor::from_slice(&values[..6], (2, 3), &Device::Cpu).unwrap(),
            )
            .unwrap();
        gradients
            .add(
                "b",
                &Tensor::from_slice(&values[6..], 4, &Device::Cpu).unwrap(),
            )
            .unwrap();
        gradients
    }

    fn values(variables: &NamedVariables) -> Vec<f64> {
        variables
            .iter()
            .flat_map(|(_, v)| v.flatten_all().unwrap().to_vec1::<f64>().unwrap())
            .collect()
    }

    fn check_against_torch(kind: OptimizerKind, schedule: Schedule, peak: f64, golden: &Value) {
        let variables = variables();
        let mut optimizer = Optimizer::new(kind, variables.clone());
        for (step, expected) in (0_u32..).zip(golden.as_array().unwrap()) {
            let mut gradients = gradients(step);
            let norm = gradients.clip(2.0).unwrap();
            assert!((norm - expected["norm"].as_f64().unwrap()).abs() < 1e-10);
            let rate = schedule.rate(peak, u64::from(step), 11);
            assert!(
                (rate - expected["rate"].as_f64().unwrap()).abs() < 1e-15,
                "{rate} {}",
                expected["rate"]
            );
            optimizer.step(&gradients, rate).unwrap();
            for (found, expected) in values(&variables)
                .iter()
                .zip(expected["values"].as_array().unwrap())
            {
                assert!(
                    (found - expected.as_f64().unwrap()).abs() < 1e-13,
                    "step {step}: {found} {expected}"
                );
            }
        }
    }

    /// PyTorch 2.15: see `tests/golden/optimizers.py`.
    #[test]
    fn agrees_with_torch() {
        let golden: Value =
            serde_json::from_str(include_str!("../tests/golden/optimizers.json")).unwrap();
        check_against_torch(
            OptimizerKind::default(),
            Schedule::default(),
            2e-3,
            &golden["adamw"],
        );
        let sgd = OptimizerKind::Sgd {
            momentum: 0.9,
            weight_decay: 1e-3,
        };
        check_against_torch(sgd, Schedule::Constant, 1e-2, &golden["sgd"]);
    }

    #[test]
    fn goes_on_from_a_saved_state() {
        for kind in [
            OptimizerKind::default(),
            OptimizerKind::Sgd {
                momentum: 0.9,
                weight_decay: 0.0,
            },
        ] {
            let whole = variables();
            let mut optimizer = Optimizer::new(kind, whole.clone());
            let halved = variables();
            let mut first_half = Optimizer::new(kind, halved.clone());
            for step in 0..3 {
                optimizer.step(&gradients(step), 1e-2).unwrap();
                first_half.step(&gradients(step), 1e-2).unwrap();
            }
            let mut second_half = Optimizer::new(kind, halved.clone());
            second_half
                .load_state(first_half.steps(), first_half.state())
                .unwrap();
            for step in 3..6 {
                optimizer.step(&gradients(step), 1e-2).unwrap();
                second_half.step(&gradients(step), 1e-2).unwrap();
            }
            assert_eq!(values(&whole), values(&halved));
        }
    }

    #[test]
    fn a_foreign_state_is_refused() {
        let mut optimizer = Optimizer::new(OptimizerKind::default(), variables());
        let tensor = Tensor::zeros(4, candle_core::DType::F64, &Device::Cpu).unwrap();
        let error = optimizer
            .load_state(1, HashMap::from([("first.a".to_owned(), tensor.clone())]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("first.a") && error.contains("[2, 3]") && error.contains("[4]"),
            "{error}"
        );
        let error = optimizer
            .load_state(1, HashMap::from([("first.c".to_owned(), tensor)]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("first.c"), "{error}");
    }
}
