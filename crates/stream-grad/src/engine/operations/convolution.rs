//! Convolutions with what was fused into them.

use stream_grad_kernels::{
    Activation, Epilogue, Located, Windows, affine_vjp_in_place, bias_gradient, conv_data_gradient,
    conv_forward, conv_weight_gradient, relu_vjp_and_bias_gradient,
};

use super::step::{ForwardStep, VjpStep, located, origin};
use crate::error::{Result, StreamError};
use crate::operation::ConvolutionOperation;
use crate::prepared::{DataGradient, PreparedOperation, kernel_error};
use crate::scalar::Scalar;

impl<T: Scalar> ForwardStep<'_, '_, T> {
    pub(super) fn convolution(mut self, convolution: &ConvolutionOperation) -> Result<()> {
        let PreparedOperation::Convolution { weights, bias } = self.prepared() else {
            return Err(self.unprepared());
        };
        let (name, owned, first) = (self.name(), self.owned, self.first(self.input(0)));
        let (input, output) = (self.input(0), self.output());
        let [row, column] = origin(owned);
        let windows = Windows::new(output.region(owned), first).in_plane(row, column);
        let run =
            |from: &[T], residual: Option<Located<'_, T>>, to: &mut [T], scratch: &mut [T]| {
                conv_forward(
                    &convolution.shape,
                    weights,
                    input.image(from)?,
                    windows,
                    output.image_mut(to)?,
                    Epilogue {
                        bias: bias.as_deref(),
                        residual,
                        activation: convolution.activation,
                    },
                    scratch,
                )
            };
        let result = match *self.operation().inputs {
            [source, residual] if source == residual => {
                let (scratch, [from, to]) = self.scratch_and_views([input, output])?;
                located(&input, from, owned).and_then(|values| run(from, Some(values), to, scratch))
            }
            [_, _] => {
                let residual = self.input(1);
                let buffers = [input, residual, output];
                let (scratch, [from, other, to]) = self.scratch_and_views(buffers)?;
                located(&residual, other, owned)
                    .and_then(|values| run(from, Some(values), to, scratch))
            }
            _ => {
                let (scratch, [from, to]) = self.scratch_and_views([input, output])?;
                run(from, None, to, scratch)
            }
        };
        result.map_err(kernel_error(name))
    }
}

impl<T: Scalar> VjpStep<'_, '_, T> {
    pub(super) fn convolution(mut self, convolution: &ConvolutionOperation) -> Result<()> {
        if self.trains() {
            self.mask_and_bias_gradient(convolution.activation)?;
            self.weight_gradient(convolution)?;
        } else {
            self.mask_cotangent(convolution.activation)?;
        }
        // Before the data gradient, which may scale the cotangent.
        if self.operation().inputs.len() > 1 {
            self.pass_on(1)?;
        }
        if self.wants_input() {
            self.data_gradient(convolution)?;
        }
        Ok(())
    }

    /// Turns the cotangent into that before the activation, in place, and adds the gradient of the bias, if there is one.
    fn mask_and_bias_gradient(&mut self, activation: Activation) -> Result<()> {
        if !self.trains_bias() {
            return self.mask_cotangent(activation);
        }
        let (name, node, owned) = (self.name(), self.node, self.owned);
        let (output, cotangent) = (self.output(), self.cotangent());
        let region = cotangent.region(owned);
        let result = match activation {
            Activation::Identity => {
                let (gradients, [g]) = self.gradients_and_views([cotangent])?;
                let sums = &mut gradients.parameters.operations[node].bias;
                cotangent
                    .image(g)
                    .and_then(|g| bias_gradient(g, region, sums))
            }
            Activation::Relu => {
                let (gradients, [y, g]) = self.gradients_and_views([output, cotangent])?;
                let sums = &mut gradients.parameters.operations[node].bias;
                located(&output, y, owned).and_then(|y| {
                    relu_vjp_and_bias_gradient(y, cotangent.image_mut(g)?, region, sums)
                })
            }
        };
        result.map_err(kernel_error(name))
    }

    fn weight_gradient(&mut self, convolution: &ConvolutionOperation) -> Result<()> {
        let (name, node) = (self.name(), self.node);
        let (input, cotangent) = (self.input(0), self.cotangent());
        let region = cotangent.region(self.owned);
        let windows = Windows::new(region, self.first(input));
        let (gradients, scratch, [x, g]) = self.gradients_scratch_and_views([input, cotangent])?;
        let sums = &mut gradients.parameters.operations[node];
        let Some(weights) = sums.weights.first_mut() else {
            return Err(StreamError::Internal {
                layer: name.to_owned(),
                what: "no place for the weight gradient",
            });
        };
        let mut run = || {
            let (x, g) = (input.image(x)?, cotangent.image(g)?);
            conv_weight_gradient(&convolution.shape, x, windows, g, weights, scratch)
        };
        run().map_err(kernel_error(name))
    }

    fn data_gradient(&mut self, convolution: &ConvolutionOperation) -> Result<()> {
        let (name, node) = (self.name(), self.node);
        let existing = self.existing(0);
        let input_cotangent = self.cotangent_of(self.operation().inputs[0]);
        let cotangent = self.cotangent();
        let region = cotangent.region(self.owned);
        let windows = Windows::new(region, self.first(input_cotangent));
        let buffers = [cotangent, input_cotangent];
        let (gradients, scratch, [from, to]) = self.gradients_scratch_and_views(buffers)?;
        let Some(DataGradient { weights, factors }) = &gradients.weights[node] else {
            return Err(StreamError::Internal {
                layer: name.to_owned(),
                what: "no weights for the data gradient",
            });
        };
        let mut run = || {
            if let Some(factors) = factors {
                // Nothing reads the cotangent after this.
                affine_vjp_in_place(factors, cotangent.image_mut(from)?, region)?;
            }
            let (from, to) = (cotangent.image(from)?, input_cotangent.image_mut(to)?);
            conv_data_gradient(
                &convolution.shape,
                weights,
                from,
                windows,
                to,
                existing,
                scratch,
            )
        };
        run().map_err(kernel_error(name))
    }
}
