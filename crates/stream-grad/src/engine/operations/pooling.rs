//! Pooling by maximum and average.

use stream_grad_kernels::{Window, avg_pool_forward, avg_pool_vjp, max_pool_forward, max_pool_vjp};

use super::step::{ForwardStep, VjpStep};
use crate::error::Result;
use crate::operation::Pooling;
use crate::scalar::Scalar;

impl<T: Scalar> ForwardStep<'_, '_, T> {
    pub(super) fn pool(self, window: &Window, pooling: Pooling) -> Result<()> {
        self.unary(|step| {
            let (input, first, output, region) = (step.input, step.first, step.output, step.region);
            match pooling {
                Pooling::Maximum => max_pool_forward(window, input, first, output, region),
                Pooling::Average(divisor) => {
                    avg_pool_forward(window, divisor, input, first, output, region)
                }
            }
        })
    }
}

impl<T: Scalar> VjpStep<'_, '_, T> {
    pub(super) fn pool(mut self, window: &Window, pooling: Pooling) -> Result<()> {
        if !self.wants_input() {
            return Ok(());
        }
        let existing = self.existing(0);
        match pooling {
            Pooling::Maximum => {
                let input = self.input(0);
                let first = self.first(input);
                self.transposed_reading(input, |x, step| {
                    let (g, region, to) = (step.cotangent, step.region, step.target);
                    max_pool_vjp(window, x, first, g, region, to, step.first, existing)
                })
            }
            Pooling::Average(divisor) => self.transposed(self.operation().inputs[0], |step| {
                let (g, region, to) = (step.cotangent, step.region, step.target);
                avg_pool_vjp(window, divisor, g, region, step.first, to, existing)
            }),
        }
    }
}
