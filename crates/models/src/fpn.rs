//! A feature pyramid network on a ResNet, under torchvision's names.
//!
//! Source: Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks for Object Detection", CVPR 2017, section 3; layout
//! and names as in torchvision's `resnet_fpn_backbone` (version 0.29).

use candle_nn::VarBuilder;
use stream_grad::{Conv2d, Net, NetBuilder, Pool2d};

use crate::error::{Result, check_range};
use crate::resnet::ResNetConfig;

/// A pyramid of features at 1/4, 1/8, 1/16, 1/32 and 1/64 of the image, rounded up.
///
/// A head takes all levels, by [`Plan::forward_all`](stream_grad::Plan::forward_all) and [`Head::pooled_all`](crate::Head::pooled_all).
///
/// ```
/// use stream_grad_models::{FpnConfig, ResNetConfig};
/// assert_eq!(FpnConfig::new(ResNetConfig::resnet50()).out_channels, 256);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FpnConfig {
    /// What the image goes through first.
    pub body: ResNetConfig,
    /// Channels of each level.
    pub out_channels: usize,
}

impl FpnConfig {
    /// A pyramid of 256 channels.
    #[must_use]
    pub const fn new(body: ResNetConfig) -> Self {
        Self {
            body,
            out_channels: 256,
        }
    }

    /// Builds the network; its outputs are `0` (the finest) to `3`, and `pool`.
    ///
    /// # Errors
    /// Channels outside 1 to 65536, or a parameter that is missing or misshapen.
    pub fn build(&self, vb: VarBuilder<'_>) -> Result<Net> {
        check_range("FPN channels", self.out_channels, 1..=65_536, "1 to 65536")?;
        let mut net = NetBuilder::new(self.body.input_channels);
        let [_, stages @ ..] = self.body.stages(&mut net, &vb.pp("body"))?;
        let vb = vb.pp("fpn");
        let mut levels = Vec::with_capacity(stages.len() + 1);
        let mut coarser = None;
        for (index, stage) in stages.into_iter().enumerate().rev() {
            let inner = Conv2d::new(net.channels(stage)?, self.out_channels, 1);
            let inner = net.conv2d(stage, inner, vb.pp("inner_blocks").pp(index).pp(0))?;
            let inner = match coarser {
                Some(coarser) => {
                    let above = net.upsample_nearest_like(coarser, 2, inner)?;
                    net.add(inner, above)?
                }
                None => inner,
            };
            coarser = Some(inner);
            let layer = Conv2d::new(self.out_channels, self.out_channels, 3).padding(1);
            let layer = net.conv2d(inner, layer, vb.pp("layer_blocks").pp(index).pp(0))?;
            levels.push((index.to_string(), layer));
        }
        levels.reverse();
        if let Some((_, coarsest)) = levels.last() {
            let pool = net.max_pool2d(*coarsest, Pool2d::new(1).stride(2))?;
            levels.push(("pool".to_owned(), pool));
        }
        Ok(net.build_named(levels)?)
    }
}
