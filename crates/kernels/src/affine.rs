//! A scale and a shift for each channel (a frozen norm), and gradients by per-channel parameters.

use crate::instructions::Work;
use crate::rows::{for_each_row, sum_rows};
use crate::stored::add_to;
use crate::view::check_length;
use crate::{Activation, Element, KernelError, Storage, View, ViewMut};

/// Values over which a few parameters are repeated.
const REPEATED: usize = 256;

/// One parameter for each channel, repeated for as many pixels as `room` has place for: short loops cost more.
fn repeated<'a, T: Copy>(parameters: &'a [T], room: &'a mut [T; REPEATED]) -> &'a [T] {
    if parameters.is_empty() || parameters.len() > REPEATED {
        return parameters;
    }
    let length = REPEATED / parameters.len() * parameters.len();
    for pixel in room[..length].chunks_exact_mut(parameters.len()) {
        pixel.copy_from_slice(parameters);
    }
    &room[..length]
}

/// Writes `input * scale + shift`, then the activation, to `output`; `scale` and `shift` have one value for
/// each channel.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn affine_forward<E: Storage>(
    input: View<'_, E>,
    scale: &[E::Compute],
    shift: &[E::Compute],
    activation: Activation,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let channels = output.channels();
    let input = input.operand("affine input", channels, output.rect())?;
    check_length("affine scale", channels, scale.len())?;
    check_length("affine shift", channels, shift.len())?;
    let mut room = [[E::Compute::ZERO; REPEATED]; 2];
    let [scales, shifts] = &mut room;
    let (scale, shift) = (repeated(scale, scales), repeated(shift, shifts));
    for_each_row(
        output,
        #[inline(always)]
        |row: usize, output: &mut [E]| {
            let input = input.row(row).chunks(scale.len());
            for (output, input) in output.chunks_mut(scale.len()).zip(input) {
                let parameters = scale.iter().zip(shift);
                for ((value, &input), (&scale, &shift)) in
                    output.iter_mut().zip(input).zip(parameters)
                {
                    *value = E::narrow(activation.apply(input.widen() * scale + shift));
                }
            }
        },
    );
    Ok(())
}

/// Adds `cotangent * scale` to `input_cotangent`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn affine_vjp<E: Storage>(
    cotangent: View<'_, E>,
    scale: &[E::Compute],
    input_cotangent: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let channels = input_cotangent.channels();
    let cotangent = cotangent.operand("affine cotangent", channels, input_cotangent.rect())?;
    check_length("affine scale", channels, scale.len())?;
    let mut room = [E::Compute::ZERO; REPEATED];
    let scale = repeated(scale, &mut room);
    for_each_row(
        input_cotangent,
        #[inline(always)]
        |row: usize, sums: &mut [E]| {
            let cotangent = cotangent.row(row).chunks(scale.len());
            for (sums, cotangent) in sums.chunks_mut(scale.len()).zip(cotangent) {
                for ((sum, &cotangent), &scale) in sums.iter_mut().zip(cotangent).zip(scale) {
                    add_to(sum, cotangent.widen() * scale);
                }
            }
        },
    );
    Ok(())
}

/// Turns the cotangent of an affine map's output into that of its input, in place: multiplies it by `scale`, which has one value for each channel.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn affine_vjp_in_place<E: Storage>(
    scale: &[E::Compute],
    cotangent: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    check_length("affine scale", cotangent.channels(), scale.len())?;
    let mut room = [E::Compute::ZERO; REPEATED];
    let scale = repeated(scale, &mut room);
    for_each_row(
        cotangent,
        #[inline(always)]
        |_: usize, cotangent: &mut [E]| {
            for cotangent in cotangent.chunks_mut(scale.len()) {
                for (value, &scale) in cotangent.iter_mut().zip(scale) {
                    *value = E::narrow(value.widen() * scale);
                }
            }
        },
    );
    Ok(())
}

/// Adds the gradients by scale and shift, over all of `cotangent`: `sum input * cotangent` and `sum cotangent`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn affine_parameter_gradient<E: Storage>(
    input: View<'_, E>,
    cotangent: View<'_, E>,
    scale_gradient: &mut [f64],
    shift_gradient: &mut [f64],
) -> Result<(), KernelError> {
    let channels = cotangent.channels();
    let input = input.operand("affine input", channels, cotangent.rect())?;
    check_length("affine scale gradient", channels, scale_gradient.len())?;
    check_length("affine shift gradient", channels, shift_gradient.len())?;
    if channels == 0 {
        return Ok(());
    }
    sum_rows_in_two(
        cotangent.height(),
        scale_gradient,
        shift_gradient,
        #[inline(always)]
        |row: usize, partial: &mut [f64]| {
            let (scales, shifts) = partial.split_at_mut(channels);
            let pixels = input.row(row).chunks_exact(channels);
            let cotangents = cotangent.row(row).chunks_exact(channels);
            for (input, cotangent) in pixels.zip(cotangents) {
                let sums = scales.iter_mut().zip(shifts.iter_mut());
                for ((&input, &cotangent), (scale, shift)) in input.iter().zip(cotangent).zip(sums)
                {
                    let cotangent = cotangent.widen().to_f64();
                    *scale += input.widen().to_f64() * cotangent;
                    *shift += cotangent;
                }
            }
        },
    );
    Ok(())
}

/// [`sum_rows`] of the sums of two slices of equal length, one after the other.
pub(crate) fn sum_rows_in_two(
    rows: usize,
    first: &mut [f64],
    second: &mut [f64],
    work: impl Work<f64>,
) {
    let mut sums = vec![0.0; first.len() + second.len()];
    sum_rows(rows, &mut sums, work);
    let (to_first, to_second) = sums.split_at(first.len());
    for (sum, &value) in first
        .iter_mut()
        .zip(to_first)
        .chain(second.iter_mut().zip(to_second))
    {
        *sum += value;
    }
}

/// Adds the gradient by a bias: the sum of `cotangent`, for each channel.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn bias_gradient<E: Storage>(
    cotangent: View<'_, E>,
    bias_gradient: &mut [f64],
) -> Result<(), KernelError> {
    let channels = cotangent.channels();
    check_length("bias gradient", channels, bias_gradient.len())?;
    if channels == 0 {
        return Ok(());
    }
    sum_rows(
        cotangent.height(),
        bias_gradient,
        #[inline(always)]
        |row: usize, sums: &mut [f64]| {
            for cotangent in cotangent.row(row).chunks_exact(channels) {
                for (sum, &value) in sums.iter_mut().zip(cotangent) {
                    *sum += value.widen().to_f64();
                }
            }
        },
    );
    Ok(())
}
