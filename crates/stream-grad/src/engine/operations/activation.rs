//! Activations: the VJP of those that are fused into an operation, and those that stand alone.

use stream_grad_kernels::{
    Activation, Gelu, gelu_forward, gelu_vjp, relu_forward, relu_vjp, relu_vjp_in_place,
};

use super::step::{ForwardStep, VjpStep, at, located};
use crate::error::Result;
use crate::prepared::kernel_error;
use crate::scalar::Scalar;

impl<T: Scalar> ForwardStep<'_, '_, T> {
    pub(super) fn relu(self) -> Result<()> {
        self.unary(|step| relu_forward(step.pointwise(), step.output, step.region))
    }

    pub(super) fn gelu(self, form: Gelu) -> Result<()> {
        self.unary(|step| gelu_forward(form, step.pointwise(), step.output, step.region))
    }
}

impl<T: Scalar> VjpStep<'_, '_, T> {
    /// Turns the operation's cotangent into that before its activation, in place.
    pub(super) fn mask_cotangent(&mut self, activation: Activation) -> Result<()> {
        if activation == Activation::Identity {
            return Ok(());
        }
        let (name, owned) = (self.name(), self.owned);
        let (output, cotangent) = (self.output(), self.cotangent());
        let [y, g] = self.views([output, cotangent])?;
        let mut run = || {
            let y = located(&output, y, owned)?;
            relu_vjp_in_place(y, cotangent.image_mut(g)?, cotangent.region(owned))
        };
        run().map_err(kernel_error(name))
    }

    pub(super) fn relu(mut self) -> Result<()> {
        if !self.wants_input() {
            return Ok(());
        }
        let (output, owned) = (self.output(), self.owned);
        self.transposed_reading(output, |y, step| {
            let region = step.target_region();
            relu_vjp(at(&output, y, owned), step.pointwise(), step.target, region)
        })
    }

    pub(super) fn gelu(mut self, form: Gelu) -> Result<()> {
        if !self.wants_input() {
            return Ok(());
        }
        let (input, owned) = (self.input(0), self.owned);
        self.transposed_reading(input, |x, step| {
            let (region, x) = (step.target_region(), at(&input, x, owned));
            gelu_vjp(form, x, step.pointwise(), step.target, region)
        })
    }
}
