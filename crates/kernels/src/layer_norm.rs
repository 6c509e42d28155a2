//! Layer norm over the channels of each pixel.
//!
//! A sum over channels runs in as many lanes as a register has, so that its last bits depend on the processor's instructions; not
//! on the other pixels, nor on threads.

use pulp::Simd;

use crate::affine::sum_rows_in_two;
use crate::element::sealed::{lanes, load_from, registers, store_to};
use crate::instructions::Work;
use crate::rows::for_each_row;
use crate::view::check_length;
use crate::{Activation, Element, KernelError, Storage, View, ViewMut};

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

/// Mean and 1 / standard deviation of a pixel.
#[inline(always)]
fn statistics<S: Simd, T: Element, E: Storage<Compute = T>>(
    simd: S,
    epsilon: T,
    count: T,
    pixel: &[E],
) -> [T; 2] {
    let mut sums = T::splat(simd, T::ZERO);
    for place in registers::<S, T>(pixel.len()) {
        sums = T::vector_add(simd, sums, load_from(simd, pixel, place));
    }
    let mean = T::sum_lanes(simd, sums) / count;
    let (centre, mut sums) = (T::splat(simd, mean), T::splat(simd, T::ZERO));
    for place in registers::<S, T>(pixel.len()) {
        let centred = T::vector_sub(simd, load_from(simd, pixel, place), centre);
        let centred = existing::<S, T>(simd, centred, pixel.len() - place);
        sums = T::mul_add(simd, centred, centred, sums);
    }
    let variance = T::sum_lanes(simd, sums) / count;
    [mean, T::ONE / (variance + epsilon).sqrt()]
}

/// A register with 0 in the lanes beyond the `channels` that are left.
#[inline(always)]
fn existing<S: Simd, T: Element>(simd: S, register: T::Vector<S>, channels: usize) -> T::Vector<S> {
    if channels < lanes::<S, T>() {
        T::first_lanes(simd, register, channels)
    } else {
        register
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "channel counts are far below 2^53"
)]
fn count_of<T: Element>(channels: usize) -> T {
    T::from_f64(channels as f64)
}

struct Forward<'a, T, E> {
    norm: LayerNorm<'a, T>,
    input: View<'a, E>,
    activation: Activation,
}

impl<T: Element, E: Storage<Compute = T>> Work<E> for Forward<'_, T, E> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, row: usize, output: &mut [E]) {
        let LayerNorm {
            gamma,
            beta,
            epsilon,
        } = self.norm;
        let (channels, epsilon) = (gamma.len(), T::from_f64(epsilon));
        let count = count_of(channels);
        let pixels = self.input.row(row).chunks_exact(channels);
        for (output, pixel) in output.chunks_exact_mut(channels).zip(pixels) {
            let statistics = statistics(simd, epsilon, count, pixel);
            let [mean, inverse] = splat(simd, statistics);
            for place in registers::<S, T>(channels) {
                let centred = T::vector_sub(simd, load_from(simd, pixel, place), mean);
                let normal = T::vector_mul(simd, centred, inverse);
                let (gamma, beta) = (load_from(simd, gamma, place), load_from(simd, beta, place));
                let value = T::mul_add(simd, normal, gamma, beta);
                let value = self.activation.apply_to_vector::<S, T>(simd, value);
                store_to(simd, output, place, value);
            }
        }
    }
}

/// `x - mean`, and the slope less its mean, from the pixel and its cotangent, and gamma.
#[inline(always)]
fn centred<S: Simd, T: Element, E: Storage<Compute = T>>(
    simd: S,
    [pixel, cotangent]: [&[E]; 2],
    gamma: &[T],
    place: usize,
    [mean, mean_slope]: [T::Vector<S>; 2],
) -> [T::Vector<S>; 2] {
    let cotangent = load_from(simd, cotangent, place);
    let slope = T::vector_mul(simd, cotangent, load_from(simd, gamma, place));
    [
        T::vector_sub(simd, load_from(simd, pixel, place), mean),
        T::vector_sub(simd, slope, mean_slope),
    ]
}

#[inline(always)]
fn splat<S: Simd, T: Element>(simd: S, [a, b]: [T; 2]) -> [T::Vector<S>; 2] {
    [T::splat(simd, a), T::splat(simd, b)]
}

struct Vjp<'a, T, E> {
    norm: LayerNorm<'a, T>,
    input: View<'a, E>,
    cotangent: View<'a, E>,
}

impl<T: Element, E: Storage<Compute = T>> Work<E> for Vjp<'_, T, E> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, row: usize, sums: &mut [E]) {
        let LayerNorm { gamma, epsilon, .. } = self.norm;
        let (channels, epsilon) = (gamma.len(), T::from_f64(epsilon));
        let count = count_of(channels);
        let pixels = self.input.row(row).chunks_exact(channels);
        let cotangents = self.cotangent.row(row).chunks_exact(channels);
        for (sums, (pixel, cotangent)) in
            sums.chunks_exact_mut(channels).zip(pixels.zip(cotangents))
        {
            let [mean, inverse] = statistics(simd, epsilon, count, pixel);
            let mut slopes = T::splat(simd, T::ZERO);
            for place in registers::<S, T>(channels) {
                let gamma = load_from(simd, gamma, place);
                slopes = T::mul_add(simd, load_from(simd, cotangent, place), gamma, slopes);
            }
            let centres = [mean, T::sum_lanes(simd, slopes) / count];
            let centres = splat(simd, centres);
            // sum (x - mean) * (slope - mean slope) is the sum of x * slope, without cancellation.
            let mut products = T::splat(simd, T::ZERO);
            for place in registers::<S, T>(channels) {
                let values = [pixel, cotangent];
                let [value, slope] = centred(simd, values, gamma, place, centres);
                let value = existing::<S, T>(simd, value, channels - place);
                products = T::mul_add(simd, value, slope, products);
            }
            let correlation = T::sum_lanes(simd, products) / count * inverse * inverse;
            let [inverse, correlation] = [inverse, correlation].map(|value| T::splat(simd, value));
            for place in registers::<S, T>(channels) {
                let values = [pixel, cotangent];
                let [value, slope] = centred(simd, values, gamma, place, centres);
                let slope = T::vector_sub(simd, slope, T::vector_mul(simd, value, correlation));
                let sum = T::mul_add(simd, inverse, slope, load_from(simd, sums, place));
                store_to(simd, sums, place, sum);
            }
        }
    }
}

struct ParameterGradient<'a, T, E> {
    norm: LayerNorm<'a, T>,
    input: View<'a, E>,
    cotangent: View<'a, E>,
}

impl<T: Element, E: Storage<Compute = T>> Work<f64> for ParameterGradient<'_, T, E> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, row: usize, partial: &mut [f64]) {
        let (channels, epsilon) = (self.norm.gamma.len(), T::from_f64(self.norm.epsilon));
        let count = count_of(channels);
        let (gammas, betas) = partial.split_at_mut(channels);
        let pixels = self.input.row(row).chunks_exact(channels);
        let cotangents = self.cotangent.row(row).chunks_exact(channels);
        for (pixel, cotangent) in pixels.zip(cotangents) {
            let [mean, inverse] = statistics(simd, epsilon, count, pixel);
            let sums = gammas.iter_mut().zip(betas.iter_mut());
            for ((&value, &cotangent), (gamma, beta)) in pixel.iter().zip(cotangent).zip(sums) {
                let cotangent = cotangent.widen().to_f64();
                *gamma += ((value.widen() - mean) * inverse).to_f64() * cotangent;
                *beta += cotangent;
            }
        }
    }
}

/// Writes the layer norm of `input`, then the activation, to `output`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn layer_norm_forward<E: Storage>(
    norm: LayerNorm<'_, E::Compute>,
    input: View<'_, E>,
    activation: Activation,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let channels = output.channels();
    norm.check(channels)?;
    let input = input.operand("layer norm input", channels, output.rect())?;
    let work = Forward {
        norm,
        input,
        activation,
    };
    for_each_row(output, work);
    Ok(())
}

/// Adds the cotangent of a layer norm's input to `input_cotangent`; the statistics are computed anew.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn layer_norm_vjp<E: Storage>(
    norm: LayerNorm<'_, E::Compute>,
    input: View<'_, E>,
    cotangent: View<'_, E>,
    input_cotangent: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let channels = input_cotangent.channels();
    norm.check(channels)?;
    let input = input.operand("layer norm input", channels, input_cotangent.rect())?;
    let cotangent = cotangent.operand("layer norm cotangent", channels, input_cotangent.rect())?;
    let work = Vjp {
        norm,
        input,
        cotangent,
    };
    for_each_row(input_cotangent, work);
    Ok(())
}

/// Adds the gradients by gamma and beta, over all of `cotangent`; the statistics are computed anew.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn layer_norm_parameter_gradient<E: Storage>(
    norm: LayerNorm<'_, E::Compute>,
    input: View<'_, E>,
    cotangent: View<'_, E>,
    gamma_gradient: &mut [f64],
    beta_gradient: &mut [f64],
) -> Result<(), KernelError> {
    let channels = cotangent.channels();
    norm.check(channels)?;
    let input = input.operand("layer norm input", channels, cotangent.rect())?;
    check_length("layer norm gamma gradient", channels, gamma_gradient.len())?;
    check_length("layer norm beta gradient", channels, beta_gradient.len())?;
    let work = ParameterGradient {
        norm,
        input,
        cotangent,
    };
    sum_rows_in_two(cotangent.height(), gamma_gradient, beta_gradient, work);
    Ok(())
}
