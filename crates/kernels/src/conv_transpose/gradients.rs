use pulp::Simd;
use rayon::prelude::*;

use super::{ConvTranspose, POSITIONS, add_products, source, target};
use crate::blocks::for_each_block;
use crate::instructions::{Work, run_part};
use crate::integers::signed;
use crate::parallel::parallel_for;
use crate::rows::for_each_row;
use crate::stored::add_to;
use crate::{Element, Existing, KernelError, Storage, View, ViewMut};

/// Adds to `input_cotangent`, or writes there, what the cotangents give. This is a convolution.
///
/// `weights` are in the order that [`ConvTranspose::transposed_order`] makes. With [`Existing::Replace`] what no cotangent reaches
/// gets zero.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn conv_transpose_data_gradient<E: Storage>(
    convolution: &ConvTranspose,
    weights: &[E::Compute],
    cotangent: View<'_, E>,
    input_cotangent: ViewMut<'_, E>,
    existing: Existing,
) -> Result<(), KernelError> {
    let ConvTranspose {
        window,
        in_channels,
        out_channels,
        groups,
    } = *convolution;
    let [first_row, first_column] = convolution.check(
        weights.len(),
        (input_cotangent.rect(), input_cotangent.channels()),
        (cotangent.rect(), cotangent.channels()),
    )?;
    let (inputs, outputs) = (in_channels / groups, out_channels / groups);
    let (width, rows, columns) = (
        input_cotangent.width(),
        cotangent.height(),
        cotangent.width(),
    );
    for_each_row(
        input_cotangent,
        #[inline(always)]
        |row: usize, values: &mut [E]| {
            if existing == Existing::Replace {
                values.fill(E::ZERO);
            }
            for first in (0..width).step_by(POSITIONS) {
                for group in 0..groups {
                    for_each_block!(inputs, channel, N, {
                        let mut sums = [[E::Compute::ZERO; N]; POSITIONS];
                        for tap_row in 0..window.kernel[0] {
                            let to = target(&window, 0, first_row, (row, tap_row), rows);
                            let Some(to_row) = to else { continue };
                            for tap_column in 0..window.kernel[1] {
                                let sources: [Option<&[E]>; POSITIONS] =
                                    std::array::from_fn(|position| {
                                        let at = (first + position, tap_column);
                                        let column = target(&window, 1, first_column, at, columns)?;
                                        let pixel = cotangent.span(to_row, column, 1);
                                        Some(&pixel[group * outputs..][..outputs])
                                    });
                                let tap = tap_row * window.kernel[1] + tap_column;
                                let place = (tap * out_channels + group * outputs) * inputs;
                                let weights = &weights[place + channel..];
                                add_products(&mut sums, sources, weights, inputs);
                            }
                        }
                        for (position, sums) in sums.iter().enumerate() {
                            let place = (first + position) * in_channels + group * inputs + channel;
                            if let Some(values) = values.get_mut(place..place + N) {
                                for (value, &sum) in values.iter_mut().zip(sums) {
                                    add_to(value, sum);
                                }
                            }
                        }
                    });
                }
            }
        },
    );
    Ok(())
}

/// Most channels of the input whose sums one task adds to.
const CHANNELS: usize = 8;

/// Adds the gradient of the weights to `sums`, which are in the order of [`ConvTranspose::forward_order`]; products are made and
/// added up in `f64`, by outputs in scan order.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn conv_transpose_weight_gradient<E: Storage>(
    convolution: &ConvTranspose,
    input: View<'_, E>,
    cotangent: View<'_, E>,
    sums: &mut [f64],
) -> Result<(), KernelError> {
    let first = convolution.check(
        sums.len(),
        (input.rect(), input.channels()),
        (cotangent.rect(), cotangent.channels()),
    )?;
    let (window, outputs) = (
        &convolution.window,
        convolution.out_channels / convolution.groups,
    );
    let channels = convolution.in_channels;
    // Equal blocks, so that none reaches into the next tap.
    let at_once = (1..=CHANNELS)
        .rev()
        .find(|&count| channels.is_multiple_of(count));
    let at_once = at_once.unwrap_or(1);
    let blocks = sums.par_chunks_mut(at_once * outputs).enumerate();
    parallel_for(blocks, |(block, sums)| {
        let (tap, channel) = (block * at_once / channels, block * at_once % channels);
        let gradient = WeightGradient {
            convolution,
            tap: [tap / window.kernel[1], tap % window.kernel[1]],
            input,
            cotangent,
            first,
        };
        run_part(&gradient, channel, sums);
    });
    Ok(())
}

/// The gradient of the weights of one tap.
struct WeightGradient<'a, E> {
    convolution: &'a ConvTranspose,
    tap: [usize; 2],
    input: View<'a, E>,
    cotangent: View<'a, E>,
    /// Of the first cotangent, on the grid.
    first: [isize; 2],
}

impl<E: Storage> Work<f64> for WeightGradient<'_, E> {
    /// Adds to the sums of the input's channels from `first` on.
    #[inline(always)]
    fn run<S: Simd>(&self, _: S, first: usize, sums: &mut [f64]) {
        let Self {
            convolution,
            tap: [tap_row, tap_column],
            input,
            cotangent,
            first: [first_row, first_column],
        } = *self;
        let window = &convolution.window;
        let inputs = convolution.in_channels / convolution.groups;
        let outputs = convolution.out_channels / convolution.groups;
        for row in 0..cotangent.height() {
            let place = first_row + signed(row);
            let Some(from_row) = source(window, 0, place, tap_row, input.height()) else {
                continue;
            };
            for column in 0..cotangent.width() {
                let place = first_column + signed(column);
                let from = source(window, 1, place, tap_column, input.width());
                let Some(from_column) = from else { continue };
                let values = &input.span(from_row, from_column, 1)[first..];
                let given = cotangent.span(row, column, 1);
                for (channel, (sums, value)) in (first..).zip(sums.chunks_mut(outputs).zip(values))
                {
                    let value = value.widen().to_f64();
                    let given = &given[channel / inputs * outputs..];
                    for (sum, given) in sums.iter_mut().zip(given) {
                        *sum += value * given.widen().to_f64();
                    }
                }
            }
        }
    }
}
