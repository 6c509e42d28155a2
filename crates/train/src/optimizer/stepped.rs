//! One variable, how it is stepped, and what is remembered of its gradients.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};

use super::groups::{ModelPart, ParameterOptions};
use super::kind::OptimizerKind;
use super::muon::{is_matrix, orthogonalized, scale};
use crate::error::{Result, TrainError};
use crate::in_place::{update, update_by_two};

/// Prefixes of a variable's state.
pub(super) const STEP: &str = "step.";
pub(super) const FIRST: &str = "first.";
pub(super) const SECOND: &str = "second.";

/// A variable and what is remembered of its gradients.
#[derive(Debug)]
pub(super) struct Stepped {
    pub(super) name: String,
    pub(super) variable: Var,
    pub(super) options: ParameterOptions,
    pub(super) memory: Option<Memory>,
}

#[derive(Debug)]
pub(super) enum Memory {
    /// Of AdamW.
    Means {
        /// Gradients so far.
        steps: u64,
        /// Of gradients.
        first: Tensor,
        /// Of their squares.
        second: Tensor,
    },
    /// Of gradient descent with momentum the velocity, of Muon the mean of the gradients.
    Velocity(Tensor),
}

/// What one variable's step is made by: of Muon's two rules, its own.
#[derive(Debug, Clone, Copy)]
enum Rule {
    AdamW {
        betas: [f64; 2],
        epsilon: f64,
    },
    Momentum(f64),
    /// Of weights that are a matrix.
    Muon {
        momentum: f64,
    },
}

/// What all rules take.
#[derive(Debug, Clone, Copy)]
struct Rates {
    learning: f64,
    decay: f64,
}

impl Stepped {
    pub(super) fn new(name: String, variable: Var) -> Self {
        Self {
            name,
            variable,
            options: ParameterOptions::default(),
            memory: None,
        }
    }

    /// Changes the variable, and remembers what the rule needs of its gradient.
    pub(super) fn step(
        &mut self,
        kind: OptimizerKind,
        gradient: &Tensor,
        learning_rate: f64,
    ) -> Result<()> {
        let (rule, decay) = self.rule(kind);
        let rates = Rates {
            learning: learning_rate * self.options.learning_rate_factor,
            decay: decay * self.options.weight_decay_factor,
        };
        let value = self.variable.as_detached_tensor();
        let memory = self.memory.take();
        self.memory = match rule {
            Rule::AdamW { betas, epsilon } => {
                Some(adamw(&value, gradient, memory, rates, (betas, epsilon))?)
            }
            Rule::Momentum(momentum) => descend(&value, gradient, memory, rates, momentum)?,
            Rule::Muon { momentum } => Some(muon(&value, gradient, memory, rates, momentum)?),
        };
        Ok(())
    }

    /// The rule for this variable, and its weight decay.
    fn rule(&self, kind: OptimizerKind) -> (Rule, f64) {
        match kind {
            OptimizerKind::Muon {
                momentum,
                weight_decay,
                ..
            } if ModelPart::of(&self.name) == ModelPart::Body
                && is_matrix(self.variable.dims()) =>
            {
                (Rule::Muon { momentum }, weight_decay)
            }
            OptimizerKind::Muon {
                beta1,
                beta2,
                epsilon,
                weight_decay,
                ..
            }
            | OptimizerKind::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                let betas = [beta1, beta2];
                (Rule::AdamW { betas, epsilon }, weight_decay)
            }
            OptimizerKind::Sgd {
                momentum,
                weight_decay,
            } => (Rule::Momentum(momentum), weight_decay),
        }
    }

    /// Takes what belongs to this variable out of a stored state.
    pub(super) fn memory_from(
        &self,
        kind: OptimizerKind,
        tensors: &mut HashMap<String, Tensor>,
    ) -> Result<Option<Memory>> {
        let mut take = |part| tensors.remove_entry(&format!("{part}{}", self.name));
        let first = take(FIRST).map(|entry| self.fitting(entry)).transpose()?;
        match self.rule(kind).0 {
            // Version 1 of checkpoints keeps one without momentum, too.
            Rule::Momentum(momentum) => {
                return Ok(first.filter(|_| momentum > 0.0).map(Memory::Velocity));
            }
            Rule::Muon { .. } => return Ok(first.map(Memory::Velocity)),
            Rule::AdamW { .. } => {}
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

fn adamw(
    value: &Tensor,
    gradient: &Tensor,
    memory: Option<Memory>,
    rates: Rates,
    ([beta1, beta2], epsilon): ([f64; 2], f64),
) -> Result<Memory> {
    let (steps, first, second) = match memory {
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
    let step_size = rates.learning / (1.0 - beta1.powi(exponent));
    let kept = 1.0 - rates.learning * rates.decay;
    let correction = (1.0 - beta2.powi(exponent)).sqrt();
    update_by_two(value, [&first, &second], |value, [first, second]| {
        kept * value - step_size * first / (second.sqrt() / correction + epsilon)
    })?;
    Ok(Memory::Means {
        steps,
        first,
        second,
    })
}

fn descend(
    value: &Tensor,
    gradient: &Tensor,
    memory: Option<Memory>,
    rates: Rates,
    momentum: f64,
) -> Result<Option<Memory>> {
    let velocity = match memory {
        Some(Memory::Velocity(velocity)) => velocity,
        _ => value.zeros_like()?,
    };
    update_by_two(
        &velocity,
        [gradient, value],
        |velocity, [gradient, value]| momentum * velocity + gradient + rates.decay * value,
    )?;
    update(value, &velocity, |value, velocity| {
        value - rates.learning * velocity
    })?;
    // Without momentum nothing is remembered: of an infinite velocity zero times would be no number.
    Ok((momentum > 0.0).then_some(Memory::Velocity(velocity)))
}

/// `value` is a matrix by [`is_matrix`]: its first axis has the rows.
fn muon(
    value: &Tensor,
    gradient: &Tensor,
    memory: Option<Memory>,
    rates: Rates,
    momentum: f64,
) -> Result<Memory> {
    let mean = match memory {
        Some(Memory::Velocity(mean)) => mean,
        _ => value.zeros_like()?,
    };
    let mix = |mean: f64, gradient: f64| momentum * mean + (1.0 - momentum) * gradient;
    update(&mean, gradient, mix)?;
    // Nesterov's momentum.
    let ahead = gradient.copy()?;
    update(&ahead, &mean, |gradient, mean| mix(mean, gradient))?;
    let ahead = ahead.flatten_from(1)?;
    let (rows, columns) = ahead.dims2()?;
    let direction = orthogonalized(&ahead)?.reshape(value.shape())?;
    let kept = 1.0 - rates.learning * rates.decay;
    let step_size = rates.learning * scale(rows, columns);
    update(value, &direction, |value, direction| {
        kept * value - step_size * direction
    })?;
    Ok(Memory::Velocity(mean))
}

pub(super) fn count_tensor(steps: u64, device: &Device) -> Result<Tensor> {
    let steps = i64::try_from(steps).unwrap_or(i64::MAX);
    Ok(Tensor::new(steps, device)?)
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
pub(super) fn check_form(name: &str, tensor: &Tensor, variable: &Var) -> Result<()> {
    if tensor.shape() == variable.shape() && tensor.dtype() == variable.dtype() {
        return Ok(());
    }
    Err(TrainError::State {
        name: name.to_owned(),
        expected: format!("{:?} of {:?}", variable.dtype(), variable.dims()),
        found: format!("{:?} of {:?}", tensor.dtype(), tensor.dims()),
    })
}
