//! The small networks of the published notebooks, under the names of an `nn.Sequential`.
//!
//! Source: Pinckaers, van Ginneken, Litjens, "Streaming convolutional neural networks for end-to-end learning with
//! multi-megapixel images", TPAMI 2022, and the notebooks of github.com/DIAGNijmegen/StreamingCNN.

use candle_nn::VarBuilder;
use stream_grad::{Conv2d, Net, NetBuilder, Pool2d};

use crate::error::Result;

/// A member of a sequence; each takes one index, as in PyTorch.
enum Member {
    Conv(Conv2d),
    Relu,
    MaxPool(usize),
}

fn sequential(members: impl IntoIterator<Item = Member>, vb: &VarBuilder<'_>) -> Result<Net> {
    let mut net = NetBuilder::new(3);
    let mut x = net.input();
    for (index, member) in members.into_iter().enumerate() {
        x = match member {
            Member::Conv(config) => net.conv2d(x, config, vb.pp(index))?,
            Member::Relu => net.relu(x)?,
            Member::MaxPool(size) => net.max_pool2d(x, Pool2d::new(size))?,
        };
    }
    Ok(net.build(x)?)
}

/// The paper's comparison network: three times (3x3 convolution, ReLU, 3x3 convolution, ReLU, max-pooling by 2), 16
/// channels throughout, no padding. Parameters `0.weight`, `0.bias`, `2.weight`, … `12.bias`.
///
/// # Errors
/// A parameter that is missing or misshapen.
pub fn numerics(vb: VarBuilder<'_>) -> Result<Net> {
    let block = |in_channels| {
        [
            Member::Conv(Conv2d::new(in_channels, 16, 3)),
            Member::Relu,
            Member::Conv(Conv2d::new(16, 16, 3)),
            Member::Relu,
            Member::MaxPool(2),
        ]
    };
    sequential([3, 16, 16].into_iter().flat_map(block), &vb)
}

/// The streamed part of the paper's Imagenette network: twice (3x3 convolution with padding 1, ReLU, max-pooling by
/// 2), with 16 and 32 channels. Parameters `0.weight`, `0.bias`, `3.weight`, `3.bias`. The rest of the network is
/// [`ImagenetteTail`](crate::ImagenetteTail).
///
/// # Errors
/// A parameter that is missing or misshapen.
pub fn imagenette(vb: VarBuilder<'_>) -> Result<Net> {
    let block = |(in_channels, out_channels)| {
        [
            Member::Conv(Conv2d::new(in_channels, out_channels, 3).padding(1)),
            Member::Relu,
            Member::MaxPool(2),
        ]
    };
    sequential([(3, 16), (16, 32)].into_iter().flat_map(block), &vb)
}
