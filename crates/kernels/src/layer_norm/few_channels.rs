//! Layer norm over so few channels that a pixel would not fill a register: many pixels next to each other.
//!
//! What is computed for a pixel does not depend on the others, nor on its place among them.

use super::{LayerNorm, count_of};
use crate::{Activation, Element};

/// Fewest channels for which pixels are worked on one by one.
pub(super) const FEW: usize = 32;

/// Pixels at once: one or two registers.
const PIXELS: usize = 16;

/// One value for each pixel.
type Lanes<T> = [T; PIXELS];

/// Pixels transposed: the first channel of all of them, then the second.
struct Block<T> {
    rows: [Lanes<T>; FEW],
    channels: usize,
}

impl<T: Element> Block<T> {
    fn new(channels: usize) -> Self {
        Self {
            rows: [[T::ZERO; PIXELS]; FEW],
            channels,
        }
    }

    /// Reads up to [`PIXELS`] pixels. Where there are fewer, the other lanes keep what they held, and nothing is done with it.
    #[inline(always)]
    fn read(&mut self, pixels: &[T]) {
        for (lane, pixel) in pixels.chunks_exact(self.channels).enumerate() {
            for (row, &value) in self.rows.iter_mut().zip(pixel) {
                row[lane] = value;
            }
        }
    }

    #[inline(always)]
    fn rows(&self) -> &[Lanes<T>] {
        &self.rows[..self.channels]
    }

    #[inline(always)]
    fn rows_mut(&mut self) -> &mut [Lanes<T>] {
        &mut self.rows[..self.channels]
    }

    /// Takes each pixel's mean from it, and returns 1 / its standard deviation.
    #[inline(always)]
    fn centre(&mut self, count: T, epsilon: T) -> Lanes<T> {
        let mut sum = [T::ZERO; PIXELS];
        for row in self.rows() {
            add(&mut sum, row);
        }
        let mean = sum.map(|sum| sum / count);
        let mut squares = [T::ZERO; PIXELS];
        for row in self.rows_mut() {
            for lane in 0..PIXELS {
                row[lane] = row[lane] - mean[lane];
                squares[lane] += row[lane] * row[lane];
            }
        }
        squares.map(|sum| T::ONE / (sum / count + epsilon).sqrt())
    }
}

#[inline(always)]
fn add<T: Element>(sums: &mut Lanes<T>, row: &Lanes<T>) {
    for (sum, &value) in sums.iter_mut().zip(row) {
        *sum += value;
    }
}

/// The layer norm of a row of pixels.
#[inline(always)]
pub(super) fn forward<T: Element>(
    norm: LayerNorm<'_, T>,
    input: &[T],
    activation: Activation,
    output: &mut [T],
) {
    let channels = norm.gamma.len();
    let (count, epsilon) = (count_of::<T>(channels), T::from_f64(norm.epsilon));
    let mut block = Block::new(channels);
    let outputs = output.chunks_mut(PIXELS * channels);
    for (output, input) in outputs.zip(input.chunks(PIXELS * channels)) {
        block.read(input);
        let inverse = block.centre(count, epsilon);
        let parameters = norm.gamma.iter().zip(norm.beta);
        for (row, (&gamma, &beta)) in block.rows_mut().iter_mut().zip(parameters) {
            for (value, &inverse) in row.iter_mut().zip(&inverse) {
                *value = activation.apply(*value * inverse * gamma + beta);
            }
        }
        for (lane, pixel) in output.chunks_exact_mut(channels).enumerate() {
            for (value, row) in pixel.iter_mut().zip(block.rows()) {
                *value = row[lane];
            }
        }
    }
}

/// Adds the cotangent of a row of pixels to `sums`.
#[inline(always)]
pub(super) fn vjp<T: Element>(
    norm: LayerNorm<'_, T>,
    input: &[T],
    cotangent: &[T],
    sums: &mut [T],
) {
    let channels = norm.gamma.len();
    let (count, epsilon) = (count_of::<T>(channels), T::from_f64(norm.epsilon));
    let (mut centred, mut slope) = (Block::new(channels), Block::new(channels));
    let step = PIXELS * channels;
    let pixels = input.chunks(step).zip(cotangent.chunks(step));
    for (sums, (input, cotangent)) in sums.chunks_mut(step).zip(pixels) {
        centred.read(input);
        slope.read(cotangent);
        let inverse = centred.centre(count, epsilon);
        let mut total = [T::ZERO; PIXELS];
        for (row, &gamma) in slope.rows_mut().iter_mut().zip(norm.gamma) {
            for (sum, value) in total.iter_mut().zip(row) {
                *value *= gamma;
                *sum += *value;
            }
        }
        let mean_slope = total.map(|sum| sum / count);
        // sum (x - mean) * (slope - mean slope) is the sum of x * slope, without cancellation.
        let mut products = [T::ZERO; PIXELS];
        for (row, centred) in slope.rows_mut().iter_mut().zip(centred.rows()) {
            for lane in 0..PIXELS {
                row[lane] = row[lane] - mean_slope[lane];
                products[lane] += centred[lane] * row[lane];
            }
        }
        let mut correlation = products;
        for (product, &inverse) in correlation.iter_mut().zip(&inverse) {
            *product = *product / count * inverse * inverse;
        }
        for (row, centred) in slope.rows_mut().iter_mut().zip(centred.rows()) {
            for lane in 0..PIXELS {
                row[lane] = inverse[lane] * (row[lane] - centred[lane] * correlation[lane]);
            }
        }
        for (lane, pixel) in sums.chunks_exact_mut(channels).enumerate() {
            for (sum, row) in pixel.iter_mut().zip(slope.rows()) {
                *sum += row[lane];
            }
        }
    }
}

/// Adds the gradients by gamma and beta over a row of pixels.
#[inline(always)]
pub(super) fn parameter_gradient<T: Element>(
    norm: LayerNorm<'_, T>,
    input: &[T],
    cotangent: &[T],
    gammas: &mut [f64],
    betas: &mut [f64],
) {
    let channels = norm.gamma.len();
    let (count, epsilon) = (count_of::<T>(channels), T::from_f64(norm.epsilon));
    let (mut normal, mut given) = (Block::new(channels), Block::new(channels));
    // Sums of each place in a block, folded at the row's end.
    let mut by_gamma = [[0.0; PIXELS]; FEW];
    let mut by_beta = [[0.0; PIXELS]; FEW];
    let step = PIXELS * channels;
    for (input, cotangent) in input.chunks(step).zip(cotangent.chunks(step)) {
        normal.read(input);
        given.read(cotangent);
        let inverse = normal.centre(count, epsilon);
        let pixels = input.len() / channels;
        let rows = normal.rows().iter().zip(given.rows());
        for ((normal, given), (gamma, beta)) in
            rows.zip(by_gamma.iter_mut().zip(by_beta.iter_mut()))
        {
            for lane in 0..pixels {
                let cotangent = given[lane].to_f64();
                gamma[lane] += (normal[lane] * inverse[lane]).to_f64() * cotangent;
                beta[lane] += cotangent;
            }
        }
    }
    for (sum, lanes) in gammas
        .iter_mut()
        .zip(&by_gamma)
        .chain(betas.iter_mut().zip(&by_beta))
    {
        *sum += lanes.iter().sum::<f64>();
    }
}
