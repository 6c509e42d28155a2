use pulp::Simd;
use rayon::prelude::*;

use super::{ConvTranspose, POSITIONS, add_products, source, target};
use crate::blocks::for_each_block;
use crate::image::check_length;
use crate::instructions::{Work, run_part};
use crate::integers::signed;
use crate::rows::for_each_row;
use crate::{Element, Existing, Image, ImageMut, KernelError, Position, Region};

/// Adds to `input_cotangent`, or writes there, what the cotangents in `region` give. This is a convolution.
///
/// `weights` are in the order that [`ConvTranspose::transposed_order`] makes, `origin` is as for
/// [`conv_transpose_forward`](crate::conv_transpose_forward), from the buffer `input_cotangent` on. With [`Existing::Replace`]
/// what no cotangent reaches gets zero.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn conv_transpose_data_gradient<T: Element>(
    convolution: &ConvTranspose,
    weights: &[T],
    cotangent: Image<'_, T>,
    (region, origin): (Region, Position),
    input_cotangent: ImageMut<'_, T>,
    existing: Existing,
) -> Result<(), KernelError> {
    let ConvTranspose {
        window,
        in_channels,
        out_channels,
        groups,
    } = *convolution;
    convolution.check(region, origin)?;
    check_length(
        "weights of a transposed convolution",
        convolution.weight_count()?,
        weights.len(),
    )?;
    cotangent.check_channels("cotangent of a transposed convolution", out_channels)?;
    cotangent.check_region("cotangent of a transposed convolution", region)?;
    input_cotangent.check_channels("input of a transposed convolution", in_channels)?;
    let (inputs, outputs) = (in_channels / groups, out_channels / groups);
    let whole = input_cotangent.region();
    window.check(whole, Position::new(0, 0))?;
    for_each_row(
        input_cotangent,
        whole,
        #[inline(always)]
        |row: usize, values: &mut [T]| {
            if existing == Existing::Replace {
                values.fill(T::ZERO);
            }
            for first in (0..whole.columns).step_by(POSITIONS) {
                for group in 0..groups {
                    for_each_block!(inputs, channel, N, {
                        let mut sums = [[T::ZERO; N]; POSITIONS];
                        for tap_row in 0..window.kernel[0] {
                            let to = target(&window, 0, origin.row, (row, tap_row), region.rows);
                            let Some(to_row) = to else { continue };
                            for tap_column in 0..window.kernel[1] {
                                let sources: [Option<&[T]>; POSITIONS] =
                                    std::array::from_fn(|position| {
                                        let at = (first + position, tap_column);
                                        let column =
                                            target(&window, 1, origin.column, at, region.columns)?;
                                        let pixel = cotangent
                                            .pixel(region.row + to_row, region.column + column);
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
                                    *value += sum;
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

/// Channels of the input whose sums one task adds to.
const CHANNELS: usize = 8;

/// Adds the gradient of the weights to `sums`, which are in the order of [`ConvTranspose::forward_order`]; products are made and
/// added up in `f64`, by outputs in scan order.
///
/// `origin` is as for [`conv_transpose_forward`](crate::conv_transpose_forward).
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn conv_transpose_weight_gradient<T: Element>(
    convolution: &ConvTranspose,
    input: Image<'_, T>,
    cotangent: Image<'_, T>,
    (region, origin): (Region, Position),
    sums: &mut [f64],
) -> Result<(), KernelError> {
    let ConvTranspose {
        window,
        in_channels,
        out_channels,
        groups,
    } = *convolution;
    convolution.check(region, origin)?;
    check_length(
        "sums of a transposed convolution",
        convolution.weight_count()?,
        sums.len(),
    )?;
    input.check_channels("input of a transposed convolution", in_channels)?;
    cotangent.check_channels("cotangent of a transposed convolution", out_channels)?;
    cotangent.check_region("cotangent of a transposed convolution", region)?;
    let outputs = out_channels / groups;
    sums.par_chunks_mut(in_channels * outputs)
        .enumerate()
        .for_each(|(tap, sums)| {
            let gradient = WeightGradient {
                convolution,
                tap: [tap / window.kernel[1], tap % window.kernel[1]],
                input,
                cotangent,
                region,
                origin,
            };
            sums.par_chunks_mut(CHANNELS * outputs)
                .enumerate()
                .for_each(|(block, sums)| run_part(&gradient, block, sums));
        });
    Ok(())
}

/// The gradient of the weights of one tap.
struct WeightGradient<'a, T> {
    convolution: &'a ConvTranspose,
    tap: [usize; 2],
    input: Image<'a, T>,
    cotangent: Image<'a, T>,
    region: Region,
    origin: Position,
}

impl<T: Element> Work<f64> for WeightGradient<'_, T> {
    /// Adds to the sums of a block of the input's channels.
    #[inline(always)]
    fn run<S: Simd>(&self, _: S, block: usize, sums: &mut [f64]) {
        let Self {
            convolution,
            tap: [tap_row, tap_column],
            input,
            cotangent,
            region,
            origin,
        } = *self;
        let window = &convolution.window;
        let inputs = convolution.in_channels / convolution.groups;
        let outputs = convolution.out_channels / convolution.groups;
        let first = block * CHANNELS;
        for row in 0..region.rows {
            let place = origin.row + signed(row);
            let Some(from_row) = source(window, 0, place, tap_row, input.height()) else {
                continue;
            };
            for column in 0..region.columns {
                let place = origin.column + signed(column);
                let from = source(window, 1, place, tap_column, input.width());
                let Some(from_column) = from else { continue };
                let values = &input.pixel(from_row, from_column)[first..];
                let given = cotangent.pixel(region.row + row, region.column + column);
                for (channel, (sums, value)) in (first..).zip(sums.chunks_mut(outputs).zip(values))
                {
                    let value = value.to_f64();
                    let given = &given[channel / inputs * outputs..];
                    for (sum, given) in sums.iter_mut().zip(given) {
                        *sum += value * given.to_f64();
                    }
                }
            }
        }
    }
}
