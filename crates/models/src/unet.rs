//! U-Net on a ResNet, under the names of `segmentation_models_pytorch`.
//!
//! Source: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015; layout and names
//! as in `segmentation_models_pytorch` 0.6 (`Unet("resnet18")`): upsampling by the nearest neighbour, no padding lost, norms frozen.

use candle_nn::VarBuilder;
use stream_grad::{Conv2d, Layer, Net, NetBuilder};

use crate::error::{Result, check_range};
use crate::resnet::{ResNetConfig, conv_norm};

/// A U-Net whose logits have the size of the image.
///
/// ```
/// use stream_grad_models::{ResNetConfig, UNetConfig};
/// let config = UNetConfig::new(ResNetConfig::resnet18(), 3);
/// assert_eq!(config.decoder_channels, [256, 128, 64, 32, 16]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UNetConfig {
    /// What the image goes through first.
    pub encoder: ResNetConfig,
    /// Channels after each upsampling, the coarsest first.
    pub decoder_channels: [usize; 5],
    /// Classes, each with a logit for every pixel.
    pub classes: usize,
}

impl UNetConfig {
    /// A U-Net with the usual decoder.
    #[must_use]
    pub const fn new(encoder: ResNetConfig, classes: usize) -> Self {
        Self {
            encoder,
            decoder_channels: [256, 128, 64, 32, 16],
            classes,
        }
    }

    /// Builds the network, with the segmentation head: `[N, C, H, W]` to `[N, classes, H, W]`.
    ///
    /// # Errors
    /// Channels or classes outside 1 to 65536, or a parameter that is missing or misshapen.
    pub fn build(&self, vb: VarBuilder<'_>) -> Result<Net> {
        let range = 1..=65_536;
        check_range("U-Net classes", self.classes, range.clone(), "1 to 65536")?;
        for channels in self.decoder_channels {
            check_range(
                "U-Net decoder channels",
                channels,
                range.clone(),
                "1 to 65536",
            )?;
        }
        let mut net = NetBuilder::new(self.encoder.input_channels);
        let [stem, first, second, third, mut x] =
            self.encoder.stages(&mut net, &vb.pp("encoder"))?;
        // Of the image the last block takes the size alone.
        let skips = [third, second, first, stem, net.input()];
        let blocks = vb.pp("decoder").pp("blocks");
        for (index, (channels, skip)) in self.decoder_channels.into_iter().zip(skips).enumerate() {
            x = decoder_block(&mut net, x, skip, channels, &blocks.pp(index))?;
        }
        let head = Conv2d::new(net.channels(x)?, self.classes, 3).padding(1);
        let logits = net.conv2d(x, head, vb.pp("segmentation_head").pp(0))?;
        Ok(net.build(logits)?)
    }
}

/// Twice as large, joined with what the encoder had there, and two convolutions.
fn decoder_block(
    net: &mut NetBuilder,
    x: Layer,
    skip: Layer,
    channels: usize,
    vb: &VarBuilder<'_>,
) -> Result<Layer> {
    let mut x = net.upsample_nearest_like(x, 2, skip)?;
    if skip != net.input() {
        x = net.concat(&[x, skip])?;
    }
    for name in ["conv1", "conv2"] {
        let config = Conv2d::new(net.channels(x)?, channels, 3).padding(1);
        let vb = vb.pp(name);
        x = conv_norm(net, x, config, vb.pp(0), vb.pp(1))?;
        x = net.relu(x)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;

    fn narrow() -> Net {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let mut config = UNetConfig::new(ResNetConfig::resnet18().base_width(2), 3);
        config.decoder_channels = [8, 6, 4, 3, 2];
        config.build(vb).unwrap()
    }

    #[test]
    fn logits_have_the_size_of_the_image() {
        let net = narrow();
        for extent in [(96, 64), (100, 65), (33, 31)] {
            assert_eq!(net.output_extent(extent.0, extent.1).unwrap(), extent);
        }
        assert!(net.output_channels().eq([3]));
    }
}
