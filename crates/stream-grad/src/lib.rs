//! Train convolutional networks on images of any size: exact gradients, tile by tile, on Candle tensors.
//!
//! A convolutional network normally needs memory in proportion to the image. Streaming runs forward and backward
//! on small tiles and gives exactly the gradients of the whole image; nothing is computed twice but one
//! forward pass, any size is taken, and the peak is known before anything runs.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{VarBuilder, VarMap};
//! use stream_grad::{Conv2d, NetBuilder, PlanRequest, Pool2d};
//!
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let mut net = NetBuilder::new(3);
//! let x = net.conv2d(net.input(), Conv2d::new(3, 8, 3).padding(1), vb.pp("conv"))?;
//! let x = net.relu(x)?;
//! let x = net.max_pool2d(x, Pool2d::new(2))?;
//! let net = net.build(x)?;
//!
//! let image = Tensor::randn(0f32, 1f32, (1, 3, 100, 75), &Device::Cpu)?;
//! let plan = net.plan(PlanRequest::new(100, 75).tile(32))?;
//! let (features, residuals) = plan.forward(&image)?;
//! let loss = features.sqr()?.mean_all()?;                       // any head and loss
//! let gradients = plan.backward(residuals, &features, &loss)?;
//! assert!(gradients.get(&net.parameters()[0].tensor).is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod branch;
mod local;
mod net;
mod ones;
mod parameter;
mod plan;
mod stochastic_depth;
mod tensors;

pub use stream_grad_engine::{
    AlignCorners, Arithmetic, ByteCount, CheckedSource, ComputedTiles, Conv2d, ConvTranspose2d,
    CostModel, CotangentSource, CountIncludePad, DType, ExternalError, FeatureSink, FrontRow, Gelu,
    GradientSums, InputGradient, InputGradientSink, Layer, LocalRegion, Maps, NoObserver, Observer,
    Padding, PlanRequest, Pool2d, Probe, ProbeOutcome, Progress, Rect, Residuals, Result, Span,
    Storage, Stored, StreamError, Strided, StridedMut, SweepKind, THREADS_PER_CORE, TapSink,
    TileMut, TileRef, TileSource, Trainable, WholeMap, WholeMaps, Workspace, bf16, check_threads,
    cores, front_rows, tiling,
};

pub use local::{CandleFunction, CandleLayer, LocalLayer, check_gradients};
pub use net::{Net, NetBuilder};
pub use ones::Ones;
pub use parameter::Parameter;
pub use plan::Plan;
