//! Work on regions, cut by rows.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::instructions::{Work, dispatch, run_part};
use crate::{ImageMut, Region};

/// Runs `work` for every row of `region` and the region's values of that row.
pub(crate) fn for_each_row<T: Send>(target: ImageMut<'_, T>, region: Region, work: impl Work<T>) {
    let channels = target.channels();
    let pitch = target.width() * channels;
    if region.is_empty() || pitch == 0 {
        return;
    }
    let columns = region.column * channels..(region.column + region.columns) * channels;
    target.into_data()[region.row * pitch..(region.row + region.rows) * pitch]
        .par_chunks_exact_mut(pitch)
        .enumerate()
        .for_each(|(row, values)| {
            run_part(&work, row, &mut values[columns.clone()]);
        });
}

/// Runs `work` for the first row of bands of at most `height` rows of `region`, and the whole rows of `target` there.
pub(crate) fn for_each_band<T: Send>(
    target: ImageMut<'_, T>,
    region: Region,
    height: usize,
    work: impl Work<T>,
) {
    let pitch = target.width() * target.channels();
    if region.is_empty() || pitch == 0 {
        return;
    }
    target.into_data()[region.row * pitch..(region.row + region.rows) * pitch]
        .par_chunks_mut(pitch * height)
        .enumerate()
        .for_each(|(band, values)| run_part(&work, band * height, values));
}

/// Most bands that a sum over a region is cut into.
const SUM_BANDS: usize = 32;

/// Adds to each of `sums` what `work` of each of `rows` rows adds to its values, in row order.
pub(crate) fn sum_rows(rows: usize, sums: &mut [f64], work: impl Work<f64>) {
    if rows == 0 || sums.is_empty() {
        return;
    }
    let bands = Bands::new(rows);
    let mut partials = bands.partials(sums);
    partials
        .par_chunks_exact_mut(sums.len())
        .enumerate()
        .for_each(|(band, partial)| {
            for row in bands.rows(band) {
                run_part(&work, row, partial);
            }
        });
    add_partials(&partials, sums);
}

/// Runs `work` for every row of `region`, the region's values of that row, and sums to which it adds, as [`sum_rows`] does.
pub(crate) fn for_each_row_and_sum<T: Send>(
    target: ImageMut<'_, T>,
    region: Region,
    sums: &mut [f64],
    work: impl Fn(usize, &mut [T], &mut [f64]) + Sync,
) {
    let channels = target.channels();
    let pitch = target.width() * channels;
    if region.is_empty() || pitch == 0 || sums.is_empty() {
        return;
    }
    let columns = region.column * channels..(region.column + region.columns) * channels;
    let bands = Bands::new(region.rows);
    let mut partials = bands.partials(sums);
    target.into_data()[region.row * pitch..(region.row + region.rows) * pitch]
        .par_chunks_mut(bands.height * pitch)
        .zip(partials.par_chunks_exact_mut(sums.len()))
        .enumerate()
        .for_each(|(band, (values, partial))| {
            for (row, values) in bands.rows(band).zip(values.chunks_exact_mut(pitch)) {
                dispatch(RowAndSums {
                    work: &work,
                    row,
                    values: &mut values[columns.clone()],
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
