use super::{Plane, tap};
use crate::{AveragePool, CountIncludePad, Rect, Window};

/// The places in a rectangle of the input that the window of one of `outputs` reads, in scan order.
fn positions(
    window: &Window,
    (outputs, output): (Rect, [usize; 2]),
    input: Rect,
) -> Vec<[usize; 2]> {
    let mut found = Vec::new();
    for ky in 0..window.kernel[0] {
        for kx in 0..window.kernel[1] {
            found.extend(tap(window, (outputs, output), [ky, kx], input));
        }
    }
    found
}

/// The position that max-pooling takes, if the window is not all padding.
fn winner(input: &Plane, positions: &[[usize; 2]], channel: usize) -> Option<[usize; 2]> {
    let mut best = *positions.first()?;
    for &position in positions {
        let value = input.get(position[0], position[1], channel);
        if value.is_nan() || value > input.get(best[0], best[1], channel) {
            best = position;
        }
    }
    Some(best)
}

/// Values of all `outputs`: `value(place, channel)`.
fn map(outputs: Rect, channels: usize, mut value: impl FnMut([usize; 2], usize) -> f64) -> Plane {
    let mut plane = Plane::zeros_of(outputs, channels);
    for row in 0..plane.height {
        for column in 0..plane.width {
            for channel in 0..channels {
                *plane.at(row, column, channel) = value([row, column], channel);
            }
        }
    }
    plane
}

/// Max-pooling to a rectangle of the output.
#[must_use]
pub fn max_pool_forward(window: &Window, input: &Plane, outputs: Rect) -> Plane {
    map(outputs, input.channels, |output, channel| {
        let positions = positions(window, (outputs, output), input.rect());
        winner(input, &positions, channel)
            .map_or(f64::NEG_INFINITY, |at| input.get(at[0], at[1], channel))
    })
}

/// The gradient of max-pooling by its input.
#[must_use]
pub fn max_pool_vjp(window: &Window, input: &Plane, cotangent: &Plane) -> Plane {
    let mut gradient = Plane::zeros_of(input.rect(), input.channels);
    for row in 0..cotangent.height {
        for column in 0..cotangent.width {
            let output = (cotangent.rect(), [row, column]);
            let positions = positions(window, output, input.rect());
            for channel in 0..input.channels {
                if let Some(at) = winner(input, &positions, channel) {
                    *gradient.at(at[0], at[1], channel) += cotangent.get(row, column, channel);
                }
            }
        }
    }
    gradient
}

/// What the window of an output is divided by, of which `valid` taps are not padding.
#[expect(clippy::cast_precision_loss, reason = "tap counts are far below 2^53")]
fn divide_by(pool: &AveragePool, (outputs, output): (Rect, [usize; 2]), valid: usize) -> f64 {
    let window = &pool.window;
    match (pool.count_include_pad, pool.end) {
        (CountIncludePad::No, _) => valid as f64,
        (CountIncludePad::Yes, None) => window.taps() as f64,
        (CountIncludePad::Yes, Some(end)) => {
            let firsts = [outputs.rows.lo, outputs.columns.lo];
            let ends = [end.rows, end.columns];
            let signed = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
            let count = |axis: usize| {
                let output = firsts[axis] + signed(output[axis]);
                let first =
                    output * signed(window.stride[axis]) - signed(window.padding.before()[axis]);
                let inside = (0..window.kernel[axis])
                    .filter(|&tap| first + signed(tap * window.dilation[axis]) < ends[axis]);
                inside.count() as f64
            };
            count(0) * count(1)
        }
    }
}

/// Average pooling to a rectangle of the output.
#[must_use]
pub fn avg_pool_forward(pool: &AveragePool, input: &Plane, outputs: Rect) -> Plane {
    map(outputs, input.channels, |output, channel| {
        let positions = positions(&pool.window, (outputs, output), input.rect());
        if positions.is_empty() {
            return 0.0;
        }
        let sum: f64 = positions
            .iter()
            .map(|at| input.get(at[0], at[1], channel))
            .sum();
        sum / divide_by(pool, (outputs, output), positions.len())
    })
}

/// The gradient of average pooling by a rectangle of the input.
#[must_use]
pub fn avg_pool_vjp(pool: &AveragePool, cotangent: &Plane, input: Rect) -> Plane {
    let mut gradient = Plane::zeros_of(input, cotangent.channels);
    for row in 0..cotangent.height {
        for column in 0..cotangent.width {
            let output = (cotangent.rect(), [row, column]);
            let positions = positions(&pool.window, output, input);
            for at in &positions {
                for channel in 0..cotangent.channels {
                    *gradient.at(at[0], at[1], channel) += cotangent.get(row, column, channel)
                        / divide_by(pool, output, positions.len());
                }
            }
        }
    }
    gradient
}
