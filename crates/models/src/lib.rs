//! Reference networks for gradient streaming, with torchvision's weight names.
//!
//! A *network* here is the part of a classifier that is streamed: everything before the global pooling. What comes
//! after it, on features small enough to be held whole, is a [`Head`].
//!
//! ```
//! use candle_core::{DType, Device};
//! use candle_nn::VarMap;
//! use stream_grad_models::{GlobalPooling, Head, HeadConfig, ModelName, seeded};
//!
//! let variables = VarMap::new();
//! let vb = seeded(&variables, 1, DType::F32, &Device::Cpu);
//! let name: ModelName = "resnet18".parse()?;
//! let net = name.build(vb.clone())?;
//! let config = HeadConfig::new(vec![GlobalPooling::Average]);
//! let head = Head::new(&config, net.output_channels().sum(), 10, vb)?;
//! assert_eq!(head.inputs(), 512);
//! # Ok::<(), stream_grad_models::ModelError>(())
//! ```

pub mod generator;

mod convnext;
mod error;
mod fpn;
mod head;
mod imagenette;
mod initialise;
mod mobilenet;
mod patches;
mod plain;
mod registry;
mod resnet;
mod sequential;
mod small;
mod unet;
mod weights;

pub use convnext::ConvNeXtConfig;
pub use error::{ModelError, Result};
pub use fpn::FpnConfig;
pub use head::{GlobalPooling, Head, HeadConfig, Mode, Standardisation};
pub use imagenette::{ImagenetteStem, ImagenetteTail};
pub use initialise::seeded;
pub use mobilenet::MobileNetV2Config;
pub use plain::PlainConfig;
pub use registry::{KNOWN_MODELS, ModelName, ObservedBorders, ResNetName};
pub use resnet::{ResNetConfig, ResidualBlock, resnet18, resnet34, resnet50};
pub use sequential::{imagenette, numerics};
pub use small::SmallConfig;
pub use unet::UNetConfig;
pub use weights::{Comparison, Loaded, StateDict, load_map, load_net, save_map, save_tensors};
