//! Muon, AdamW and SGD with momentum over candle variables, with a state that can be saved.

mod groups;
mod kind;
mod muon;
mod stepped;

use std::collections::HashMap;

use candle_core::{Device, Tensor};

pub use groups::{ModelPart, ParameterGroup, ParameterKind, ParameterOptions, WeightDecayOn};
pub use kind::OptimizerKind;

use crate::error::{Result, TrainError};
use crate::gradients::{Gradients, NamedVariables};
use stepped::{FIRST, Memory, SECOND, STEP, Stepped, check_form, count_tensor};

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

impl Optimizer {
    /// An optimiser that has not made a step yet.
    #[must_use]
    pub fn new(kind: OptimizerKind, variables: NamedVariables) -> Self {
        let variables = variables.into_iter();
        let variables = variables.map(|(name, variable)| Stepped::new(name, variable));
        Self {
            kind,
            variables: variables.collect(),
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
    /// scalar of `i64`), `first.NAME` and `second.NAME`; of momentum and of Muon's matrices `first.NAME`. The number of steps is apart.
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

#[cfg(test)]
mod tests;
