use super::{Plane, tap};
use crate::{AveragePool, Divisor, Position, Window};

/// The positions in an input of `extent` that the window of `output` reads, in scan order.
fn positions(
    window: &Window,
    first_window: Position,
    output: [usize; 2],
    extent: [usize; 2],
) -> Vec<[usize; 2]> {
    let mut found = Vec::new();
    for ky in 0..window.kernel[0] {
        for kx in 0..window.kernel[1] {
            found.extend(tap(window, first_window, output, [ky, kx], extent));
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

/// Max-pooling: `rows` x `columns` outputs.
#[must_use]
pub fn max_pool_forward(
    window: &Window,
    input: &Plane,
    first_window: Position,
    rows: usize,
    columns: usize,
) -> Plane {
    let extent = [input.height, input.width];
    Plane::from_fn(rows, columns, input.channels, |row, column, channel| {
        let positions = positions(window, first_window, [row, column], extent);
        winner(input, &positions, channel)
            .map_or(f64::NEG_INFINITY, |at| input.get(at[0], at[1], channel))
    })
}

/// The gradient of max-pooling by its input.
#[must_use]
pub fn max_pool_vjp(
    window: &Window,
    input: &Plane,
    first_window: Position,
    cotangent: &Plane,
) -> Plane {
    let mut gradient = Plane::zeros(input.height, input.width, input.channels);
    let extent = [input.height, input.width];
    for row in 0..cotangent.height {
        for column in 0..cotangent.width {
            let positions = positions(window, first_window, [row, column], extent);
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
fn divide_by(pool: &AveragePool, first: Position, output: [usize; 2], valid: usize) -> f64 {
    let window = &pool.window;
    match (pool.divisor, pool.end) {
        (Divisor::ValidCount, _) => valid as f64,
        (Divisor::WindowArea, None) => window.taps() as f64,
        (Divisor::WindowArea, Some(end)) => {
            let (first, end) = ([first.row, first.column], [end.row, end.column]);
            let count = |axis: usize| {
                let taps = 0..window.kernel[axis];
                let inside = taps.filter(|tap| {
                    let step = output[axis] * window.stride[axis] + tap * window.dilation[axis];
                    isize::try_from(step).is_ok_and(|step| first[axis] + step < end[axis])
                });
                inside.count() as f64
            };
            count(0) * count(1)
        }
    }
}

/// Average pooling: `rows` x `columns` outputs.
#[must_use]
pub fn avg_pool_forward(
    pool: &AveragePool,
    input: &Plane,
    first_window: Position,
    rows: usize,
    columns: usize,
) -> Plane {
    let extent = [input.height, input.width];
    Plane::from_fn(rows, columns, input.channels, |row, column, channel| {
        let positions = positions(&pool.window, first_window, [row, column], extent);
        if positions.is_empty() {
            return 0.0;
        }
        let sum: f64 = positions
            .iter()
            .map(|at| input.get(at[0], at[1], channel))
            .sum();
        sum / divide_by(pool, first_window, [row, column], positions.len())
    })
}

/// The gradient of average pooling by an input of `height` x `width`.
#[must_use]
pub fn avg_pool_vjp(
    pool: &AveragePool,
    cotangent: &Plane,
    first_window: Position,
    height: usize,
    width: usize,
) -> Plane {
    let mut gradient = Plane::zeros(height, width, cotangent.channels);
    for row in 0..cotangent.height {
        for column in 0..cotangent.width {
            let positions = positions(&pool.window, first_window, [row, column], [height, width]);
            for at in &positions {
                for channel in 0..cotangent.channels {
                    *gradient.at(at[0], at[1], channel) += cotangent.get(row, column, channel)
                        / divide_by(pool, first_window, [row, column], positions.len());
                }
            }
        }
    }
    gradient
}
