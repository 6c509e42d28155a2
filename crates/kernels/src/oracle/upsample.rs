use super::Plane;
use crate::{AlignCorners, Interpolation, Upsample};

/// Calls `visit(input position, weight)` for the inputs of an output position along one axis.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions in an image are far below 2^53, and are not negative"
)]
fn taps(upsample: &Upsample, axis: usize, output: usize) -> Vec<(usize, f64)> {
    let (factor, extent) = (upsample.factor[axis], upsample.plane[axis]);
    let last = (extent - 1) as f64;
    let source = match upsample.interpolation {
        Interpolation::Nearest => return vec![(output / factor, 1.0)],
        Interpolation::Bilinear(AlignCorners::No) => (output as f64 + 0.5) / factor as f64 - 0.5,
        Interpolation::Bilinear(AlignCorners::Yes) if extent * factor > 1 => {
            output as f64 * last / (extent * factor - 1) as f64
        }
        Interpolation::Bilinear(AlignCorners::Yes) => 0.0,
    };
    let source = source.clamp(0.0, last);
    let share = source - source.floor();
    let below = source.floor() as usize;
    if share == 0.0 {
        vec![(below, 1.0)]
    } else {
        vec![(below, 1.0 - share), (below + 1, share)]
    }
}

/// Upsamples a whole plane.
#[must_use]
pub fn upsample_forward(upsample: &Upsample, input: &Plane) -> Plane {
    let [row_factor, column_factor] = upsample.factor;
    let (rows, columns) = (input.height * row_factor, input.width * column_factor);
    Plane::from_fn(rows, columns, input.channels, |row, column, channel| {
        let mut sum = 0.0;
        for (from_row, row_weight) in taps(upsample, 0, row) {
            for (from_column, column_weight) in taps(upsample, 1, column) {
                sum += row_weight * column_weight * input.get(from_row, from_column, channel);
            }
        }
        sum
    })
}

/// The gradient of [`upsample_forward`] by its input, given the cotangent of the whole output plane.
#[must_use]
pub fn upsample_vjp(upsample: &Upsample, cotangent: &Plane) -> Plane {
    let [height, width] = upsample.plane;
    let mut gradient = Plane::zeros(height, width, cotangent.channels);
    for row in 0..cotangent.height {
        for column in 0..cotangent.width {
            for (to_row, row_weight) in taps(upsample, 0, row) {
                for (to_column, column_weight) in taps(upsample, 1, column) {
                    for channel in 0..cotangent.channels {
                        *gradient.at(to_row, to_column, channel) +=
                            row_weight * column_weight * cotangent.get(row, column, channel);
                    }
                }
            }
        }
    }
    gradient
}
