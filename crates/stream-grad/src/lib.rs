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

mod calibration;
mod cost_model;
mod engine;
mod error;
mod exchange;
mod front;
mod fuse;
mod gradients;
mod layers;
mod local;
mod net;
mod observer;
mod operation;
mod parameter;
mod part;
mod plan;
mod planning;
mod prepared;
mod probe;
mod reads;
mod request;
mod residuals;
mod scalar;
mod spill;
mod threads;
mod tile;
mod weights;
mod workspace;

pub use stream_grad_kernels::{Arithmetic, Divisor, Gelu};
pub use stream_grad_tiling as tiling;
pub use stream_grad_tiling::{ByteCount, Corners, Maps};

pub use cost_model::CostModel;
pub use error::{ExternalError, Result, StreamError};
pub use exchange::{CotangentSource, FeatureSink, InputGradientSink, TapSink, TileSource};
pub use front::{FrontRow, front_rows};
pub use layers::{Conv2d, Padding, Pool2d};
pub use local::{CandleFunction, CandleLayer, LocalLayer, LocalRegion, check_gradients};
pub use net::{Layer, Net, NetBuilder};
pub use observer::{NoObserver, Observer, Progress, SweepKind};
pub use parameter::Parameter;
pub use plan::Plan;
pub use probe::{Probe, ProbeOutcome};
pub use request::{InputGradient, PlanRequest, Trainable};
pub use residuals::Residuals;
pub use threads::{THREADS_PER_CORE, check_threads, cores};
pub use tile::{PixelRegion, Strided, StridedMut, TileMut, TileRef};
pub use workspace::Workspace;
