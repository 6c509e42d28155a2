//! The conventional tail of the paper's Imagenette classifier.

use candle_core::{Module, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, VarBuilder};

use crate::error::{ModelError, Result};
use crate::head::{maximum_rows, uniform_linear};

/// What follows [`imagenette`](crate::imagenette): convolution 64, pooling, convolution 128, pooling, convolution 256,
/// global maximum, linear 10; on candle tensors, with candle's autograd.
///
/// Convolutions are 3x3 with padding 1 and followed by ReLU, pooling is the maximum by 2. Parameters go on with the
/// numbers of the same `nn.Sequential`: `6`, `9`, `12` and, after the global maximum and the flattening, `16`.
#[derive(Debug, Clone)]
pub struct ImagenetteTail {
    convolutions: [Conv2d; 3],
    linear: Linear,
}

impl ImagenetteTail {
    /// Builds the tail; `vb` is the one that the streamed part was built from.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn new(vb: VarBuilder<'_>) -> Result<Self> {
        let conv = |index: usize, in_channels, out_channels| {
            let config = Conv2dConfig {
                padding: 1,
                ..Conv2dConfig::default()
            };
            candle_nn::conv2d(in_channels, out_channels, 3, config, vb.pp(index))
        };
        Ok(Self {
            convolutions: [conv(6, 32, 64)?, conv(9, 64, 128)?, conv(12, 128, 256)?],
            linear: uniform_linear(256, 10, &vb.pp(16))?,
        })
    }

    /// Scores `[N, 10]` of features `[N, 32, H, W]`; `H` and `W` are 4 or more.
    ///
    /// # Errors
    /// Features of another shape.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let fits =
            |&[_, channels, height, width]: &[usize; 4]| channels == 32 && height.min(width) >= 4;
        let shape = <[usize; 4]>::try_from(features.dims()).ok().filter(fits);
        let Some([batch, ..]) = shape else {
            return Err(ModelError::InputShape {
                what: "features for the Imagenette tail",
                expected: "[N, 32, H >= 4, W >= 4]".into(),
                found: features.dims().to_vec(),
            });
        };
        let [first, second, third] = &self.convolutions;
        let x = max_pool_2(&relu(&first.forward(features)?)?)?;
        let x = max_pool_2(&relu(&second.forward(&x)?)?)?;
        let x = relu(&third.forward(&x)?)?;
        let (_, channels, height, width) = x.dims4()?;
        let x = maximum_rows(&x.reshape((batch * channels, height * width))?)?;
        Ok(self.linear.forward(&x.reshape((batch, channels))?)?)
    }
}

/// ReLU with PyTorch's derivative 0 at 0 and with NaN passed on; candle's own drops NaN.
fn relu(x: &Tensor) -> candle_core::Result<Tensor> {
    x.le(0.0)?.where_cond(&x.zeros_like()?, x)
}

/// Maximum over windows of 2x2 without padding; candle's own has another gradient than PyTorch's.
fn max_pool_2(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (rows, columns) = (height / 2, width / 2);
    let x = x.narrow(2, 0, rows * 2)?.narrow(3, 0, columns * 2)?;
    let windows = x.reshape(&[batch * channels, rows, 2, columns, 2][..])?;
    let windows = windows
        .transpose(2, 3)?
        .reshape((batch * channels * rows * columns, 4))?;
    Ok(maximum_rows(&windows)?.reshape((batch, channels, rows, columns))?)
}
