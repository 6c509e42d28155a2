//! Merges: sums and concatenations of channels.

use stream_grad_kernels::{
    Activation, Existing, accumulate_channels, accumulate_region, add, copy_channels, copy_region,
    fill_region,
};

use super::step::{ForwardStep, VjpStep, located};
use crate::error::Result;
use crate::prepared::kernel_error;
use crate::scalar::Scalar;

impl<T: Scalar> ForwardStep<'_, '_, T> {
    pub(super) fn add(mut self, activation: Activation) -> Result<()> {
        if self.operation().inputs[0] == self.operation().inputs[1] {
            return self.unary(|step| {
                let values = step.pointwise();
                add(values, values, activation, step.output, step.region)
            });
        }
        let (name, owned) = (self.name(), self.owned);
        let (left, right, output) = (self.input(0), self.input(1), self.output());
        let [a, b, to] = self.views([left, right, output])?;
        let mut run = || {
            let (a, b) = (located(&left, a, owned)?, located(&right, b, owned)?);
            add(
                a,
                b,
                activation,
                output.image_mut(to)?,
                output.region(owned),
            )
        };
        run().map_err(kernel_error(name))
    }

    pub(super) fn concat(mut self) -> Result<()> {
        let (name, owned, output) = (self.name(), self.owned, self.output());
        let mut channel = 0;
        for index in 0..self.operation().inputs.len() {
            let input = self.input(index);
            let [from, to] = self.views([input, output])?;
            let mut run = || {
                let (from, to) = (located(&input, from, owned)?, output.image_mut(to)?);
                copy_channels(from, 0..input.channels, to, output.region(owned), channel)
            };
            run().map_err(kernel_error(name))?;
            channel += input.channels;
        }
        Ok(())
    }
}

impl<T: Scalar> VjpStep<'_, '_, T> {
    pub(super) fn add(mut self, activation: Activation) -> Result<()> {
        self.mask_cotangent(activation)?;
        let inputs = 0..self.operation().inputs.len();
        inputs.rev().try_for_each(|input| self.pass_on(input))
    }

    pub(super) fn concat(mut self) -> Result<()> {
        let mut channel = 0;
        for &source in &self.operation().inputs {
            let channels = self.cotangent_of(source).channels;
            if self.engine.has_cotangent(source) {
                self.transposed(source, |step| {
                    let (part, region) = (channel..channel + channels, step.target_region());
                    accumulate_channels(step.pointwise(), part, step.target, region, 0)
                })?;
            }
            channel += channels;
        }
        Ok(())
    }

    /// Adds the cotangent to that of input `index`, which is read position by position.
    pub(super) fn pass_on(&mut self, index: usize) -> Result<()> {
        let source = self.operation().inputs[index];
        if !self.engine.has_cotangent(source) {
            return Ok(());
        }
        let existing = self.existing(index);
        self.transposed(source, |mut step| {
            let region = step.target_region();
            match existing {
                Existing::Add => accumulate_region(step.pointwise(), step.target, region),
                Existing::Replace => {
                    let whole = step.target.region();
                    if region != whole {
                        fill_region(T::ZERO, step.target.reborrow(), whole)?;
                    }
                    copy_region(step.pointwise(), step.target, region)
                }
            }
        })
    }
}
