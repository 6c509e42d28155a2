//! Everything that building, loading and saving a model can refuse.

use std::path::PathBuf;

use candle_core::DType;
use stream_grad::StreamError;

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
    /// The file's name does not say how its weights are stored.
    #[error("`{}`: expected a name ending in .safetensors, .pth, .pt or .bin", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("reading weights from `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What candle found.
        source: candle_core::Error,
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
    #[error("`{}` lacks `{name}`, expected with shape {expected:?}", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
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
    /// A tensor is not of a floating type.
    #[error("`{}`, tensor `{name}`: expected floating-point numbers, found {found:?}", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Its type in the file.
        found: DType,
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
