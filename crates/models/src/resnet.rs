//! ResNet with frozen norms, under torchvision's names.
//!
//! Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1; layout and names as
//! in torchvision's `models/resnet.py` (version 0.29), which puts a bottleneck's stride in its 3x3 convolution.

use candle_nn::VarBuilder;
use stream_grad::{Conv2d, Layer, Net, NetBuilder, Pool2d};

use crate::error::{Result, check_range};

/// The epsilon of torchvision's norms.
const NORM_EPSILON: f64 = 1e-5;

/// The shape of a residual block's branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResidualBlock {
    /// Two 3x3 convolutions; the output is as wide as the block.
    Basic,
    /// 1x1, 3x3 and 1x1 convolutions; the output is four times as wide as the block.
    Bottleneck,
}

impl ResidualBlock {
    /// Output channels for each channel of width.
    pub const fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// A ResNet up to, and without, the global pooling.
///
/// ```
/// use stream_grad_models::ResNetConfig;
/// assert_eq!(ResNetConfig::resnet18().output_channels(), 512);
/// assert_eq!(ResNetConfig::resnet50().base_width(8).output_channels(), 256);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResNetConfig {
    /// The kind of block.
    pub block: ResidualBlock,
    /// Blocks in each of the four stages.
    pub depths: [usize; 4],
    /// Channels of the stem and width of the first stage; each later stage is twice as wide as the one before.
    pub base_width: usize,
    /// Channels of the image.
    pub input_channels: usize,
}

impl ResNetConfig {
    /// A ResNet of the usual width, 64, for images of three channels.
    pub const fn new(block: ResidualBlock, depths: [usize; 4]) -> Self {
        Self {
            block,
            depths,
            base_width: 64,
            input_channels: 3,
        }
    }

    /// ResNet-18.
    pub const fn resnet18() -> Self {
        Self::new(ResidualBlock::Basic, [2, 2, 2, 2])
    }

    /// ResNet-34.
    pub const fn resnet34() -> Self {
        Self::new(ResidualBlock::Basic, [3, 4, 6, 3])
    }

    /// ResNet-50.
    pub const fn resnet50() -> Self {
        Self::new(ResidualBlock::Bottleneck, [3, 4, 6, 3])
    }

    /// Another width.
    #[must_use]
    pub const fn base_width(mut self, channels: usize) -> Self {
        self.base_width = channels;
        self
    }

    /// Channels of the features.
    pub const fn output_channels(&self) -> usize {
        self.base_width.saturating_mul(8 * self.block.expansion())
    }

    /// Builds the network; `vb` hands out the parameters under torchvision's names.
    ///
    /// # Errors
    /// A width or depth outside 1 to 65536 or 1 to 1024, or a parameter that is missing or misshapen.
    pub fn build(&self, vb: VarBuilder<'_>) -> Result<Net> {
        let mut net = NetBuilder::new(self.input_channels);
        let [.., features] = self.stages(&mut net, &vb)?;
        Ok(net.build(features)?)
    }

    /// The stem before its pooling, and the four stages, from the image on.
    pub(crate) fn stages(&self, net: &mut NetBuilder, vb: &VarBuilder<'_>) -> Result<[Layer; 5]> {
        self.check()?;
        let stem = Conv2d::new(self.input_channels, self.base_width, 7)
            .stride(2)
            .padding(3);
        let image = net.input();
        let x = conv_norm(net, image, stem, vb.pp("conv1"), vb.pp("bn1"))?;
        let x = net.relu(x)?;
        let mut stages = [x; 5];
        let mut x = net.max_pool2d(x, Pool2d::new(3).stride(2).padding(1))?;
        for (stage, &depth) in self.depths.iter().enumerate() {
            let width = self.base_width << stage;
            let vb = vb.pp(format!("layer{}", stage + 1));
            for index in 0..depth {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                x = self.block.build(net, x, width, stride, &vb.pp(index))?;
            }
            stages[stage + 1] = x;
        }
        Ok(stages)
    }

    fn check(&self) -> Result<()> {
        let width = 1..=65_536;
        check_range(
            "ResNet base width",
            self.base_width,
            width.clone(),
            "1 to 65536",
        )?;
        check_range(
            "ResNet input channels",
            self.input_channels,
            width,
            "1 to 65536",
        )?;
        for depth in self.depths {
            check_range("ResNet blocks in a stage", depth, 1..=1024, "1 to 1024")?;
        }
        Ok(())
    }
}

impl ResidualBlock {
    fn build(
        self,
        net: &mut NetBuilder,
        x: Layer,
        width: usize,
        stride: usize,
        vb: &VarBuilder<'_>,
    ) -> Result<Layer> {
        let in_channels = net.channels(x)?;
        let out_channels = width * self.expansion();
        // The identity comes first: then the sum is part of the branch's last convolution.
        let identity = if stride != 1 || in_channels != out_channels {
            let projection = Conv2d::new(in_channels, out_channels, 1).stride(stride);
            let vb = vb.pp("downsample");
            conv_norm(net, x, projection, vb.pp(0), vb.pp(1))?
        } else {
            x
        };
        let three = |i, o| Conv2d::new(i, o, 3).padding(1);
        let convolutions = match self {
            Self::Basic => vec![
                three(in_channels, width).stride(stride),
                three(width, width),
            ],
            Self::Bottleneck => vec![
                Conv2d::new(in_channels, width, 1),
                three(width, width).stride(stride),
                Conv2d::new(width, out_channels, 1),
            ],
        };
        let last = convolutions.len();
        let mut branch = x;
        for (number, config) in (1..).zip(convolutions) {
            let (conv, norm) = (format!("conv{number}"), format!("bn{number}"));
            branch = conv_norm(net, branch, config, vb.pp(conv), vb.pp(norm))?;
            if number < last {
                branch = net.relu(branch)?;
            }
        }
        let sum = net.add(identity, branch)?;
        Ok(net.relu(sum)?)
    }
}

/// Convolution without bias, and frozen norm.
pub(crate) fn conv_norm(
    net: &mut NetBuilder,
    x: Layer,
    config: Conv2d,
    conv: VarBuilder<'_>,
    norm: VarBuilder<'_>,
) -> Result<Layer> {
    let x = net.conv2d(x, config.without_bias(), conv)?;
    Ok(net.frozen_batch_norm(x, NORM_EPSILON, norm)?)
}

/// ResNet-18 up to the global pooling: `[N, 3, H, W]` to `[N, 512, ⌈H/32⌉, ⌈W/32⌉]`.
///
/// # Errors
/// A parameter that is missing or misshapen.
pub fn resnet18(vb: VarBuilder<'_>) -> Result<Net> {
    ResNetConfig::resnet18().build(vb)
}

/// ResNet-34 up to the global pooling: `[N, 3, H, W]` to `[N, 512, ⌈H/32⌉, ⌈W/32⌉]`.
///
/// # Errors
/// A parameter that is missing or misshapen.
pub fn resnet34(vb: VarBuilder<'_>) -> Result<Net> {
    ResNetConfig::resnet34().build(vb)
}

/// ResNet-50 up to the global pooling: `[N, 3, H, W]` to `[N, 2048, ⌈H/32⌉, ⌈W/32⌉]`.
///
/// # Errors
/// A parameter that is missing or misshapen.
pub fn resnet50(vb: VarBuilder<'_>) -> Result<Net> {
    ResNetConfig::resnet50().build(vb)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;
    use crate::error::ModelError;

    fn count(config: &ResNetConfig) -> (usize, usize) {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let net = config.build(vb).unwrap();
        let trainable = net
            .parameters()
            .iter()
            .filter(|parameter| parameter.trainable);
        let values = trainable
            .clone()
            .map(|parameter| parameter.tensor.elem_count())
            .sum();
        assert!(net.output_channels().eq([config.output_channels()]));
        (trainable.count(), values)
    }

    /// torchvision's numbers of parameters, less those of the final linear layer.
    #[test]
    fn has_as_many_parameters_as_torchvision() {
        assert_eq!(count(&ResNetConfig::resnet18()), (60, 11_689_512 - 513_000));
        assert_eq!(
            count(&ResNetConfig::resnet34()),
            (108, 21_797_672 - 513_000)
        );
        assert_eq!(
            count(&ResNetConfig::resnet50()),
            (159, 25_557_032 - 2_049_000)
        );
    }

    #[test]
    fn rounds_feature_sizes_up() {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let net = ResNetConfig::resnet18().base_width(1).build(vb).unwrap();
        assert_eq!(net.output_extent(97, 83).unwrap(), (4, 3));
        assert_eq!(net.output_extent(1, 1).unwrap(), (1, 1));
    }

    #[test]
    fn a_convolution_takes_norm_sum_and_activation() {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let net = ResNetConfig::resnet18().base_width(1).build(vb).unwrap();
        // The image, the pooling, and 20 convolutions of which three are projections.
        assert_eq!(net.operation_names().count(), 22);
    }

    #[test]
    fn refuses_settings_of_zero() {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let narrow = ResNetConfig::resnet18().base_width(0);
        let shallow = ResNetConfig::new(ResidualBlock::Basic, [1, 0, 1, 1]);
        for config in [narrow, shallow] {
            let error = config.build(vb.clone()).unwrap_err();
            assert!(
                matches!(&error, ModelError::Setting { found, .. } if found == "0"),
                "{error}"
            );
        }
    }
}
