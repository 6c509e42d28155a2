use super::Plane;
use crate::ConvTranspose;

/// Calls `visit(input, output, weight)` with the indices that each product of a transposed convolution takes of whole planes: the
/// input's, the output's, and that of the weight in `PyTorch`'s order `[in, out / groups, rows, columns]`.
fn products(
    convolution: &ConvTranspose,
    (input, output): ([usize; 2], [usize; 2]),
    mut visit: impl FnMut(usize, usize, usize),
) {
    let window = &convolution.window;
    let (inputs, outputs) = (convolution.in_channels, convolution.out_channels);
    let (own_inputs, own_outputs) = (inputs / convolution.groups, outputs / convolution.groups);
    for row in 0..input[0] {
        for column in 0..input[1] {
            for tap_row in 0..window.kernel[0] {
                for tap_column in 0..window.kernel[1] {
                    let place = |axis: usize, position: usize, tap: usize| {
                        let place = position * window.stride[axis] + tap * window.dilation[axis];
                        let place = place.checked_sub(window.padding.before()[axis])?;
                        (place < output[axis]).then_some(place)
                    };
                    let (Some(to_row), Some(to_column)) =
                        (place(0, row, tap_row), place(1, column, tap_column))
                    else {
                        continue;
                    };
                    for from in 0..inputs {
                        for own in 0..own_outputs {
                            let to = from / own_inputs * own_outputs + own;
                            let tap = tap_row * window.kernel[1] + tap_column;
                            visit(
                                (row * input[1] + column) * inputs + from,
                                (to_row * output[1] + to_column) * outputs + to,
                                (from * own_outputs + own) * window.taps() + tap,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// A transposed convolution of a whole plane to one of `extent` (rows, columns); padding is what is cut off at the beginning of each
/// axis.
#[must_use]
pub fn conv_transpose_forward(
    convolution: &ConvTranspose,
    (weights, bias): (&[f64], &[f64]),
    input: &Plane,
    extent: [usize; 2],
) -> Plane {
    let channels = convolution.out_channels;
    let mut output = Plane::from_fn(extent[0], extent[1], channels, |_, _, channel| {
        bias[channel]
    });
    let extents = ([input.height, input.width], extent);
    products(convolution, extents, |from, to, weight| {
        output.data[to] += input.data[from] * weights[weight];
    });
    output
}

/// The gradient of [`conv_transpose_forward`] by an input of `extent`.
#[must_use]
pub fn conv_transpose_data_gradient(
    convolution: &ConvTranspose,
    weights: &[f64],
    cotangent: &Plane,
    extent: [usize; 2],
) -> Plane {
    let mut gradient = Plane::zeros(extent[0], extent[1], convolution.in_channels);
    let extents = (extent, [cotangent.height, cotangent.width]);
    products(convolution, extents, |from, to, weight| {
        gradient.data[from] += cotangent.data[to] * weights[weight];
    });
    gradient
}

/// The gradient of [`conv_transpose_forward`] by its weights, in `PyTorch`'s order.
#[must_use]
pub fn conv_transpose_weight_gradient(
    convolution: &ConvTranspose,
    input: &Plane,
    cotangent: &Plane,
) -> Vec<f64> {
    let groups = convolution.groups;
    let count =
        convolution.window.taps() * convolution.in_channels * convolution.out_channels / groups;
    let mut gradient = vec![0.0; count];
    let extents = (
        [input.height, input.width],
        [cotangent.height, cotangent.width],
    );
    products(convolution, extents, |from, to, weight| {
        gradient[weight] += input.data[from] * cotangent.data[to];
    });
    gradient
}
