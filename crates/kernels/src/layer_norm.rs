//! Layer norm over the channels of each pixel.

mod few_channels;

use crate::affine::sum_rows_in_two;
use crate::image::check_length;
use crate::rows::for_each_row;
use crate::{Activation, Element, Image, ImageMut, KernelError, Located, Region};
use few_channels::FEW;

/// A layer norm: `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, where mean and (biased) variance are over the
/// channels of one pixel.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a, T> {
    /// One scale for each channel.
    pub gamma: &'a [T],
    /// One shift for each channel.
    pub beta: &'a [T],
    /// Added to the variance.
    pub epsilon: f64,
}

impl<T> LayerNorm<'_, T> {
    fn check(&self, channels: usize) -> Result<(), KernelError> {
        if channels == 0 {
            return Err(KernelError::Zero {
                what: "layer norm channels",
            });
        }
        check_length("layer norm gamma", channels, self.gamma.len())?;
        check_length("layer norm beta", channels, self.beta.len())
    }
}

/// Summands that a sum runs in parallel: one or two registers.
const LANES: usize = 16;

/// The sum over all lanes, by halves: a chain of four additions, where one lane after the other would be sixteen.
#[inline(always)]
fn fold<T: Element>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            let upper = lanes[half + lane];
            lanes[lane] += upper;
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of `term` over two slices of equal length, in a fixed order that vectorises.
#[inline(always)]
fn sum<T: Element>(a: &[T], b: &[T], term: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (a_whole, b_whole) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_whole.remainder().iter().zip(b_whole.remainder());
    let rest: T = rest.map(|(&a, &b)| term(a, b)).sum();
    for (a, b) in a_whole.zip(b_whole) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(a, b);
        }
    }
    fold(lanes) + rest
}

/// Mean and 1 / standard deviation of a pixel.
#[inline(always)]
fn statistics<T: Element>(pixel: &[T], count: T, epsilon: T) -> (T, T) {
    let mean = sum(pixel, pixel, |x, _| x) / count;
    let variance = sum(pixel, pixel, |x, _| (x - mean) * (x - mean)) / count;
    (mean, T::ONE / (variance + epsilon).sqrt())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "channel counts are far below 2^53"
)]
fn count_of<T: Element>(channels: usize) -> T {
    T::from_f64(channels as f64)
}

/// Writes the layer norm of `input`, then the activation, into `region` of `output`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn layer_norm_forward<T: Element>(
    norm: LayerNorm<'_, T>,
    input: Located<'_, T>,
    activation: Activation,
    output: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    let channels = output.channels();
    norm.check(channels)?;
    input.check("layer norm input", channels, region)?;
    output.check_region("layer norm output", region)?;
    let (count, epsilon) = (count_of::<T>(channels), T::from_f64(norm.epsilon));
    if channels < FEW {
        for_each_row(output, region, |row, output| {
            let input = input.row(row, region.columns);
            few_channels::forward(norm, input, activation, output);
        });
        return Ok(());
    }
    for_each_row(output, region, |row, output| {
        let input = input.row(row, region.columns).chunks_exact(channels);
        for (output, input) in output.chunks_exact_mut(channels).zip(input) {
            let (mean, inverse) = statistics(input, count, epsilon);
            let parameters = norm.gamma.iter().zip(norm.beta);
            for ((value, &input), (&gamma, &beta)) in output.iter_mut().zip(input).zip(parameters) {
                *value = activation.apply((input - mean) * inverse * gamma + beta);
            }
        }
    });
    Ok(())
}

/// Adds the cotangent of a layer norm's input to `region` of `input_cotangent`; the statistics are computed anew.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn layer_norm_vjp<T: Element>(
    norm: LayerNorm<'_, T>,
    input: Located<'_, T>,
    cotangent: Located<'_, T>,
    input_cotangent: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    let channels = input_cotangent.channels();
    norm.check(channels)?;
    input.check("layer norm input", channels, region)?;
    cotangent.check("layer norm cotangent", channels, region)?;
    input_cotangent.check_region("layer norm input cotangent", region)?;
    let (count, epsilon) = (count_of::<T>(channels), T::from_f64(norm.epsilon));
    if channels < FEW {
        for_each_row(input_cotangent, region, |row, sums| {
            let input = input.row(row, region.columns);
            let cotangent = cotangent.row(row, region.columns);
            few_channels::vjp(norm, input, cotangent, sums);
        });
        return Ok(());
    }
    for_each_row(input_cotangent, region, |row, sums| {
        let input = input.row(row, region.columns).chunks_exact(channels);
        let cotangent = cotangent.row(row, region.columns).chunks_exact(channels);
        for ((sums, input), cotangent) in sums.chunks_exact_mut(channels).zip(input).zip(cotangent)
        {
            let (mean, inverse) = statistics(input, count, epsilon);
            let mean_slope = sum(cotangent, norm.gamma, |cotangent, gamma| cotangent * gamma);
            let mean_slope = mean_slope / count;
            // sum (x - mean) * (slope - mean slope) is the sum of x * slope, without cancellation.
            let mut lanes = [T::ZERO; LANES];
            for ((block, cotangent), gamma) in input
                .chunks(LANES)
                .zip(cotangent.chunks(LANES))
                .zip(norm.gamma.chunks(LANES))
            {
                for (((lane, &input), &cotangent), &gamma) in
                    lanes.iter_mut().zip(block).zip(cotangent).zip(gamma)
                {
                    *lane += (input - mean) * (cotangent * gamma - mean_slope);
                }
            }
            let correlation = fold(lanes) / count * inverse * inverse;
            for (((sum, &input), &cotangent), &gamma) in
                sums.iter_mut().zip(input).zip(cotangent).zip(norm.gamma)
            {
                let slope = cotangent * gamma - mean_slope;
                *sum += inverse * (slope - (input - mean) * correlation);
            }
        }
    });
    Ok(())
}

/// Adds the gradients by gamma and beta over `region` of `cotangent`; the statistics are computed anew.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn layer_norm_parameter_gradient<T: Element>(
    norm: LayerNorm<'_, T>,
    input: Located<'_, T>,
    cotangent: Image<'_, T>,
    region: Region,
    gamma_gradient: &mut [f64],
    beta_gradient: &mut [f64],
) -> Result<(), KernelError> {
    let channels = cotangent.channels();
    norm.check(channels)?;
    input.check("layer norm input", channels, region)?;
    cotangent.check_region("layer norm cotangent", region)?;
    check_length("layer norm gamma gradient", channels, gamma_gradient.len())?;
    check_length("layer norm beta gradient", channels, beta_gradient.len())?;
    let (count, epsilon) = (count_of::<T>(channels), T::from_f64(norm.epsilon));
    let cotangent = Located::new(cotangent, region.row, region.column);
    let work = |row: usize, partial: &mut [f64]| {
        let (gammas, betas) = partial.split_at_mut(channels);
        if channels < FEW {
            let input = input.row(row, region.columns);
            let cotangent = cotangent.row(row, region.columns);
            return few_channels::parameter_gradient(norm, input, cotangent, gammas, betas);
        }
        let pixels = input.row(row, region.columns).chunks_exact(channels);
        let cotangents = cotangent.row(row, region.columns).chunks_exact(channels);
        for (input, cotangent) in pixels.zip(cotangents) {
            let (mean, inverse) = statistics(input, count, epsilon);
            let sums = gammas.iter_mut().zip(betas.iter_mut());
            for ((&input, &cotangent), (gamma, beta)) in input.iter().zip(cotangent).zip(sums) {
                *gamma += ((input - mean) * inverse).to_f64() * cotangent.to_f64();
                *beta += cotangent.to_f64();
            }
        }
    };
    sum_rows_in_two(region.rows, gamma_gradient, beta_gradient, work);
    Ok(())
}
