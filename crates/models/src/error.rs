//! Everything that building, loading and saving a model can refuse.

use std::path::PathBuf;

use candle_core::DType;
use stream_grad::StreamError;

use crate::weights::Comparison;

/// What this crate's functions return.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// Why a model, its weights or a head's input was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No model has this name.
    #[error("unknown model `{found}`, expected one of: {known}")]
    UnknownModel {
        /// The name that was asked for.
        found: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// A setting that cannot be used.
    #[error("{setting}: expected {expected}, found {found}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What is legal.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The streaming engine refused the network.
    #[error(transparent)]
    Stream(Box<StreamError>),
    /// Candle refused an operation.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The file's first bytes are those of another kind of file.
    #[error("`{}`: expected safetensors or a file of `torch.save`, found {found}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What kind of file it is.
        found: &'static str,
    },
    /// A file of `torch.save` holds a tensor or an object with tensors that is not read.
    #[error(
        "`{}` holds `{found}`, which is not read here; expected tensors of float16, bfloat16, float32, float64, integers \
         or bool, as `torch.save(model.float().state_dict(), ...)` writes them",
        path.display()
    )]
    UnsupportedObject {
        /// The file.
        path: PathBuf,
        /// Its type's name in Python.
        found: String,
    },
    /// The file could not be read.
    #[error("reading weights from `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the reader of its format reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file was read and holds no tensors.
    #[error("`{}` holds no named tensors: expected a state_dict", path.display())]
    NoTensors {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be written; a file of the same name is as it was before.
    #[error("writing weights to `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system or candle reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tensor that the model needs is not in the file.
    #[error("`{}` lacks `{prefix}{name}`, expected with shape {expected:?}; {comparison}", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// What the file has before the names of the most of the model's tensors.
        prefix: String,
        /// The tensor's name.
        name: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// All that is missing, beside the nearest that the file has.
        comparison: Box<Comparison>,
    },
    /// The file holds all of the model's tensors more than once, and they differ.
    #[error(
        "`{}` holds the model's tensors more than once, under {prefixes}, and `{name}` differs; expected one of them, \
         chosen with `StateDict::under` or alone in a file",
        path.display()
    )]
    AmbiguousTensors {
        /// The file.
        path: PathBuf,
        /// The first tensor that differs.
        name: String,
        /// The prefixes, separated by commas.
        prefixes: String,
    },
    /// No tensor's name begins as was asked for.
    #[error("`{}` has no names that begin with `{found}`, expected one of: {known}", path.display())]
    UnknownPrefix {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        found: String,
        /// How names do begin, separated by commas.
        known: String,
    },
    /// No tensor has the name that was asked for.
    #[error("`{}` holds no tensor `{name}`", path.display())]
    NoSuchTensor {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        name: String,
    },
    /// A tensor of the file does not belong to the model.
    #[error("`{}` holds `{name}` with shape {found:?}, which the model does not have", path.display())]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has another shape than the model needs.
    #[error("`{}`, tensor `{name}`: expected shape {expected:?}, found {found:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is of a type that weights cannot have here.
    #[error("`{}`, tensor `{name}`: expected float16, bfloat16, float32 or float64, found {found}", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Its type's name in the file.
        found: String,
    },
    /// A tensor that is to be changed is not a candle `Var`.
    #[error("`{name}` cannot be changed: expected a variable, found a constant tensor")]
    NotVariable {
        /// The tensor's name.
        name: String,
    },
    /// Features or pooled features of a shape that the head cannot take.
    #[error("{what}: expected shape {expected}, found {found:?}")]
    InputShape {
        /// Which input.
        what: &'static str,
        /// The shape that is legal, in words.
        expected: String,
        /// The shape that was found.
        found: Vec<usize>,
    },
    /// Outputs of a network whose channels are not together those that the head was made for.
    #[error("outputs: expected {expected} channels together, found {found:?}")]
    OutputChannels {
        /// Channels of the head.
        expected: usize,
        /// Channels of each output.
        found: Vec<usize>,
    },
    /// Features of a dtype that the head cannot take.
    #[error("dtype {found:?} is not supported here, expected F32 or F64")]
    InputType {
        /// The dtype that was found.
        found: DType,
    },
}

impl From<StreamError> for ModelError {
    fn from(error: StreamError) -> Self {
        Self::Stream(Box::new(error))
    }
}

/// Refuses a setting outside `range`.
pub(crate) fn check_range(
    setting: &'static str,
    found: usize,
    range: std::ops::RangeInclusive<usize>,
    expected: &'static str,
) -> Result<()> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(ModelError::Setting {
        setting,
        expected,
        found: found.to_string(),
    })
}
