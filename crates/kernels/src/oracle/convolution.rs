use super::{Plane, tap};
use crate::{Convolution, Position};

/// Calls `visit(output, output channel, input, input channel, weight index)` for every product of a convolution of
/// `extent` input positions into `outputs` output positions.
fn products(
    convolution: &Convolution,
    first_window: Position,
    extent: [usize; 2],
    outputs: [usize; 2],
    mut visit: impl FnMut([usize; 2], usize, [usize; 2], usize, usize),
) {
    let [kernel_rows, kernel_columns] = convolution.window.kernel;
    let group_in = convolution.in_channels / convolution.groups;
    let group_out = convolution.out_channels / convolution.groups;
    for row in 0..outputs[0] {
        for column in 0..outputs[1] {
            for ky in 0..kernel_rows {
                for kx in 0..kernel_columns {
                    let output = [row, column];
                    let Some(input) =
                        tap(&convolution.window, first_window, output, [ky, kx], extent)
                    else {
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

/// A convolution with weights in OIHW order: `rows` x `columns` outputs.
#[must_use]
pub fn conv_forward(
    convolution: &Convolution,
    weights: &[f64],
    bias: Option<&[f64]>,
    input: &Plane,
    first_window: Position,
    rows: usize,
    columns: usize,
) -> Plane {
    let mut output = Plane::from_fn(rows, columns, convolution.out_channels, |_, _, channel| {
        bias.map_or(0.0, |bias| bias[channel])
    });
    let extent = [input.height, input.width];
    products(
        convolution,
        first_window,
        extent,
        [rows, columns],
        |to, out, from, channel, weight| {
            *output.at(to[0], to[1], out) += weights[weight] * input.get(from[0], from[1], channel);
        },
    );
    output
}

/// The gradient by an input of `height` x `width`.
#[must_use]
pub fn conv_data_gradient(
    convolution: &Convolution,
    weights: &[f64],
    cotangent: &Plane,
    first_window: Position,
    height: usize,
    width: usize,
) -> Plane {
    let mut gradient = Plane::zeros(height, width, convolution.in_channels);
    let outputs = [cotangent.height, cotangent.width];
    products(
        convolution,
        first_window,
        [height, width],
        outputs,
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
    first_window: Position,
    cotangent: &Plane,
) -> Vec<f64> {
    let count = convolution.out_channels * (convolution.in_channels / convolution.groups);
    let mut gradient = vec![0.0; count * convolution.window.taps()];
    let outputs = [cotangent.height, cotangent.width];
    products(
        convolution,
        first_window,
        [input.height, input.width],
        outputs,
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
