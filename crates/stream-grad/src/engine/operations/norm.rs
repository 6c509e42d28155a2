//! Affine maps of channels (frozen norms) and layer norm over the channels of a pixel.

use stream_grad_kernels::{
    Activation, Image, KernelError, LayerNorm, Located, Region, affine_forward,
    affine_parameter_gradient, affine_vjp, layer_norm_forward, layer_norm_parameter_gradient,
    layer_norm_vjp,
};

use super::step::{ForwardStep, VjpStep, at, located};
use crate::error::Result;
use crate::gradients::OperationGradients;
use crate::prepared::{PreparedOperation, kernel_error};
use crate::scalar::Scalar;

impl<T: Scalar> ForwardStep<'_, '_, T> {
    pub(super) fn affine(self, activation: Activation) -> Result<()> {
        let PreparedOperation::Affine { scale, shift } = self.prepared() else {
            return Err(self.unprepared());
        };
        self.unary(|step| {
            let x = step.pointwise();
            affine_forward(x, scale, shift, activation, step.output, step.region)
        })
    }

    pub(super) fn layer_norm(self, epsilon: f64, activation: Activation) -> Result<()> {
        let Some(norm) = layer_norm(self.prepared(), epsilon) else {
            return Err(self.unprepared());
        };
        self.unary(|step| {
            let x = step.pointwise();
            layer_norm_forward(norm, x, activation, step.output, step.region)
        })
    }
}

impl<T: Scalar> VjpStep<'_, '_, T> {
    pub(super) fn affine(mut self, activation: Activation) -> Result<()> {
        let PreparedOperation::Affine { scale, .. } = self.prepared() else {
            return Err(self.unprepared());
        };
        self.mask_cotangent(activation)?;
        self.scale_and_shift(affine_parameter_gradient)?;
        if !self.wants_input() {
            return Ok(());
        }
        self.transposed(self.operation().inputs[0], |step| {
            let region = step.target_region();
            affine_vjp(step.pointwise(), scale, step.target, region)
        })
    }

    pub(super) fn layer_norm(mut self, epsilon: f64, activation: Activation) -> Result<()> {
        let Some(norm) = layer_norm(self.prepared(), epsilon) else {
            return Err(self.unprepared());
        };
        self.mask_cotangent(activation)?;
        self.scale_and_shift(|x, g, region, scale, shift| {
            layer_norm_parameter_gradient(norm, x, g, region, scale, shift)
        })?;
        if !self.wants_input() {
            return Ok(());
        }
        let (input, owned) = (self.input(0), self.owned);
        self.transposed_reading(input, |x, step| {
            let (region, x) = (step.target_region(), at(&input, x, owned));
            layer_norm_vjp(norm, x, step.pointwise(), step.target, region)
        })
    }

    /// Adds to the sums of scale and shift, if they train.
    fn scale_and_shift(
        &mut self,
        run: impl FnOnce(
            Located<'_, T>,
            Image<'_, T>,
            Region,
            &mut [f64],
            &mut [f64],
        ) -> Result<(), KernelError>,
    ) -> Result<()> {
        if !self.trains() {
            return Ok(());
        }
        let (name, node, owned) = (self.name(), self.node, self.owned);
        let (input, cotangent) = (self.input(0), self.cotangent());
        let (gradients, [x, g]) = self.gradients_and_views([input, cotangent])?;
        let OperationGradients { weights, bias } = &mut gradients.parameters.operations[node];
        let scale = weights.first_mut().map_or(&mut [][..], Vec::as_mut_slice);
        let x = located(&input, x, owned);
        let g = cotangent.image(g);
        let region = cotangent.region(owned);
        x.and_then(|x| run(x, g?, region, scale, bias))
            .map_err(kernel_error(name))
    }
}

fn layer_norm<T: Scalar>(
    prepared: &PreparedOperation<T>,
    epsilon: f64,
) -> Option<LayerNorm<'_, T>> {
    let PreparedOperation::LayerNorm { weight, bias } = prepared else {
        return None;
    };
    Some(LayerNorm {
        gamma: weight,
        beta: bias,
        epsilon,
    })
}
