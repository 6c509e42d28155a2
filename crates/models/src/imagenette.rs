//! The parts of the paper's Imagenette classifier that are computed conventionally.

use candle_core::{Module, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, VarBuilder};

use crate::error::{ModelError, Result};
use crate::head::{maximum_rows, uniform_linear};
use crate::patches::patches;

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
        let conv = |index, channels| convolution(index, channels, &vb);
        Ok(Self {
            convolutions: [
                conv(6, (32, 64))?,
                conv(9, (64, 128))?,
                conv(12, (128, 256))?,
            ],
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
        let x = max_pool_2(&relu(&convolve(first, features)?)?)?;
        let x = max_pool_2(&relu(&convolve(second, &x)?)?)?;
        let x = relu(&convolve(third, &x)?)?;
        let (_, channels, height, width) = x.dims4()?;
        let x = maximum_rows(&x.reshape((batch * channels, height * width))?)?;
        Ok(self.linear.forward(&x.reshape((batch, channels))?)?)
    }
}

/// What [`imagenette`](crate::imagenette) streams, in one piece on candle tensors, with candle's autograd: what streaming is
/// compared with.
///
/// Twice (3x3 convolution with padding 1, ReLU, maximum by 2), with 16 and 32 channels; parameters `0` and `3`.
#[derive(Debug, Clone)]
pub struct ImagenetteStem {
    convolutions: [Conv2d; 2],
}

impl ImagenetteStem {
    /// Builds the stem; with the `vb` of the streamed part it has that part's parameters.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn new(vb: VarBuilder<'_>) -> Result<Self> {
        let conv = |index, channels| convolution(index, channels, &vb);
        Ok(Self {
            convolutions: [conv(0, (3, 16))?, conv(3, (16, 32))?],
        })
    }

    /// Features `[N, 32, H / 4, W / 4]`, rounded down, of images `[N, 3, H, W]`; `H` and `W` are 4 or more.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let fits =
            |&[_, channels, height, width]: &[usize; 4]| channels == 3 && height.min(width) >= 4;
        if !<[usize; 4]>::try_from(images.dims()).is_ok_and(|shape| fits(&shape)) {
            return Err(ModelError::InputShape {
                what: "images for the Imagenette stem",
                expected: "[N, 3, H >= 4, W >= 4]".into(),
                found: images.dims().to_vec(),
            });
        }
        let [first, second] = &self.convolutions;
        let x = max_pool_2(&relu(&convolve(first, images)?)?)?;
        max_pool_2(&relu(&convolve(second, &x)?)?)
    }
}

/// A 3x3 convolution with padding 1, from and to some channels.
fn convolution(
    index: usize,
    (in_channels, out_channels): (usize, usize),
    vb: &VarBuilder<'_>,
) -> Result<Conv2d> {
    let config = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    let vb = vb.pp(index);
    Ok(candle_nn::conv2d(in_channels, out_channels, 3, config, vb)?)
}

/// The convolution as a product of its weights and all patches, for candle's autograd. Candle's own has the same values, but its
/// gradient to the input is computed value by value.
fn convolve(layer: &Conv2d, x: &Tensor) -> candle_core::Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let patches = patches(x)?;
    let outputs = layer.weight().dim(0)?;
    let weight = layer.weight().reshape((1, outputs, channels * 9))?;
    let y = weight.broadcast_matmul(&patches)?;
    let y = y.reshape((batch, outputs, height, width))?;
    match layer.bias() {
        Some(bias) => y.broadcast_add(&bias.reshape((1, outputs, 1, 1))?),
        None => Ok(y),
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use candle_nn::VarMap;
    use stream_grad::PlanRequest;

    use super::*;
    use crate::{generator, imagenette, seeded};

    fn generated(name: &str, shape: [usize; 4]) -> Tensor {
        let values = generator::uniform(name).take(shape.iter().product());
        Tensor::from_vec(values.collect::<Vec<f64>>(), &shape[..], &Device::Cpu).unwrap()
    }

    fn largest(x: &Tensor) -> f64 {
        let largest = x.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        largest.to_scalar().unwrap()
    }

    /// In one piece and streamed, odd edges included: values and gradients of all parameters.
    #[test]
    fn the_stem_is_what_is_streamed() {
        for (height, width) in [(32, 32), (37, 50), (4, 7)] {
            let variables = VarMap::new();
            let vb = seeded(&variables, 3, DType::F64, &Device::Cpu);
            let net = imagenette(vb.clone()).unwrap();
            let stem = ImagenetteStem::new(vb).unwrap();
            let image = generated("image", [1, 3, height, width]);
            let cotangent = generated("cotangent", [1, 32, height / 4, width / 4]);

            let request = PlanRequest::new(height as u64, width as u64).tile(8);
            let plan = net.plan(request.dtype(DType::F64)).unwrap();
            let (streamed, residuals) = plan.forward(&image).unwrap();
            let whole = stem.forward(&image).unwrap();
            let difference = largest(&(&streamed - &whole).unwrap());
            assert!(difference < 1e-12, "{height} x {width}: {difference}");

            let gradients = plan
                .vjp(residuals, std::slice::from_ref(&cotangent))
                .unwrap();
            let loss = (whole * cotangent).unwrap().sum_all().unwrap();
            let expected = loss.backward().unwrap();
            for parameter in net.parameters() {
                let variable = Var::from_tensor(&parameter.tensor).unwrap();
                let found = gradients.get(&variable).unwrap();
                let expected = expected.get(&variable).unwrap();
                let difference = largest(&(found - expected).unwrap());
                assert!(difference < 1e-11, "{}: {difference}", parameter.name);
            }
        }
    }

    #[test]
    fn images_of_another_shape_are_refused() {
        let vb = seeded(&VarMap::new(), 1, DType::F64, &Device::Cpu);
        let stem = ImagenetteStem::new(vb).unwrap();
        for shape in [[1, 1, 8, 8], [1, 3, 3, 8]] {
            let error = stem.forward(&generated("image", shape)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "images for the Imagenette stem: expected shape [N, 3, H >= 4, W >= 4], found {shape:?}"
                )
            );
        }
    }
}
