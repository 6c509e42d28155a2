//! Work on views, cut by rows.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::ViewMut;
use crate::instructions::{Work, dispatch, run_part};
use crate::parallel::parallel_for;

/// Runs `work` for every row of `target` and its values.
pub(crate) fn for_each_row<T: Send>(target: ViewMut<'_, T>, work: impl Work<T>) {
    let (pitch, row) = pitch_and_row(&target);
    if row == 0 {
        return;
    }
    // Between rows lies what is not the target's.
    let rows = target.into_data().par_chunks_mut(pitch);
    parallel_for(rows.enumerate(), |(index, values)| {
        run_part(&work, index, &mut values[..row]);
    });
}

/// Runs `work` for the first row of bands of at most `height` rows of `target`, and the values there, with what lies between rows.
pub(crate) fn for_each_band<T: Send>(target: ViewMut<'_, T>, height: usize, work: impl Work<T>) {
    let (pitch, row) = pitch_and_row(&target);
    if row == 0 {
        return;
    }
    let bands = target.into_data().par_chunks_mut(pitch * height);
    parallel_for(bands.enumerate(), |(band, values)| {
        run_part(&work, band * height, values);
    });
}

/// Values from one row to the next, and values of a row.
fn pitch_and_row<T>(target: &ViewMut<'_, T>) -> (usize, usize) {
    let channels = target.channels();
    (target.pitch() * channels, target.width() * channels)
}

/// Most bands that a sum over a view is cut into.
const SUM_BANDS: usize = 32;

/// Adds to each of `sums` what `work` of each of `rows` rows adds to its values, in row order.
pub(crate) fn sum_rows(rows: usize, sums: &mut [f64], work: impl Work<f64>) {
    if rows == 0 || sums.is_empty() {
        return;
    }
    let bands = Bands::new(rows);
    let mut partials = bands.partials(sums);
    let tasks = partials.par_chunks_exact_mut(sums.len());
    parallel_for(tasks.enumerate(), |(band, partial)| {
        for row in bands.rows(band) {
            run_part(&work, row, partial);
        }
    });
    add_partials(&partials, sums);
}

/// Runs `work` for every row of `target`, its values, and sums to which it adds, as [`sum_rows`] does.
pub(crate) fn for_each_row_and_sum<T: Send>(
    target: ViewMut<'_, T>,
    sums: &mut [f64],
    work: impl Fn(usize, &mut [T], &mut [f64]) + Sync,
) {
    let (pitch, length) = pitch_and_row(&target);
    if length == 0 || sums.is_empty() {
        return;
    }
    let bands = Bands::new(target.height());
    let mut partials = bands.partials(sums);
    let tasks = target
        .into_data()
        .par_chunks_mut(bands.height * pitch)
        .zip(partials.par_chunks_exact_mut(sums.len()));
    parallel_for(tasks.enumerate(), |(band, (values, partial))| {
        for (row, values) in bands.rows(band).zip(values.chunks_mut(pitch)) {
            dispatch(RowAndSums {
                work: &work,
                row,
                values: &mut values[..length],
                sums: partial,
            });
        }
    });
    add_partials(&partials, sums);
}

/// A row for [`for_each_row_and_sum`].
struct RowAndSums<'a, T, Closure> {
    work: &'a Closure,
    row: usize,
    values: &'a mut [T],
    sums: &'a mut [f64],
}

impl<T, Closure: Fn(usize, &mut [T], &mut [f64])> WithSimd for RowAndSums<'_, T, Closure> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        (self.work)(self.row, self.values, self.sums);
    }
}

/// How a sum over rows is cut.
#[derive(Debug, Clone, Copy)]
struct Bands {
    all: usize,
    height: usize,
}

impl Bands {
    fn new(rows: usize) -> Self {
        Self {
            all: rows,
            height: rows.div_ceil(SUM_BANDS).max(1),
        }
    }

    /// Sums of each band, all zero.
    fn partials(self, sums: &[f64]) -> Vec<f64> {
        vec![0.0; self.all.div_ceil(self.height) * sums.len()]
    }

    fn rows(self, band: usize) -> Range<usize> {
        band * self.height..((band + 1) * self.height).min(self.all)
    }
}

/// Adds the bands' sums, in their order.
fn add_partials(partials: &[f64], sums: &mut [f64]) {
    for partial in partials.chunks_exact(sums.len()) {
        for (sum, &value) in sums.iter_mut().zip(partial) {
            *sum += value;
        }
    }
}

/// An upper bound of the bytes that a gradient by per-channel parameters allocates while it runs, all threads together:
/// [`bias_gradient`](crate::bias_gradient) and
/// [`activation_vjp_and_bias_gradient`](crate::activation_vjp_and_bias_gradient) with one parameter for each channel,
/// [`affine_parameter_gradient`](crate::affine_parameter_gradient) and
/// [`layer_norm_parameter_gradient`](crate::layer_norm_parameter_gradient) with two. No other kernel allocates.
#[must_use]
pub const fn parameter_gradient_scratch_bytes(region_rows: usize, parameters: usize) -> usize {
    let bands = if region_rows < SUM_BANDS {
        region_rows
    } else {
        SUM_BANDS
    };
    // The bands' sums and their total.
    (bands + 1)
        .saturating_mul(parameters)
        .saturating_mul(size_of::<f64>())
}
