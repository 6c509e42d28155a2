//! MobileNetV2 with frozen norms, under torchvision's names.
//!
//! Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, Table 2; layout
//! and names as in torchvision's `models/mobilenetv2.py` (version 0.29).

use candle_nn::VarBuilder;
use stream_grad::{Conv2d, Layer, Net, NetBuilder};

use crate::error::{Result, check_range};

/// The epsilon of torchvision's norms.
const NORM_EPSILON: f64 = 1e-5;

/// Expansion, channels, blocks and stride of each stage.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];
const STEM: usize = 32;
const LAST: usize = 1280;

/// A MobileNetV2 up to, and without, the global pooling.
///
/// ```
/// use stream_grad_models::MobileNetV2Config;
/// assert_eq!(MobileNetV2Config::default().output_channels(), 1280);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MobileNetV2Config {
    /// By how many percent of the paper's channels layers are wide, 1 to 400; channels are rounded to multiples of 8, as in
    /// torchvision, and no narrower than nine tenths of what is asked for.
    pub width_percent: usize,
}

impl Default for MobileNetV2Config {
    fn default() -> Self {
        Self { width_percent: 100 }
    }
}

impl MobileNetV2Config {
    /// Channels of the features.
    #[must_use]
    pub const fn output_channels(self) -> usize {
        if self.width_percent > 100 {
            self.channels(LAST)
        } else {
            LAST
        }
    }

    /// Builds the network; `vb` hands out the parameters under torchvision's names.
    ///
    /// # Errors
    /// A width outside 1 to 400, or a parameter that is missing or misshapen.
    pub fn build(self, vb: VarBuilder<'_>) -> Result<Net> {
        check_range(
            "MobileNetV2 width in percent",
            self.width_percent,
            1..=400,
            "1 to 400",
        )?;
        let vb = vb.pp("features");
        let mut net = NetBuilder::new(3);
        let stem = Conv2d::new(3, self.channels(STEM), 3).stride(2).padding(1);
        let image = net.input();
        let mut x = activated(&mut net, image, stem, &vb.pp(0))?;
        let mut index = 1;
        for (expansion, channels, blocks, stride) in STAGES {
            for block in 0..blocks {
                let stride = if block == 0 { stride } else { 1 };
                let vb = vb.pp(index).pp("conv");
                x = residual(
                    &mut net,
                    x,
                    (expansion, self.channels(channels)),
                    stride,
                    &vb,
                )?;
                index += 1;
            }
        }
        let last = Conv2d::new(net.channels(x)?, self.output_channels(), 1);
        let x = activated(&mut net, x, last, &vb.pp(index))?;
        Ok(net.build(x)?)
    }

    /// As torchvision's `_make_divisible`.
    const fn channels(self, paper: usize) -> usize {
        let wanted = paper * self.width_percent;
        let rounded = (wanted + 400) / 800 * 8;
        let rounded = if rounded < 8 { 8 } else { rounded };
        if rounded * 1000 < wanted * 9 {
            rounded + 8
        } else {
            rounded
        }
    }
}

/// Convolution, norm and ReLU6.
fn activated(net: &mut NetBuilder, x: Layer, config: Conv2d, vb: &VarBuilder<'_>) -> Result<Layer> {
    let x = net.conv2d(x, config.without_bias(), vb.pp(0))?;
    let x = net.frozen_batch_norm(x, NORM_EPSILON, vb.pp(1))?;
    Ok(net.relu6(x)?)
}

/// Wider by 1x1 where there is an expansion, depthwise 3x3, narrower by 1x1; added to `x` where that fits.
fn residual(
    net: &mut NetBuilder,
    x: Layer,
    (expansion, out_channels): (usize, usize),
    stride: usize,
    vb: &VarBuilder<'_>,
) -> Result<Layer> {
    let in_channels = net.channels(x)?;
    let hidden = expansion * in_channels;
    let mut index = 0;
    let mut y = x;
    if expansion != 1 {
        y = activated(net, y, Conv2d::new(in_channels, hidden, 1), &vb.pp(index))?;
        index += 1;
    }
    let depthwise = Conv2d::new(hidden, hidden, 3).padding(1).stride(stride);
    y = activated(net, y, depthwise.groups(hidden), &vb.pp(index))?;
    let narrow = Conv2d::new(hidden, out_channels, 1).without_bias();
    y = net.conv2d(y, narrow, vb.pp(index + 1))?;
    y = net.frozen_batch_norm(y, NORM_EPSILON, vb.pp(index + 2))?;
    if stride == 1 && in_channels == out_channels {
        y = net.add(x, y)?;
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;

    fn trainable(config: MobileNetV2Config) -> usize {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let net = config.build(vb).unwrap();
        assert!(net.output_channels().eq([config.output_channels()]));
        let parameters = net.parameters().iter();
        let parameters = parameters.filter(|parameter| parameter.trainable);
        parameters
            .map(|parameter| parameter.tensor.elem_count())
            .sum()
    }

    /// torchvision's number of parameters, less those of its classifier.
    #[test]
    fn has_as_many_parameters_as_torchvision() {
        assert_eq!(
            trainable(MobileNetV2Config::default()),
            3_504_872 - 1_281_000
        );
    }

    /// `torchvision.models._utils._make_divisible(paper * percent / 100, 8)`.
    #[test]
    fn channels_are_rounded_as_in_torchvision() {
        for (percent, paper, expected) in [
            (100, 32, 32),
            (35, 32, 16),
            (35, 24, 8),
            (50, 24, 16),
            (75, 96, 72),
            (140, 1280, 1792),
            (10, 16, 8),
            (25, 160, 40),
        ] {
            let config = MobileNetV2Config {
                width_percent: percent,
            };
            assert_eq!(config.channels(paper), expected, "{paper} x {percent}%");
        }
    }

    #[test]
    fn refuses_a_width_of_zero() {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let error = MobileNetV2Config { width_percent: 0 }
            .build(vb)
            .unwrap_err();
        assert!(error.to_string().contains("width"), "{error}");
    }
}
