//! Convolution: gradients by the weights.

pub(crate) mod cut;
pub(crate) mod dense;
pub(crate) mod operands;
pub(crate) mod per_channel;
pub(crate) mod product;

use rayon::prelude::*;

use operands::Operands;

use crate::view::{check_length, check_scratch};
use crate::winograd;
use crate::{Convolution, Element, KernelError, View};

/// Adds the gradient by the weights to `weight_gradient`, laid out
/// `[kernel rows][kernel columns][in / groups][out]` (see [`weight_gradient_to_oihw`]).
///
/// Only inputs under the windows of the cotangents count; padding contributes nothing. `scratch` has at least
/// [`Convolution::scratch_len`] values, whatever they are.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn conv_weight_gradient<T: Element>(
    convolution: &Convolution,
    input: View<'_, T>,
    cotangent: View<'_, T>,
    weight_gradient: &mut [f64],
    scratch: &mut [T],
) -> Result<(), KernelError> {
    check_length(
        "weight gradient",
        convolution.weight_count()?,
        weight_gradient.len(),
    )?;
    input.check_channels("convolution input", convolution.in_channels)?;
    cotangent.check_channels("convolution cotangent", convolution.out_channels)?;
    let first = convolution.window.place(cotangent.rect(), input.rect())?;
    check_scratch(scratch_len::<T>(convolution), scratch)?;
    if cotangent.data().is_empty() || input.data().is_empty() {
        return Ok(());
    }
    let run = if convolution.is_winograd() {
        winograd::weight_gradient
    } else if convolution.is_depthwise() {
        per_channel::weight_gradient
    } else {
        dense::weight_gradient
    };
    let operands = Operands {
        convolution,
        input,
        cotangent,
        first,
    };
    run(operands, weight_gradient, scratch);
    Ok(())
}

/// Values of scratch that [`conv_weight_gradient`] needs.
pub(crate) fn scratch_len<T>(convolution: &Convolution) -> usize {
    if convolution.is_winograd() {
        winograd::weight_gradient_scratch_len::<T>(convolution)
    } else if convolution.is_depthwise() {
        per_channel::scratch_len(convolution)
    } else {
        dense::scratch_len(convolution)
    }
}

/// Output channels that are put in order at a time: a cache line of sums.
const OUTPUTS_AT_ONCE: usize = 8;

/// Copies a weight gradient from the layout of [`conv_weight_gradient`] to `[out][in / groups][kernel rows][kernel
/// columns]`, rounding to `T`.
///
/// # Errors
/// [`KernelError::Length`] where either slice does not hold the convolution's weights.
pub fn weight_gradient_to_oihw<T: Element>(
    convolution: &Convolution,
    weight_gradient: &[f64],
    oihw: &mut [T],
) -> Result<(), KernelError> {
    let count = convolution.weight_count()?;
    check_length("weight gradient", count, weight_gradient.len())?;
    check_length("weight gradient as OIHW", count, oihw.len())?;
    let taps = convolution.window.taps();
    let filter = convolution.in_channels / convolution.groups * taps;
    oihw.par_chunks_mut((OUTPUTS_AT_ONCE * filter).max(1))
        .enumerate()
        .for_each(|(chunk, filters)| {
            let first = chunk * OUTPUTS_AT_ONCE;
            for input in 0..filter / taps {
                for tap in 0..taps {
                    let row = (tap * (filter / taps) + input) * convolution.out_channels;
                    let values = &weight_gradient[row + first..row + convolution.out_channels];
                    let to = filters[input * taps + tap..].iter_mut().step_by(filter);
                    for (to, &value) in to.zip(values) {
                        *to = T::from_f64(value);
                    }
                }
            }
        });
    Ok(())
}
