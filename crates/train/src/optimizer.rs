//! AdamW and SGD with momentum over candle variables, with a state that can be saved.

mod groups;

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use groups::{ModelPart, ParameterGroup, ParameterKind, ParameterOptions, WeightDecayOn};

use crate::error::{Result, TrainError};
use crate::gradients::{Gradients, NamedVariables};
use crate::in_place::{update, update_by_two};

/// Which rule makes a step of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`.
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the mean of the gradients; 0 or more and less than 1. By default 0.9, as in PyTorch.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// Decay of the mean of their squares; 0 or more and less than 1. By default 0.999, as in PyTorch.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// Added to the root of the mean of the squares; 0 or more. By default 1e-8, as in PyTorch.
        #[serde(default = "default_epsilon")]
        epsilon: f64,
        /// Share of the learning rate by which a weight shrinks in each step; 0 or more. By default 1e-2, as in PyTorch.
        #[serde(default = "default_weight_decay")]
        weight_decay: f64,
    },
    /// Gradient descent with momentum, as `torch.optim.SGD`.
    Sgd {
        /// Decay of the velocity; 0 or more and less than 1, 0 for none. By default 0.9, which nearly all who use
        /// it take; PyTorch has none.
        #[serde(default = "default_momentum")]
        momentum: f64,
        /// Multiple of the weight that is added to its gradient; 0 or more. By default 0, as in PyTorch.
        #[serde(default)]
        weight_decay: f64,
    },
}

impl Default for OptimizerKind {
    fn default() -> Self {
        Self::AdamW {
            beta1: default_beta1(),
            beta2: default_beta2(),
            epsilon: default_epsilon(),
            weight_decay: default_weight_decay(),
        }
    }
}

const fn default_beta1() -> f64 {
    0.9
}

const fn default_beta2() -> f64 {
    0.999
}

const fn default_epsilon() -> f64 {
    1e-8
}

const fn default_weight_decay() -> f64 {
    1e-2
}

const fn default_momentum() -> f64 {
    0.9
}

impl OptimizerKind {
    /// The rule with its weight decay multiplied.
    fn with_decay(mut self, factor: f64) -> Self {
        let (Self::AdamW { weight_decay, .. } | Self::Sgd { weight_decay, .. }) = &mut self;
        *weight_decay *= factor;
        self
    }

    /// Checks the settings; legal is what PyTorch takes, where it is finite.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self) -> Result<()> {
        let decay = |value: f64| (0.0..1.0).contains(&value);
        let amount = |value: f64| value.is_finite() && value >= 0.0;
        let (decays, amounts) = match *self {
            Self::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => (
                vec![("beta1", beta1), ("beta2", beta2)],
                [("epsilon", epsilon), ("weight_decay", weight_decay)],
            ),
            Self::Sgd {
                momentum,
                weight_decay,
            } => (
                Vec::new(),
                [("momentum", momentum), ("weight_decay", weight_decay)],
            ),
        };
        let illegal = |name: &str, expected, value| {
            TrainError::setting(format!("train.optimizer.{name}"), expected, value)
        };
        for (name, value) in decays {
            if !decay(value) {
                return Err(illegal(name, "0 or more and less than 1", value));
            }
        }
        for (name, value) in amounts {
            if !amount(value) {
                return Err(illegal(name, "a finite number of 0 or more", value));
            }
        }
        Ok(())
    }
}

/// An optimiser: a rule, the variables it changes, and its state.
///
/// As in PyTorch each variable has a state of its own, which begins with its first gradient, and AdamW corrects the bias of
/// its means by the number of gradients that *this variable* has had. So one that is unfrozen late starts as if the run began
/// there. A variable without a gradient is left alone: neither its means nor its weights decay.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use stream_grad_train::{gradients::Gradients, optimizer::{Optimizer, OptimizerKind}};
/// let variables: Vec<_> = ["a", "b"]
///     .map(|name| (name.to_owned(), Var::new(&[1_f64], &Device::Cpu).unwrap()))
///     .into();
/// let mut optimizer = Optimizer::new(OptimizerKind::default(), variables.clone());
/// let mut gradients = Gradients::default();
/// gradients.add("a", &Tensor::new(&[1_f64], &Device::Cpu)?)?;
/// optimizer.step(&gradients, 0.1)?;
/// assert!(variables[0].1.to_vec1::<f64>()?[0] < 1.0);
/// assert_eq!(variables[1].1.to_vec1::<f64>()?, [1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Optimizer {
    kind: OptimizerKind,
    variables: Vec<Stepped>,
    steps: u64,
}

/// A variable and what is remembered of its gradients.
#[derive(Debug)]
struct Stepped {
    name: String,
    variable: Var,
    options: ParameterOptions,
    memory: Option<Memory>,
}

#[derive(Debug)]
enum Memory {
    /// Of AdamW.
    Means {
        /// Gradients so far.
        steps: u64,
        /// Of gradients.
        first: Tensor,
        /// Of their squares.
        second: Tensor,
    },
    /// Of gradient descent with momentum.
    Velocity(Tensor),
}

impl Optimizer {
    /// An optimiser that has not made a step yet.
    #[must_use]
    pub fn new(kind: OptimizerKind, variables: NamedVariables) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, variable)| Stepped {
                name,
                variable,
                options: ParameterOptions::default(),
                memory: None,
            })
            .collect();
        Self {
            kind,
            variables,
            steps: 0,
        }
    }

    /// The same optimiser, with options for each parameter of some groups; a parameter of none is stepped as the rule says.
    #[must_use]
    pub fn groups(
        mut self,
        groups: &[ParameterGroup],
        options: impl Fn(&ParameterGroup) -> ParameterOptions,
    ) -> Self {
        for group in groups {
            for stepped in &mut self.variables {
                if group.names.contains(&stepped.name) {
                    stepped.options = options(group);
                }
            }
        }
        self
    }

    /// Steps made so far, whichever variables had gradients in them.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Changes every variable that has a gradient, at `learning_rate`.
    ///
    /// # Errors
    /// [`TrainError::State`] if a gradient does not have its variable's shape and type: then nothing is changed.
    pub fn step(&mut self, gradients: &Gradients, learning_rate: f64) -> Result<()> {
        for Stepped { name, variable, .. } in &self.variables {
            if let Some(gradient) = gradients.get(name) {
                check_form(name, gradient, variable)?;
            }
        }
        self.steps += 1;
        for stepped in &mut self.variables {
            if let Some(gradient) = gradients.get(&stepped.name) {
                stepped.step(self.kind, gradient, learning_rate)?;
            }
        }
        Ok(())
    }

    /// A copy of the state under names made from the variables'. Of AdamW these are `step.NAME` (how many gradients it has had, a
    /// scalar of `i64`), `first.NAME` and `second.NAME`; of momentum `first.NAME`. The number of steps is apart.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut tensors = HashMap::new();
        for Stepped {
            name,
            variable,
            memory,
            ..
        } in &self.variables
        {
            match memory {
                Some(Memory::Means {
                    steps,
                    first,
                    second,
                }) => {
                    let steps = count_tensor(*steps, variable.device())?;
                    tensors.insert(format!("{STEP}{name}"), steps);
                    tensors.insert(format!("{FIRST}{name}"), first.copy()?);
                    tensors.insert(format!("{SECOND}{name}"), second.copy()?);
                }
                Some(Memory::Velocity(velocity)) => {
                    tensors.insert(format!("{FIRST}{name}"), velocity.copy()?);
                }
                None => {}
            }
        }
        Ok(tensors)
    }

    /// Takes up a state that [`state`](Self::state) gave, after `steps` steps.
    ///
    /// # Errors
    /// [`TrainError::State`] for a tensor that belongs to no variable, does not have its shape and type, or lacks another one
    /// that belongs to it: then nothing is changed.
    pub fn load_state(&mut self, steps: u64, mut tensors: HashMap<String, Tensor>) -> Result<()> {
        let memories = self
            .variables
            .iter()
            .map(|stepped| stepped.memory_from(self.kind, &mut tensors))
            .collect::<Result<Vec<_>>>()?;
        if let Some(name) = tensors.into_keys().min() {
            return Err(TrainError::State {
                name,
                expected: "the state of a variable of this model".to_owned(),
                found: "a tensor that belongs to none".to_owned(),
            });
        }
        for (stepped, memory) in self.variables.iter_mut().zip(memories) {
            stepped.memory = memory;
        }
        self.steps = steps;
        Ok(())
    }
}

const STEP: &str = "step.";
const FIRST: &str = "first.";
const SECOND: &str = "second.";

/// Gives a state the numbers of gradients that it lacks: one from before they were counted by variable. All that had a
/// gradient take `steps`, by which their bias was corrected so far; the others have none.
pub(crate) fn count_by_variable(state: &mut HashMap<String, Tensor>, steps: u64) -> Result<()> {
    let names: Vec<String> = state
        .keys()
        .filter_map(|name| name.strip_prefix(SECOND).map(str::to_owned))
        .collect();
    for name in names {
        let count = count_tensor(steps, &Device::Cpu)?;
        state.insert(format!("{STEP}{name}"), count);
    }
    Ok(())
}

fn count_tensor(steps: u64, device: &Device) -> Result<Tensor> {
    let steps = i64::try_from(steps).unwrap_or(i64::MAX);
    Ok(Tensor::new(steps, device)?)
}

impl Stepped {
    fn step(&mut self, kind: OptimizerKind, gradient: &Tensor, learning_rate: f64) -> Result<()> {
        let value = self.variable.as_detached_tensor();
        let learning_rate = learning_rate * self.options.learning_rate_factor;
        let kind = kind.with_decay(self.options.weight_decay_factor);
        self.memory = match kind {
            OptimizerKind::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                let (steps, first, second) = match self.memory.take() {
                    Some(Memory::Means {
                        steps,
                        first,
                        second,
                    }) => (steps, first, second),
                    _ => (0, value.zeros_like()?, value.zeros_like()?),
                };
                update(&first, gradient, |mean, gradient| {
                    beta1 * mean + (1.0 - beta1) * gradient
                })?;
                update(&second, gradient, |mean, gradient| {
                    beta2 * mean + (1.0 - beta2) * gradient * gradient
                })?;
                let steps = steps.saturating_add(1);
                let exponent = i32::try_from(steps).unwrap_or(i32::MAX);
                let step_size = learning_rate / (1.0 - beta1.powi(exponent));
                let kept = 1.0 - learning_rate * weight_decay;
                let correction = (1.0 - beta2.powi(exponent)).sqrt();
                update_by_two(&value, [&first, &second], |value, [first, second]| {
                    kept * value - step_size * first / (second.sqrt() / correction + epsilon)
                })?;
                Some(Memory::Means {
                    steps,
                    first,
                    second,
                })
            }
            OptimizerKind::Sgd {
                momentum,
                weight_decay,
            } => {
                let velocity = match self.memory.take() {
                    Some(Memory::Velocity(velocity)) => velocity,
                    _ => value.zeros_like()?,
                };
                update_by_two(
                    &velocity,
                    [gradient, &value],
                    |velocity, [gradient, value]| {
                        momentum * velocity + gradient + weight_decay * value
                    },
                )?;
                update(&value, &velocity, |value, velocity| {
                    value - learning_rate * velocity
                })?;
                // Without momentum nothing is remembered: of an infinite velocity zero times would be no number.
                (momentum > 0.0).then_some(Memory::Velocity(velocity))
            }
        };
        Ok(())
    }

    /// Takes what belongs to this variable out of a stored state.
    fn memory_from(
        &self,
        kind: OptimizerKind,
        tensors: &mut HashMap<String, Tensor>,
    ) -> Result<Option<Memory>> {
        let mut take = |part| tensors.remove_entry(&format!("{part}{}", self.name));
        let first = take(FIRST).map(|entry| self.fitting(entry)).transpose()?;
        if let OptimizerKind::Sgd { momentum, .. } = kind {
            // Version 1 of checkpoints keeps one without momentum, too.
            return Ok(first.filter(|_| momentum > 0.0).map(Memory::Velocity));
        }
        let second = take(SECOND).map(|entry| self.fitting(entry)).transpose()?;
        let steps = take(STEP).map(count_from).transpose()?;
        match (first, second, steps) {
            (Some(first), Some(second), Some(steps)) => Ok(Some(Memory::Means {
                steps,
                first,
                second,
            })),
            (None, None, None) => Ok(None),
            (first, second, _) => {
                let lacking = match (first, second) {
                    (None, _) => FIRST,
                    (_, None) => SECOND,
                    _ => STEP,
                };
                Err(TrainError::State {
                    name: format!("{lacking}{}", self.name),
                    expected: "all of `step`, `first` and `second` of a variable, or none"
                        .to_owned(),
                    found: "others without it".to_owned(),
                })
            }
        }
    }

    fn fitting(&self, (name, tensor): (String, Tensor)) -> Result<Tensor> {
        check_form(&name, &tensor, &self.variable)?;
        Ok(tensor)
    }
}

fn count_from((name, tensor): (String, Tensor)) -> Result<u64> {
    let count = tensor.to_scalar::<i64>().ok();
    match count.and_then(|count| u64::try_from(count).ok()) {
        Some(count @ 1..) => Ok(count),
        _ => Err(TrainError::State {
            name,
            expected: "a whole number above 0, as a scalar of I64".to_owned(),
            found: format!("{tensor}"),
        }),
    }
}

/// Checks that a tensor has a variable's shape and type.
fn check_form(name: &str, tensor: &Tensor, variable: &Var) -> Result<()> {
    if tensor.shape() == variable.shape() && tensor.dtype() == variable.dtype() {
        return Ok(());
    }
    Err(TrainError::State {
        name: name.to_owned(),
        expected: format!("{:?} of {:?}", variable.dtype(), variable.dims()),
        found: format!("{:?} of {:?}", tensor.dtype(), tensor.dims()),
    })
}

#[cfg(test)]
mod tests;
