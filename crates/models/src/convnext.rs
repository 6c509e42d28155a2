//! ConvNeXt under torchvision's names.
//!
//! Source: Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, "A ConvNet for the 2020s", CVPR 2022, section 2 and appendix A; layout and names
//! as in torchvision's `models/convnext.py` (version 0.29), whose `classifier.0`, a norm of the pooled features, is the head's.

use candle_nn::VarBuilder;
use stream_grad::{Conv2d, Gelu, Layer, Net, NetBuilder};

use crate::error::{Result, check_range};

/// The epsilon of ConvNeXt's norms.
const NORM_EPSILON: f64 = 1e-6;
/// What each channel of a block's branch is multiplied by at the start of a training.
const LAYER_SCALE: f64 = 1e-6;
/// How much wider a block is inside.
const EXPANSION: usize = 4;

/// A ConvNeXt up to, and without, the global pooling.
///
/// ```
/// use stream_grad_models::ConvNeXtConfig;
/// assert_eq!(ConvNeXtConfig::tiny().output_channels(), 768);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ConvNeXtConfig {
    /// Channels of the first stage; each later stage is twice as wide as the one before.
    pub base_width: usize,
    /// Blocks in each of the four stages.
    pub depths: [usize; 4],
    /// Channels of the image.
    pub input_channels: usize,
    /// How probable it is that a training step does without the last block's branch; from the first block on, where it is 0, it rises
    /// evenly. 0 or more and less than 1.
    pub stochastic_depth_prob: f64,
}

impl ConvNeXtConfig {
    /// ConvNeXt-T.
    pub const fn tiny() -> Self {
        Self {
            base_width: 96,
            depths: [3, 3, 9, 3],
            input_channels: 3,
            stochastic_depth_prob: 0.1,
        }
    }

    /// ConvNeXt-S.
    pub const fn small() -> Self {
        Self {
            depths: [3, 3, 27, 3],
            stochastic_depth_prob: 0.4,
            ..Self::tiny()
        }
    }

    /// Another width.
    #[must_use]
    pub const fn base_width(mut self, channels: usize) -> Self {
        self.base_width = channels;
        self
    }

    /// Channels of the features.
    pub const fn output_channels(&self) -> usize {
        self.base_width.saturating_mul(8)
    }

    /// Builds the network; `vb` hands out the parameters under torchvision's names.
    ///
    /// # Errors
    /// A width or depth outside 1 to 65536 or 1 to 1024, or a parameter that is missing or misshapen.
    pub fn build(&self, vb: VarBuilder<'_>) -> Result<Net> {
        let width = 1..=65_536;
        check_range(
            "ConvNeXt base width",
            self.base_width,
            width.clone(),
            "1 to 65536",
        )?;
        check_range(
            "ConvNeXt input channels",
            self.input_channels,
            width,
            "1 to 65536",
        )?;
        for depth in self.depths {
            check_range("ConvNeXt blocks in a stage", depth, 1..=1024, "1 to 1024")?;
        }
        let vb = vb.pp("features");
        let mut net = NetBuilder::new(self.input_channels);
        let stem = Conv2d::new(self.input_channels, self.base_width, 4).stride(4);
        let x = net.conv2d(net.input(), stem, vb.pp("0.0"))?;
        let mut x = net.layer_norm(x, NORM_EPSILON, vb.pp("0.1"))?;
        let blocks: usize = self.depths.iter().sum();
        let mut probabilities = (0..blocks).map(|block| self.drop_probability(block, blocks));
        for (stage, &depth) in self.depths.iter().enumerate() {
            if stage > 0 {
                let vb = vb.pp(2 * stage);
                let width = self.base_width << stage;
                x = net.layer_norm(x, NORM_EPSILON, vb.pp(0))?;
                x = net.conv2d(x, Conv2d::new(width / 2, width, 2).stride(2), vb.pp(1))?;
            }
            let vb = vb.pp(2 * stage + 1);
            for index in 0..depth {
                let probability = probabilities.next().unwrap_or(0.0);
                x = block(&mut net, x, probability, &vb.pp(index))?;
            }
        }
        Ok(net.build(x)?)
    }

    #[expect(clippy::cast_precision_loss, reason = "blocks are few")]
    fn drop_probability(&self, block: usize, blocks: usize) -> f64 {
        self.stochastic_depth_prob * block as f64 / (blocks as f64 - 1.0).max(1.0)
    }
}

/// A depthwise 7x7 convolution, a norm and two linear layers, scaled and added to `x`.
fn block(
    net: &mut NetBuilder,
    x: Layer,
    drop_probability: f64,
    vb: &VarBuilder<'_>,
) -> Result<Layer> {
    let channels = net.channels(x)?;
    let members = vb.pp("block");
    let depthwise = Conv2d::new(channels, channels, 7)
        .padding(3)
        .groups(channels);
    let y = net.conv2d(x, depthwise, members.pp(0))?;
    let y = net.layer_norm(y, NORM_EPSILON, members.pp(2))?;
    let y = net.linear(y, EXPANSION * channels, members.pp(3))?;
    let y = net.gelu(y, Gelu::Exact)?;
    let y = net.linear(y, channels, members.pp(5))?;
    let y = net.layer_scale(y, LAYER_SCALE, vb.clone())?;
    let y = net.stochastic_depth(y, drop_probability, vb.pp("stochastic_depth"))?;
    Ok(net.add(x, y)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;

    fn count(config: &ConvNeXtConfig) -> usize {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let net = config.build(vb).unwrap();
        let parameters = net.parameters().iter();
        assert!(net.output_channels().eq([config.output_channels()]));
        parameters
            .map(|parameter| parameter.tensor.elem_count())
            .sum()
    }

    /// torchvision's numbers of parameters, less those of its classifier.
    #[test]
    fn has_as_many_parameters_as_torchvision() {
        let classifier = 2 * 768 + 769_000;
        assert_eq!(count(&ConvNeXtConfig::tiny()), 28_589_128 - classifier);
        assert_eq!(count(&ConvNeXtConfig::small()), 50_223_688 - classifier);
    }

    /// `stochastic_depth_prob * stage_block_id / (total_stage_blocks - 1.0)` of torchvision.
    #[test]
    fn later_blocks_are_dropped_more_often() {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let net = ConvNeXtConfig::tiny().base_width(2).build(vb).unwrap();
        let found: Vec<f64> = net.branch_probabilities().collect();
        let expected = (0..18_u32).map(|block| 0.1 * f64::from(block) / 17.0);
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    /// Fused with the convolution before, so that no block is a node longer.
    #[test]
    fn dropping_takes_no_operation_of_its_own() {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let net = ConvNeXtConfig::tiny().base_width(2).build(vb).unwrap();
        let names: Vec<&str> = net.operation_names().collect();
        let own = |name: &&&str| name.contains("stochastic_depth") || name.contains("layer_scale");
        assert_eq!(names.iter().filter(own).count(), 0, "{names:?}");
    }

    #[test]
    fn refuses_a_probability_of_one() {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let mut config = ConvNeXtConfig::tiny().base_width(2);
        config.stochastic_depth_prob = 1.0;
        let error = config.build(vb).unwrap_err().to_string();
        assert!(
            error.contains("features.7.2.stochastic_depth") && error.contains("probability is 1"),
            "{error}"
        );
    }

    #[test]
    fn refuses_settings_of_zero() {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let error = ConvNeXtConfig::tiny().base_width(0).build(vb).unwrap_err();
        assert!(error.to_string().contains("ConvNeXt base width"), "{error}");
    }
}
