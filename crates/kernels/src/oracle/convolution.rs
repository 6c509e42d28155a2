use super::{Plane, tap};
use crate::{Convolution, Rect};

/// Calls `visit(output, output channel, input, input channel, weight index)` for every product of a convolution of a rectangle of
/// the input into one of the output.
fn products(
    convolution: &Convolution,
    input: Rect,
    outputs: Rect,
    mut visit: impl FnMut([usize; 2], usize, [usize; 2], usize, usize),
) {
    let [kernel_rows, kernel_columns] = convolution.window.kernel;
    let group_in = convolution.in_channels / convolution.groups;
    let group_out = convolution.out_channels / convolution.groups;
    let extent = Plane::zeros_of(outputs, 0);
    for row in 0..extent.height {
        for column in 0..extent.width {
            for ky in 0..kernel_rows {
                for kx in 0..kernel_columns {
                    let output = [row, column];
                    let at = (outputs, output);
                    let Some(input) = tap(&convolution.window, at, [ky, kx], input) else {
                        continue;
                    };
                    for out in 0..convolution.out_channels {
                        for within in 0..group_in {
                            let from = out / group_out * group_in + within;
                            let weight = ((out * group_in + within) * kernel_rows + ky)
                                * kernel_columns
                                + kx;
                            visit(output, out, input, from, weight);
                        }
                    }
                }
            }
        }
    }
}

/// A convolution with weights in OIHW order, to a rectangle of the output.
#[must_use]
pub fn conv_forward(
    convolution: &Convolution,
    weights: &[f64],
    bias: Option<&[f64]>,
    input: &Plane,
    outputs: Rect,
) -> Plane {
    let mut output = Plane::zeros_of(outputs, convolution.out_channels);
    for pixel in output.data.chunks_exact_mut(convolution.out_channels) {
        pixel.copy_from_slice(bias.unwrap_or(&vec![0.0; pixel.len()]));
    }
    products(
        convolution,
        input.rect(),
        outputs,
        |to, out, from, channel, weight| {
            *output.at(to[0], to[1], out) += weights[weight] * input.get(from[0], from[1], channel);
        },
    );
    output
}

/// The gradient by a rectangle of the input.
#[must_use]
pub fn conv_data_gradient(
    convolution: &Convolution,
    weights: &[f64],
    cotangent: &Plane,
    input: Rect,
) -> Plane {
    let mut gradient = Plane::zeros_of(input, convolution.in_channels);
    products(
        convolution,
        input,
        cotangent.rect(),
        |from, out, to, channel, weight| {
            *gradient.at(to[0], to[1], channel) +=
                weights[weight] * cotangent.get(from[0], from[1], out);
        },
    );
    gradient
}

/// The gradient by the weights, in OIHW order.
#[must_use]
pub fn conv_weight_gradient(
    convolution: &Convolution,
    input: &Plane,
    cotangent: &Plane,
) -> Vec<f64> {
    let count = convolution.out_channels * (convolution.in_channels / convolution.groups);
    let mut gradient = vec![0.0; count * convolution.window.taps()];
    products(
        convolution,
        input.rect(),
        cotangent.rect(),
        |at, out, from, channel, weight| {
            gradient[weight] +=
                input.get(from[0], from[1], channel) * cotangent.get(at[0], at[1], out);
        },
    );
    gradient
}

/// The gradient by a bias.
#[must_use]
pub fn bias_gradient(cotangent: &Plane) -> Vec<f64> {
    let mut gradient = vec![0.0; cotangent.channels];
    for pixel in cotangent.data.chunks_exact(cotangent.channels.max(1)) {
        for (sum, value) in gradient.iter_mut().zip(pixel) {
            *sum += value;
        }
    }
    gradient
}
