//! A file's named tensors, and setting a model's variables to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Tensor, Var};

use super::comparison::{Comparison, Named};
use super::entry::Entry;
use super::file;
use super::loaded::{self, Loaded};
use super::places::{Found, Names, Place, wrappers};
use crate::error::{ModelError, Result};

/// Named tensors of a file, as PyTorch's `state_dict` has them.
///
/// Opening a file reads names, shapes and types; a tensor is read when it is asked for, so the optimiser's state in a
/// checkpoint costs nothing. The kind of file is told by its first bytes, whatever its name:
///
/// | file | |
/// |---|---|
/// | safetensors, with or without `__metadata__` | read |
/// | `torch.save` since PyTorch 1.6 (zip), pickle protocols 2 to 5 | read |
/// | `torch.save` before 1.6, and with `_use_new_zipfile_serialization=False` | read |
/// | `torch.save` before 0.1.10 (tar) | read |
/// | a `state_dict`; a checkpoint that holds one at any depth beside anything else (a loss, an optimiser, settings) | read |
/// | `torch.save(model)`: the module itself | read, as its `state_dict()`; not before 1.6, and not a compiled one |
/// | weights of any strides (`channels_last`, transposed, expanded, views of one storage) | read |
/// | float16, bfloat16, float32, float64 | read, and converted to the variable's dtype |
/// | integers and booleans, such as counters | passed over, refused as weights |
/// | float8 and complex numbers, sparse and quantised tensors | refused: safetensors where they are wanted as weights, `torch.save` wherever they are |
/// | TorchScript (`torch.jit.save`) | refused |
/// | big-endian files | refused |
/// | a model in several files (`….index.json`) | refused: the files are read one by one |
///
/// # Which tensors are taken
/// In a file of `torch.save`, names of dictionaries in dictionaries are joined by dots: `state_dict.model.conv1.weight`.
/// So a dictionary and a prefix are the same thing, and [`assign`](Self::assign) looks for the one prefix under which
/// **all** of a model's tensors are, in name, shape and a floating type: `state_dict.`, `model.`, `module.` of
/// `DataParallel`, `backbone.`, `state_dict.model.encoder.`, whatever it is. Names of wrapping modules (`_orig_mod` of
/// `torch.compile`, also inside a name) are passed over. Several such prefixes with the same tensors, bit for bit, are
/// one; with different values (a model and its moving average) they are refused, and [`under`](Self::under) chooses.
///
/// ```
/// use std::collections::BTreeMap;
/// use candle_core::{DType, Device, Tensor, Var};
/// use stream_grad_models::{StateDict, save_tensors};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.safetensors");
/// let saved = Tensor::new(&[1.0_f32, 2.0], &Device::Cpu)?;
/// save_tensors(&path, &BTreeMap::from([("module.bias".to_owned(), saved)]))?;
///
/// let bias = Var::zeros(2, DType::F64, &Device::Cpu)?;
/// let loaded = StateDict::read(&path)?.assign(&BTreeMap::from([("bias".to_owned(), bias.clone())]))?;
/// assert_eq!(loaded.prefix(), "module.");
/// assert_eq!(bias.to_vec1::<f64>()?, [1.0, 2.0]);
/// # Ok::<(), stream_grad_models::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct StateDict {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    /// What [`under`](Self::under) took off the names.
    chosen: String,
}

impl StateDict {
    /// Opens a file and reads the names, shapes and types of its tensors.
    ///
    /// # Errors
    /// A file that cannot be read, is of another kind, or holds no tensors.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let entries = file::open(path)?;
        if entries.is_empty() {
            return Err(ModelError::NoTensors { path: path.into() });
        }
        Ok(Self {
            path: path.into(),
            entries,
            chosen: String::new(),
        })
    }

    /// The tensors whose names begin with `prefix`, without it: `state_dict_ema.`, `module.encoder_q.`.
    ///
    /// # Errors
    /// A prefix that no name has.
    pub fn under(&self, prefix: &str) -> Result<Self> {
        let entries = self.entries.iter().filter_map(|(name, entry)| {
            let name = name.strip_prefix(prefix).filter(|name| !name.is_empty())?;
            Some((name.to_owned(), entry.clone()))
        });
        let entries: BTreeMap<String, Entry> = entries.collect();
        if entries.is_empty() {
            return Err(ModelError::UnknownPrefix {
                path: self.path.clone(),
                found: prefix.into(),
                known: self.first_parts(),
            });
        }
        Ok(Self {
            path: self.path.clone(),
            entries,
            chosen: format!("{}{prefix}", self.chosen),
        })
    }

    /// The tensors' names in the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Reads the tensor of this name in the file, in its own type.
    ///
    /// # Errors
    /// A name that the file does not have, a type that candle does not compute with, and a file that cannot be read.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.entries.get(name).ok_or_else(|| {
            let (path, name) = (self.path.clone(), name.to_owned());
            ModelError::NoSuchTensor { path, name }
        })?;
        let dtype = entry.element.dtype.ok_or_else(|| ModelError::TensorType {
            path: self.path.clone(),
            name: self.full(name),
            found: entry.element.name.clone(),
        })?;
        entry
            .tensor(dtype)
            .map_err(|source| self.unreadable(source))
    }

    /// Sets every one of `variables` to the tensor of its name, converted to the variable's dtype.
    ///
    /// See [above](Self#which-tensors-are-taken) for where in the file they are looked for. Under the prefix that was
    /// found, a classifier (`fc.…`) that is not among the variables and PyTorch's `num_batches_tracked` are left out;
    /// outside of it, everything is. Nothing is changed unless everything fits.
    ///
    /// # Errors
    /// The first tensor by name that is missing, with all others that are, beside the nearest that the file has; or
    /// that is misshapen, of no floating type, or unknown to the model. Tensors that are there more than once, with
    /// different values.
    pub fn assign(&self, variables: &BTreeMap<String, Var>) -> Result<Loaded> {
        let names = Names::new(&self.entries);
        let places = names.places(variables);
        let (complete, partial): (Vec<Place>, Vec<Place>) = places
            .into_iter()
            .partition(|place| place.fitting == variables.len());
        self.refuse_different(&names, variables, &complete)?;
        let copies = complete.iter().skip(1);
        let copies = copies.map(|place| self.full(&place.prefix)).collect();
        let place = complete.into_iter().chain(partial).next();
        let prefix = place.unwrap_or_else(Place::root).prefix;

        let mut values = Vec::with_capacity(variables.len());
        let mut passed_over = Vec::new();
        for (name, variable) in variables {
            let found = names
                .get(&prefix, name)
                .ok_or_else(|| self.missing(&names, variables, &prefix, (name, variable)))?;
            for wrapper in wrappers(found.name) {
                if !passed_over.contains(&wrapper) {
                    passed_over.push(wrapper);
                }
            }
            values.push((variable, self.value(found, variable)?));
        }
        let left_out = self.left_out(&names, variables, &prefix)?;
        for (variable, value) in &values {
            variable.set(value)?;
        }
        Ok(Loaded {
            path: self.path.clone(),
            tensors: values.len(),
            prefix: self.full(&prefix),
            wrappers: passed_over,
            copies,
            left_out,
        })
    }

    /// Refuses places that are all complete and do not hold the same.
    fn refuse_different(
        &self,
        names: &Names<'_>,
        variables: &BTreeMap<String, Var>,
        complete: &[Place],
    ) -> Result<()> {
        let Some((first, others)) = complete.split_first() else {
            return Ok(());
        };
        for other in others {
            for name in variables.keys() {
                let tensors = (
                    names.get(&first.prefix, name),
                    names.get(&other.prefix, name),
                );
                if let (Some(first), Some(other)) = tensors
                    && !self.same(first.entry, other.entry)?
                {
                    let prefixes = complete.iter();
                    let prefixes = prefixes.map(|place| loaded::place(&self.full(&place.prefix)));
                    return Err(ModelError::AmbiguousTensors {
                        path: self.path.clone(),
                        name: name.clone(),
                        prefixes: prefixes.collect::<Vec<_>>().join(", "),
                    });
                }
            }
        }
        Ok(())
    }

    fn same(&self, first: &Entry, other: &Entry) -> Result<bool> {
        let read = |entry: &Entry| entry.read().map_err(|error| self.unreadable(error.into()));
        Ok(first.element == other.element && read(first)? == read(other)?)
    }

    fn value(&self, found: Found<'_>, variable: &Var) -> Result<Tensor> {
        let Found { name, entry } = found;
        if entry.shape != variable.dims() {
            return Err(ModelError::TensorShape {
                path: self.path.clone(),
                name: self.full(name),
                expected: variable.dims().to_vec(),
                found: entry.shape.clone(),
            });
        }
        let dtype = entry
            .element
            .float()
            .ok_or_else(|| ModelError::TensorType {
                path: self.path.clone(),
                name: self.full(name),
                found: entry.element.name.clone(),
            })?;
        let tensor = entry
            .tensor(dtype)
            .map_err(|source| self.unreadable(source))?;
        Ok(tensor
            .to_device(variable.device())?
            .to_dtype(variable.dtype())?)
    }

    fn missing(
        &self,
        names: &Names<'_>,
        variables: &BTreeMap<String, Var>,
        prefix: &str,
        (first, variable): (&str, &Var),
    ) -> ModelError {
        let missing = variables
            .iter()
            .filter(|(name, _)| names.get(prefix, name).is_none());
        let missing = missing.map(|(name, variable)| Named {
            name: name.clone(),
            shape: variable.dims().to_vec(),
        });
        let unused = names.iter().filter(|(name, _)| {
            let name = name.strip_prefix(prefix);
            !name.is_some_and(|name| variables.contains_key(name))
        });
        let unused = unused.map(|(_, found)| Named {
            name: self.full(found.name),
            shape: found.entry.shape.clone(),
        });
        let prefix = self.full(prefix);
        ModelError::MissingTensor {
            path: self.path.clone(),
            name: first.to_owned(),
            expected: variable.dims().to_vec(),
            comparison: Box::new(Comparison::new(
                missing.collect(),
                variables.len(),
                &prefix,
                unused.collect(),
            )),
            prefix,
        }
    }

    /// The names of what is not loaded.
    fn left_out(
        &self,
        names: &Names<'_>,
        variables: &BTreeMap<String, Var>,
        prefix: &str,
    ) -> Result<Vec<String>> {
        let mut left_out = Vec::new();
        for (name, found) in names.iter() {
            if let Some(own) = name.strip_prefix(prefix) {
                if variables.contains_key(own) {
                    continue;
                }
                if !own.starts_with("fc.") && !own.ends_with("num_batches_tracked") {
                    return Err(ModelError::UnknownTensor {
                        path: self.path.clone(),
                        name: self.full(found.name),
                        found: found.entry.shape.clone(),
                    });
                }
            }
            left_out.push(self.full(found.name));
        }
        Ok(left_out)
    }

    fn unreadable(&self, source: super::entry::Source) -> ModelError {
        ModelError::Read {
            path: self.path.clone(),
            source,
        }
    }

    /// A name as it is in the file.
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.chosen)
    }

    /// What the names begin with, up to the first dot.
    fn first_parts(&self) -> String {
        let mut parts: Vec<&str> = self
            .names()
            .filter_map(|name| name.split_inclusive('.').next())
            .collect();
        parts.dedup();
        parts.truncate(10);
        parts.join(", ")
    }
}
