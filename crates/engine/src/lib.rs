//! Gradient streaming without a tensor library: what networks compute, plans, and the sweeps over tiles.
//!
//! - An [operator](NetworkBuilder) says everything that geometry, planning and the sweeps must know of what a node computes.
//! - A [`Backend`] is a device: memory, and kernels on rectangles that lie in it. The processor, [`Cpu`], is one.
//! - A [`Plan`] is made without touching a pixel, from a [`Network`] and a [`PlanRequest`]. It runs on any [`TileSource`].
//!
//! `stream-grad` puts candle's tensors on this. The feature `candle` holds what Rust lets nobody else write: the traits of this
//! crate for candle's types.

mod backend;
mod calibration;
#[cfg(feature = "candle")]
mod candle;
mod channel_map;
mod checked_source;
mod cost_model;
mod custom_scratch;
mod element;
mod error;
mod exchange;
mod front;
mod gradient_sums;
mod layers;
mod maps;
mod network;
mod observer;
mod offload;
mod operator;
mod operators;
mod parameter;
mod plan;
mod planar;
mod planning;
mod prepared;
mod probe;
mod reads;
mod request;
mod residuals;
mod sweep;
mod threads;
mod tile;
mod wanted;
mod workspace;

pub use stream_grad_kernels::{
    Arithmetic, CountIncludePad, Gelu, Padding, Pointwise, Storage, bf16,
};
pub use stream_grad_tiling as tiling;
pub use stream_grad_tiling::{AlignCorners, ByteCount, Maps, Span};

pub use backend::{
    Backend, Buffer, Combine, ConvolutionOperands, Cpu, Kernel, Mapping, Memory, NormOperands,
    Pooling, Rect, Slab, Slabs, Transposed,
};
pub use checked_source::CheckedSource;
pub use cost_model::CostModel;
pub use element::{Compute, DType, RequestedDType, Stored, Values, ValuesMut};
pub use error::{ExternalError, Result, StreamError};
pub use exchange::{CotangentSource, FeatureSink, InputGradientSink, TapSink, TileSource};
pub use front::{FrontRow, front_rows};
pub use gradient_sums::GradientSums;
pub use layers::{Conv2d, ConvTranspose2d, Pool2d};
pub use maps::{WholeMap, WholeMaps};
pub use network::{
    Initial, Layer, Model, Network, NetworkBuilder, ParameterProvider, ParameterRequest, Provided,
};
pub use observer::{NoObserver, Observer, Progress, SweepKind};
pub use operators::{CustomOperator, CustomState, LocalRegion};
pub use parameter::{
    GradientSink, OwnedGradients, OwnedModel, OwnedParameters, ParameterId, ParameterShape,
    ParameterValues,
};
pub use plan::{ComputedTiles, Exchange, Plan};
pub use planning::front;
pub use probe::{Probe, ProbeOutcome};
pub use request::PlanRequest;
pub use residuals::{BackendResiduals, Residuals};
pub use threads::{THREADS_PER_CORE, check_threads, cores};
pub use tile::{Strided, StridedMut, TileMut, TileRef};
pub use wanted::{InputGradient, Trainable};
pub use workspace::Workspace;
