//! Everything that planning and streaming can refuse.

use std::path::PathBuf;

use stream_grad_kernels::KernelError;
use stream_grad_tiling::{Rect, TilingError};

/// An error of a [`TileSource`](crate::TileSource), a sink or a user's layer.
pub type ExternalError = Box<dyn std::error::Error + Send + Sync>;

/// What this crate's functions return.
pub type Result<T, E = StreamError> = std::result::Result<T, E>;

/// What went wrong where a buffer does not hold what it must.
pub(crate) const OUTSIDE: &str = "a region lies outside its buffer";

/// Why a network, a plan or a sweep was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Geometry: image too small, cuts, budget.
    #[error(transparent)]
    Geometry(#[from] TilingError),
    /// A parameter could not be had, or its gradient not be taken.
    #[error("layer `{layer}`: {source}")]
    Parameter {
        /// The name of the layer or of the parameter.
        layer: String,
        /// Why.
        source: ExternalError,
    },
    /// An operation on whole tensors failed.
    #[error("tensor operation: {0}")]
    Tensor(ExternalError),
    /// A backend has no kernels for an operator.
    #[error("layer `{layer}`: the backend {backend} has no kernels for {kind}")]
    Unsupported {
        /// The layer's name.
        layer: String,
        /// What kind of operator it is.
        kind: &'static str,
        /// The backend's name.
        backend: &'static str,
    },
    /// A kernel refused its arguments.
    #[error("layer `{layer}`: {source}")]
    Kernel {
        /// The layer's name.
        layer: String,
        /// The kernel's error.
        source: KernelError,
    },
    /// A layer was given an input with the wrong number of channels.
    #[error("layer `{layer}`: expected {expected} input channels, found {found}")]
    Channels {
        /// The layer's name.
        layer: String,
        /// What the layer takes.
        expected: usize,
        /// What its input has.
        found: usize,
    },
    /// A layer's setting that cannot be used.
    #[error("layer `{layer}`: {setting} is {found}, expected {expected}")]
    Setting {
        /// The layer's name.
        layer: String,
        /// Which setting.
        setting: &'static str,
        /// What was found.
        found: String,
        /// What is legal.
        expected: &'static str,
    },
    /// A parameter's shape differs from what its layer needs.
    #[error("parameter `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The parameter's name.
        name: String,
        /// What the layer needs.
        expected: Vec<usize>,
        /// What was found.
        found: Vec<usize>,
    },
    /// A layer handle of another builder, or a network without layers.
    #[error("layer handle {found} does not belong to this builder, which has {layers} layers")]
    UnknownLayer {
        /// The handle's index.
        found: usize,
        /// Number of layers of the builder.
        layers: usize,
    },
    /// A dtype that streaming does not compute in.
    #[error("dtype {found} is not supported here, expected F32, F64 or BF16")]
    DType {
        /// What was asked for.
        found: String,
    },
    /// Sums of gradients do not go with those that they are to be added to, or with the plan.
    #[error("sums of gradients: expected {expected}, found {found}")]
    GradientSums {
        /// What fits.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A source, a cotangent or residuals do not fit the plan.
    #[error("{what}: the plan is for {expected}, found {found}")]
    PlanMismatch {
        /// What differs.
        what: &'static str,
        /// The plan's value.
        expected: String,
        /// The value that was found.
        found: String,
    },
    /// The source failed to deliver a region.
    #[error("reading image {image}, {region}: {source}")]
    Source {
        /// Index in the batch.
        image: usize,
        /// What was asked for, in pixels.
        region: Rect,
        /// The source's error.
        source: ExternalError,
    },
    /// A feature sink, cotangent source or gradient sink failed.
    #[error("{what}, image {image}, {region}: {source}")]
    Exchange {
        /// Which one.
        what: &'static str,
        /// Index in the batch.
        image: usize,
        /// What was handed over, in the map's own positions.
        region: Rect,
        /// Its error.
        source: ExternalError,
    },
    /// A user's layer failed.
    #[error("layer `{layer}`: {source}")]
    LocalLayer {
        /// The layer's name.
        layer: String,
        /// Its error.
        source: ExternalError,
    },
    /// A user's layer gave something else than it was asked for.
    #[error("layer `{layer}`, {what}: expected {expected}, found {found}")]
    LocalResult {
        /// The layer's name.
        layer: String,
        /// Which result.
        what: String,
        /// What was asked for.
        expected: String,
        /// What it gave.
        found: String,
    },
    /// A user's layer gives other values for a region than for the whole.
    #[error(
        "layer `{layer}`: output {entry:?} (channel, row, column) is {expected} where all outputs are asked for, and {found} for {region}"
    )]
    RegionDependence {
        /// The layer's name.
        layer: String,
        /// Channel, row and column of the output.
        entry: Vec<usize>,
        /// Which outputs were asked for.
        region: String,
        /// Its value where all outputs are asked for.
        expected: f64,
        /// Its value for the region.
        found: f64,
    },
    /// A gradient of a user's layer that is not that of its values.
    #[error(
        "layer `{layer}`, gradient of {entry}: expected {expected} by differences of the outputs, found {found} ({region})"
    )]
    Gradient {
        /// The layer's name.
        layer: String,
        /// The input or the parameter by name, and which of its entries.
        entry: String,
        /// Which outputs were asked for.
        region: String,
        /// What differences of the outputs give.
        expected: f64,
        /// What the layer gives.
        found: f64,
    },
    /// No gradient reached the features.
    #[error("the loss does not depend on the features: no gradient reaches them")]
    NoCotangent,
    /// More threads than there is use for.
    #[error("{threads} threads on {cores} cores: expected at most {most}, four for each core")]
    TooManyThreads {
        /// How many threads were asked for.
        threads: usize,
        /// Cores that this process may use.
        cores: usize,
        /// The most threads that are let to work.
        most: usize,
    },
    /// The thread pool could not be made.
    #[error("making a pool of {threads} threads: {reason}")]
    Threads {
        /// How many threads were asked for.
        threads: usize,
        /// Why it failed.
        reason: String,
    },
    /// The file for what is saved could not be made, written or read.
    #[error("{what} the offload folder {}: {source}", .folder.display())]
    Offload {
        /// The folder that was given for it.
        folder: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A buffer was not where the plan puts it. This is a defect of this crate: please report it.
    #[error("internal error in layer `{layer}`: {what}")]
    Internal {
        /// The layer's name.
        layer: String,
        /// What went wrong.
        what: &'static str,
    },
}
