//! Upsampling by a whole factor.

use stream_grad_kernels::{AlignCorners, Interpolation, Upsample, upsample_forward, upsample_vjp};
use stream_grad_tiling::{Corners, PerAxis};

use super::step::{ForwardStep, VjpStep};
use crate::error::Result;
use crate::scalar::Scalar;

impl<T: Scalar> ForwardStep<'_, '_, T> {
    pub(super) fn upsample(self, factor: usize, interpolation: Interpolation) -> Result<()> {
        let upsample = upsample(factor, interpolation, self.plane());
        self.unary(|step| {
            let (from, to) = step.origins();
            upsample_forward(&upsample, step.input, from, step.output, step.region, to)
        })
    }
}

impl<T: Scalar> VjpStep<'_, '_, T> {
    pub(super) fn upsample(mut self, factor: usize, interpolation: Interpolation) -> Result<()> {
        if !self.wants_input() {
            return Ok(());
        }
        let upsample = upsample(factor, interpolation, self.plane());
        self.transposed(self.operation().inputs[0], |step| {
            let (from, to) = step.origins();
            let (g, region) = (step.cotangent, step.region);
            upsample_vjp(&upsample, g, region, from, step.target, to)
        })
    }
}

/// An upsampling of a whole plane by one factor.
fn upsample(factor: usize, interpolation: Interpolation, plane: PerAxis<i64>) -> Upsample {
    let extent = |size: i64| usize::try_from(size).unwrap_or(0);
    Upsample {
        factor: [factor, factor],
        interpolation,
        plane: [extent(plane.rows), extent(plane.columns)],
    }
}

/// The kernels' name for where bilinear samples lie.
pub(super) const fn bilinear(corners: Corners) -> Interpolation {
    Interpolation::Bilinear(match corners {
        Corners::HalfPixel => AlignCorners::No,
        Corners::Aligned => AlignCorners::Yes,
    })
}
