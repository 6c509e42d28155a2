//! Weights to and from files: safetensors, and PyTorch's `.pth`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use candle_core::pickle::PthTensors;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use stream_grad::Net;
use stream_grad_files::write_whole;

use crate::error::{ModelError, Result};

/// Keys under which training scripts put a `state_dict` in a checkpoint.
const STATE_DICT_KEYS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Named tensors of a file, as PyTorch's `state_dict` has them.
#[derive(Debug, Clone)]
pub struct StateDict {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl StateDict {
    /// Reads a file of safetensors (`.safetensors`) or of PyTorch (`.pth`, `.pt`, `.bin`: a `state_dict`, or a
    /// checkpoint that holds one as `state_dict`, `model_state_dict` or `model`).
    ///
    /// # Errors
    /// A file that cannot be read, has another extension, or holds no tensors.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let extension = path
            .extension()
            .map(|extension| extension.to_ascii_lowercase());
        let tensors = match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("safetensors") => candle_core::safetensors::load(path, &Device::Cpu)
                .map(|tensors| tensors.into_iter().collect()),
            Some("pth" | "pt" | "bin") => read_pickle(path),
            _ => return Err(ModelError::UnknownFormat { path: path.into() }),
        };
        let tensors: BTreeMap<String, Tensor> = tensors.map_err(|source| ModelError::Read {
            path: path.into(),
            source,
        })?;
        if tensors.is_empty() {
            return Err(ModelError::NoTensors { path: path.into() });
        }
        Ok(Self {
            path: path.into(),
            tensors,
        })
    }

    /// The tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Sets every one of `variables` to the tensor of its name, converted to the variable's dtype.
    ///
    /// A classifier (`fc.…`) that is not among the variables and PyTorch's `num_batches_tracked` are left out. Nothing
    /// is changed unless everything fits.
    ///
    /// # Errors
    /// The first tensor by name that is missing, misshapen, not floating-point, or unknown to the model.
    pub fn assign(&self, variables: &BTreeMap<String, Var>) -> Result<()> {
        let mut values = Vec::with_capacity(variables.len());
        for (name, variable) in variables {
            values.push((variable, self.value(name, variable)?));
        }
        let ignored = |name: &str| name.starts_with("fc.") || name.ends_with("num_batches_tracked");
        for (name, tensor) in &self.tensors {
            if !variables.contains_key(name) && !ignored(name) {
                return Err(ModelError::UnknownTensor {
                    path: self.path.clone(),
                    name: name.clone(),
                    found: tensor.dims().to_vec(),
                });
            }
        }
        for (variable, value) in values {
            variable.set(&value)?;
        }
        Ok(())
    }

    fn value(&self, name: &str, variable: &Var) -> Result<Tensor> {
        let (path, name) = (|| self.path.clone(), || name.to_owned());
        let tensor = self
            .tensors
            .get(&name())
            .ok_or_else(|| ModelError::MissingTensor {
                path: path(),
                name: name(),
                expected: variable.dims().to_vec(),
            })?;
        if tensor.dims() != variable.dims() {
            return Err(ModelError::TensorShape {
                path: path(),
                name: name(),
                expected: variable.dims().to_vec(),
                found: tensor.dims().to_vec(),
            });
        }
        if !matches!(
            tensor.dtype(),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64
        ) {
            return Err(ModelError::TensorType {
                path: path(),
                name: name(),
                found: tensor.dtype(),
            });
        }
        Ok(tensor
            .to_device(variable.device())?
            .to_dtype(variable.dtype())?
            .contiguous()?)
    }
}

fn read_pickle(path: &Path) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let mut tensors = PthTensors::new(path, None)?;
    if tensors.tensor_infos().is_empty() {
        let nested = STATE_DICT_KEYS
            .iter()
            .find_map(|key| PthTensors::new(path, Some(key)).ok());
        tensors = nested.unwrap_or(tensors);
    }
    let names = tensors.tensor_infos().keys();
    names
        .filter_map(|name| match tensors.get(name) {
            Ok(tensor) => tensor.map(|tensor| Ok((name.clone(), tensor))),
            Err(source) => Some(Err(source.context(format!("tensor `{name}`")))),
        })
        .collect()
}

/// Loads the weights of a network whose parameters are variables (built from a `VarMap`).
///
/// ```no_run
/// use candle_core::{DType, Device};
/// use candle_nn::VarMap;
/// use stream_grad_models::{load_net, resnet18, seeded};
/// let variables = VarMap::new();
/// let net = resnet18(seeded(&variables, 0, DType::F32, &Device::Cpu))?;
/// load_net("resnet18-f37072fd.pth", &net)?;
/// # Ok::<(), stream_grad_models::ModelError>(())
/// ```
///
/// # Errors
/// As [`StateDict::read`] and [`StateDict::assign`], and a parameter that is not a variable.
pub fn load_net(path: impl AsRef<Path>, net: &Net) -> Result<()> {
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
pub fn load_map(path: impl AsRef<Path>, variables: &VarMap) -> Result<()> {
    StateDict::read(path)?.assign(&by_name(variables))
}

/// Saves every variable of a map as safetensors; see [`save_tensors`].
///
/// # Errors
/// A folder or disk that cannot be written to.
pub fn save_map(path: impl AsRef<Path>, variables: &VarMap) -> Result<()> {
    let tensors = by_name(variables).into_iter();
    let tensors = tensors.map(|(name, variable)| (name, variable.as_tensor().clone()));
    save_tensors(path, &tensors.collect())
}

/// Saves tensors as safetensors. The file appears whole or not at all, with the permissions of any new file or of the one
/// that it replaces: see [`stream_grad_files`].
///
/// # Errors
/// A folder or disk that cannot be written to; a file that was there before is then as it was.
pub fn save_tensors(path: impl AsRef<Path>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = path.as_ref();
    let failed = |source| ModelError::Write {
        path: path.into(),
        source,
    };
    // candle's `save` would make a file that is its owner's alone.
    let bytes = safetensors::serialize(tensors, None).map_err(|error| failed(error.into()))?;
    write_whole(path, &bytes).map_err(|error| failed(error.into()))
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
