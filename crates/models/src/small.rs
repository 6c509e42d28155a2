//! A family of small pre-activation ResNets for training on CPUs.
//!
//! Norms over the channels of each pixel are local, so they stream and are trained; no running statistics are needed.
//! Source of the block: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016, Figure 1(b),
//! with a trainable gain on the branch.

use candle_nn::VarBuilder;
use stream_grad::{Conv2d, Layer, Net, NetBuilder};

use crate::error::{Result, check_range};

const NORM_EPSILON: f64 = 1e-3;
const INITIAL_GAIN: f64 = 0.5;

/// Width in multiples of the stem's, and stride, of each stage.
const STAGES: [(usize, usize); 4] = [(1, 1), (2, 2), (4, 2), (4, 2)];

/// A small residual network, up to and without the global pooling; total stride 16.
///
/// A 5x5 convolution of stride 2 (`stem`), four stages of `depth` blocks with 1, 2, 4 and 4 times `width` channels
/// (`blocks.<i>`), a norm (`norm`) and ReLU. A block is `norm1`, ReLU, `conv1` (3x3), `norm2`, ReLU, `conv2` (3x3),
/// times `gain`, plus the block's input, which `shortcut` (1x1) projects where shapes differ.
///
/// ```
/// use stream_grad_models::SmallConfig;
/// assert_eq!(SmallConfig::default().output_channels(), 64);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SmallConfig {
    /// Channels of the stem.
    pub width: usize,
    /// Blocks in each of the four stages.
    pub depth: usize,
}

impl Default for SmallConfig {
    fn default() -> Self {
        Self {
            width: 16,
            depth: 1,
        }
    }
}

impl SmallConfig {
    /// Channels of the features.
    pub const fn output_channels(&self) -> usize {
        self.width.saturating_mul(4)
    }

    /// Builds the network for images of three channels.
    ///
    /// # Errors
    /// A width or depth outside 1 to 65536 or 1 to 1024, or a parameter that is missing or misshapen.
    pub fn build(&self, vb: VarBuilder<'_>) -> Result<Net> {
        check_range(
            "small network's width",
            self.width,
            1..=65_536,
            "1 to 65536",
        )?;
        check_range("small network's depth", self.depth, 1..=1024, "1 to 1024")?;
        let mut net = NetBuilder::new(3);
        let stem = Conv2d::new(3, self.width, 5).stride(2).padding(2);
        let mut x = net.conv2d(net.input(), stem, vb.pp("stem"))?;
        let blocks = vb.pp("blocks");
        let mut index = 0_usize;
        for (multiple, stride) in STAGES {
            for stride in (0..self.depth).map(|block| if block == 0 { stride } else { 1 }) {
                x = block(
                    &mut net,
                    x,
                    self.width * multiple,
                    stride,
                    &blocks.pp(index),
                )?;
                index += 1;
            }
        }
        let x = net.layer_norm(x, NORM_EPSILON, vb.pp("norm"))?;
        let x = net.relu(x)?;
        Ok(net.build(x)?)
    }
}

fn block(
    net: &mut NetBuilder,
    x: Layer,
    out_channels: usize,
    stride: usize,
    vb: &VarBuilder<'_>,
) -> Result<Layer> {
    let in_channels = net.channels(x)?;
    // The identity comes first: then the sum is part of the branch's last convolution.
    let identity = if stride != 1 || in_channels != out_channels {
        let projection = Conv2d::new(in_channels, out_channels, 1).stride(stride);
        net.conv2d(x, projection, vb.pp("shortcut"))?
    } else {
        x
    };
    let y = net.layer_norm(x, NORM_EPSILON, vb.pp("norm1"))?;
    let y = net.relu(y)?;
    let first = Conv2d::new(in_channels, out_channels, 3)
        .stride(stride)
        .padding(1);
    let y = net.conv2d(y, first, vb.pp("conv1"))?;
    let y = net.layer_norm(y, NORM_EPSILON, vb.pp("norm2"))?;
    let y = net.relu(y)?;
    let y = net.conv2d(
        y,
        Conv2d::new(out_channels, out_channels, 3).padding(1),
        vb.pp("conv2"),
    )?;
    let y = net.scale(y, INITIAL_GAIN, vb.pp("gain"))?;
    Ok(net.add(identity, y)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;

    #[test]
    fn keeps_its_names() {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let net = SmallConfig { width: 2, depth: 2 }.build(vb).unwrap();
        let names: Vec<&str> = net.parameters().iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names[..2], ["stem.weight", "stem.bias"]);
        assert_eq!(names[names.len() - 2..], ["norm.weight", "norm.bias"]);
        for name in [
            "blocks.7.gain.weight",
            "blocks.2.shortcut.bias",
            "blocks.0.norm1.weight",
        ] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        assert!(
            !names.contains(&"blocks.0.shortcut.weight"),
            "stage 1 keeps its shape"
        );
        assert!(
            !names.contains(&"blocks.8.conv1.weight"),
            "there are 8 blocks"
        );
        assert!(net.output_channels().eq([8]));
        assert_eq!(net.output_extent(64, 63).unwrap(), (4, 4));
    }
}
