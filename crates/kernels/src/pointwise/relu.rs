//! `max(x, 0)`, and its VJP where it follows a convolution.

use super::{Function, VjpOperand};
use crate::image::check_length;
use crate::rows::{for_each_row, for_each_row_and_sum};
use crate::{Element, ImageMut, KernelError, Located, Region};

#[derive(Clone, Copy)]
pub(super) struct Relu;

impl Function for Relu {
    const OPERAND: VjpOperand = VjpOperand::Output;

    #[inline(always)]
    fn value<T: Element>(self, x: T) -> T {
        if x < T::ZERO { T::ZERO } else { x }
    }

    #[inline(always)]
    fn vjp<T: Element>(self, output: T, cotangent: T) -> T {
        if output <= T::ZERO {
            T::ZERO
        } else {
            cotangent
        }
    }
}

/// Turns the cotangent of a ReLU's output into that of its input, in place in `region` of `cotangent`: 0 where the
/// output is 0 or less. Where the output is NaN the cotangent passes, as in PyTorch.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn relu_vjp_in_place<T: Element>(
    output: Located<'_, T>,
    cotangent: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    output.check("relu output", cotangent.channels(), region)?;
    cotangent.check_region("relu cotangent", region)?;
    for_each_row(
        cotangent,
        region,
        #[inline(always)]
        |row: usize, cotangent: &mut [T]| {
            for (value, &output) in cotangent.iter_mut().zip(output.row(row, region.columns)) {
                *value = Relu.vjp(output, *value);
            }
        },
    );
    Ok(())
}

/// [`relu_vjp_in_place`] of a ReLU that follows a bias, and [`bias_gradient`](crate::bias_gradient) of the cotangent that this
/// leaves: both while it passes once through memory.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn relu_vjp_and_bias_gradient<T: Element>(
    output: Located<'_, T>,
    cotangent: ImageMut<'_, T>,
    region: Region,
    bias_gradient: &mut [f64],
) -> Result<(), KernelError> {
    let channels = cotangent.channels();
    output.check("relu output", channels, region)?;
    cotangent.check_region("relu cotangent", region)?;
    check_length("bias gradient", channels, bias_gradient.len())?;
    if channels == 0 {
        return Ok(());
    }
    for_each_row_and_sum(
        cotangent,
        region,
        bias_gradient,
        #[inline(always)]
        |row: usize, cotangent: &mut [T], sums: &mut [f64]| {
            let outputs = output.row(row, region.columns).chunks_exact(channels);
            for (cotangent, output) in cotangent.chunks_exact_mut(channels).zip(outputs) {
                for ((value, &output), sum) in cotangent.iter_mut().zip(output).zip(&mut *sums) {
                    let masked = Relu.vjp(output, *value);
                    *value = masked;
                    *sum += masked.to_f64();
                }
            }
        },
    );
    Ok(())
}
