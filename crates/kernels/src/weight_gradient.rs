//! Convolution: gradients by the weights.

pub(crate) mod cut;
pub(crate) mod dense;
pub(crate) mod operands;
pub(crate) mod per_channel;
pub(crate) mod product;

use rayon::prelude::*;

use operands::Operands;

#[cfg(target_arch = "x86_64")]
use crate::bf16;
use crate::element::sealed::Operation;
#[cfg(target_arch = "x86_64")]
use crate::element::storage::native::{NativeBf16, native, native_mut};
use crate::parallel::parallel_for;
use crate::view::{check_length, check_scratch};
use crate::winograd;
use crate::{Convolution, Element, KernelError, Storage, View};

/// Adds the gradient by the weights to `weight_gradient`, laid out
/// `[kernel rows][kernel columns][in / groups][out]` (see [`weight_gradient_to_oihw`]).
///
/// Only inputs under the windows of the cotangents count; padding contributes nothing. `scratch` has at least
/// [`Convolution::scratch_len`] values, whatever they are.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn conv_weight_gradient<E: Storage>(
    convolution: &Convolution,
    input: View<'_, E>,
    cotangent: View<'_, E>,
    weight_gradient: &mut [f64],
    scratch: &mut [E],
) -> Result<(), KernelError> {
    check_length(
        "weight gradient",
        convolution.weight_count()?,
        weight_gradient.len(),
    )?;
    input.check_channels("convolution input", convolution.in_channels)?;
    cotangent.check_channels("convolution cotangent", convolution.out_channels)?;
    let first = convolution.window.place(cotangent.rect(), input.rect())?;
    check_scratch(scratch_len::<E>(convolution), scratch)?;
    if cotangent.data().is_empty() || input.data().is_empty() {
        return Ok(());
    }
    E::operate::<WeightGradient>(Sum {
        operands: Operands {
            convolution,
            input,
            cotangent,
            first,
        },
        sums: weight_gradient,
        scratch,
    });
    Ok(())
}

/// What sums a weight gradient.
struct WeightGradient;

/// What it sums, and where.
struct Sum<'a, E: Storage> {
    operands: Operands<'a, E>,
    sums: &'a mut [f64],
    scratch: &'a mut [E],
}

impl Operation for WeightGradient {
    type Operands<'a, E: Storage> = Sum<'a, E>;

    fn run<E: Storage>(sum: Sum<'_, E>) {
        let convolution = sum.operands.convolution;
        let run = if convolution.is_winograd() {
            winograd::weight_gradient
        } else if convolution.is_depthwise() {
            per_channel::weight_gradient
        } else {
            dense::weight_gradient
        };
        run(sum.operands, sum.sums, sum.scratch);
    }

    #[cfg(target_arch = "x86_64")]
    fn native<'a>(sum: Self::Operands<'a, bf16>) -> Self::Operands<'a, NativeBf16> {
        let operands = sum.operands;
        Sum {
            operands: Operands {
                convolution: operands.convolution,
                input: operands.input.map(native),
                cotangent: operands.cotangent.map(native),
                first: operands.first,
            },
            sums: sum.sums,
            scratch: native_mut(sum.scratch),
        }
    }
}

/// Values of scratch that [`conv_weight_gradient`] needs.
pub(crate) fn scratch_len<E: Storage>(convolution: &Convolution) -> usize {
    if convolution.is_winograd() {
        winograd::weight_gradient_scratch_len::<E>(convolution)
    } else if convolution.is_depthwise() {
        per_channel::scratch_len::<E>(convolution)
    } else {
        dense::scratch_len::<E>(convolution)
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
    let chunks = oihw.par_chunks_mut((OUTPUTS_AT_ONCE * filter).max(1));
    parallel_for(chunks.enumerate(), |(chunk, filters)| {
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
