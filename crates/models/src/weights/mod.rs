//! Weights to and from files: safetensors, and what PyTorch's `torch.save` writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;

use candle_core::Var;
use candle_nn::VarMap;
use stream_grad::Net;

use crate::error::{ModelError, Result};

mod comparison;
mod entry;
mod file;
mod loaded;
mod places;
mod pytorch_file;
mod safetensors_file;
mod save;
mod state_dict;

pub use comparison::Comparison;
pub use loaded::Loaded;
pub use save::{save_map, save_tensors};
pub use state_dict::StateDict;

/// Loads the weights of a network whose parameters are variables (built from a `VarMap`).
///
/// What is read, and which tensors are taken from a file that has more: see [`StateDict`].
///
/// ```no_run
/// use candle_core::{DType, Device};
/// use candle_nn::VarMap;
/// use stream_grad_models::{load_net, resnet18, seeded};
/// let variables = VarMap::new();
/// let net = resnet18(seeded(&variables, 0, DType::F32, &Device::Cpu))?;
/// let loaded = load_net("resnet18-f37072fd.pth", &net)?;
/// println!("{loaded}");
/// # Ok::<(), stream_grad_models::ModelError>(())
/// ```
///
/// # Errors
/// As [`StateDict::read`] and [`StateDict::assign`], and a parameter that is not a variable.
pub fn load_net(path: impl AsRef<Path>, net: &Net) -> Result<Loaded> {
    let variables = net.parameters().iter().map(|parameter| {
        if !parameter.tensor.is_variable() {
            let name = parameter.name.clone();
            return Err(ModelError::NotVariable { name });
        }
        // Of a variable's tensor this makes the variable itself, not a copy.
        Ok((parameter.name.clone(), Var::from_tensor(&parameter.tensor)?))
    });
    let variables = variables.collect::<Result<BTreeMap<String, Var>>>()?;
    StateDict::read(path)?.assign(&variables)
}

/// Loads every variable of a map: a network's, a head's, whatever was built from it.
///
/// # Errors
/// As [`StateDict::read`] and [`StateDict::assign`].
pub fn load_map(path: impl AsRef<Path>, variables: &VarMap) -> Result<Loaded> {
    StateDict::read(path)?.assign(&by_name(variables))
}

fn by_name(variables: &VarMap) -> BTreeMap<String, Var> {
    let variables = variables
        .data()
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    variables
        .iter()
        .map(|(name, variable)| (name.clone(), variable.clone()))
        .collect()
}
