//! Activations that are applied to a sum before it is stored, and their VJPs.

use pulp::Simd;

use crate::rows::{for_each_row, for_each_row_and_sum};
use crate::view::check_length;
use crate::{Element, KernelError, Storage, View, ViewMut};

/// What is applied to a sum before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `min(max(x, 0), 6)`; NaN stays NaN.
    Relu6,
}

/// The bound of [`Activation::Relu6`].
const SIX: f64 = 6.0;

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<T: Element>(self, value: T) -> T {
        // A NaN is neither below nor above.
        let value = if self != Self::Identity && value < T::ZERO {
            T::ZERO
        } else {
            value
        };
        if self == Self::Relu6 && value > T::from_f64(SIX) {
            T::from_f64(SIX)
        } else {
            value
        }
    }

    /// The same of a vector.
    #[inline(always)]
    pub(crate) fn apply_to_vector<S: Simd, T: Element>(
        self,
        simd: S,
        value: T::Vector<S>,
    ) -> T::Vector<S> {
        if self == Self::Identity {
            return value;
        }
        let value = T::at_least(simd, value, T::splat(simd, T::ZERO));
        if self == Self::Relu6 {
            T::at_most(simd, value, T::splat(simd, T::from_f64(SIX)))
        } else {
            value
        }
    }
}

/// The cotangent of a ReLU's input: 0 where the output is 0 or less. Where the output is NaN the cotangent passes, as in PyTorch.
#[inline(always)]
pub(crate) fn relu_vjp<T: Element, E: Storage>(output: T, cotangent: E) -> E {
    if output <= T::ZERO {
        E::ZERO
    } else {
        cotangent
    }
}

/// The cotangent of a ReLU6's input: 0 where the output is not between 0 and 6. Of a NaN the derivative is 0, wherever it stands; in
/// PyTorch it is 0 but for the last few values of a tensor (`findings/relu6-nan-gradient.sh`).
#[inline(always)]
pub(crate) fn relu6_vjp<T: Element, E: Storage>(output: T, cotangent: E) -> E {
    if output > T::ZERO && output < T::from_f64(SIX) {
        cotangent
    } else {
        E::ZERO
    }
}

/// Turns the cotangent of an activation's output into that of its input, in place.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn activation_vjp_in_place<E: Storage>(
    activation: Activation,
    output: View<'_, E>,
    cotangent: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let output = output.operand("activation output", cotangent.channels(), cotangent.rect())?;
    match activation {
        Activation::Identity => {}
        Activation::Relu => mask(output, cotangent, relu_vjp),
        Activation::Relu6 => mask(output, cotangent, relu6_vjp),
    }
    Ok(())
}

/// [`activation_vjp_in_place`] of an activation that follows a bias, and [`bias_gradient`](crate::bias_gradient) of the cotangent that
/// this leaves: both while it passes once through memory.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn activation_vjp_and_bias_gradient<E: Storage>(
    activation: Activation,
    output: View<'_, E>,
    cotangent: ViewMut<'_, E>,
    bias_gradient: &mut [f64],
) -> Result<(), KernelError> {
    let channels = cotangent.channels();
    let output = output.operand("activation output", channels, cotangent.rect())?;
    check_length("bias gradient", channels, bias_gradient.len())?;
    if channels == 0 {
        return Ok(());
    }
    match activation {
        Activation::Identity => {
            crate::bias_gradient(cotangent.into_view(), bias_gradient)?;
        }
        Activation::Relu => mask_and_sum(output, cotangent, bias_gradient, relu_vjp),
        Activation::Relu6 => mask_and_sum(output, cotangent, bias_gradient, relu6_vjp),
    }
    Ok(())
}

fn mask<E: Storage>(
    output: View<'_, E>,
    cotangent: ViewMut<'_, E>,
    vjp: impl Fn(E::Compute, E) -> E + Sync,
) {
    for_each_row(
        cotangent,
        #[inline(always)]
        |row: usize, cotangent: &mut [E]| {
            for (value, &output) in cotangent.iter_mut().zip(output.row(row)) {
                *value = vjp(output.widen(), *value);
            }
        },
    );
}

fn mask_and_sum<E: Storage>(
    output: View<'_, E>,
    cotangent: ViewMut<'_, E>,
    sums: &mut [f64],
    vjp: impl Fn(E::Compute, E) -> E + Sync,
) {
    let channels = cotangent.channels();
    for_each_row_and_sum(
        cotangent,
        sums,
        #[inline(always)]
        |row: usize, cotangent: &mut [E], sums: &mut [f64]| {
            let outputs = output.row(row).chunks_exact(channels);
            for (cotangent, output) in cotangent.chunks_exact_mut(channels).zip(outputs) {
                for ((value, &output), sum) in cotangent.iter_mut().zip(output).zip(&mut *sums) {
                    let masked = vjp(output.widen(), *value);
                    *value = masked;
                    *sum += masked.widen().to_f64();
                }
            }
        },
    );
}
