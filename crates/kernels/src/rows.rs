//! Work on regions, cut by rows.

use rayon::prelude::*;

use crate::instructions::dispatch;
use crate::{ImageMut, Region};

/// Runs `work(row, values)` for every row of `region`, where `values` are the region's values of that row.
///
/// `work` is compiled for the best instructions of the processor: plain loops in it are vectorised.
pub(crate) fn for_each_row<T: Send>(
    target: ImageMut<'_, T>,
    region: Region,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
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
            let values = &mut values[columns.clone()];
            dispatch(
                #[inline(always)]
                || work(row, values),
            );
        });
}

/// Runs `work(first row, rows)` for bands of at most `height` whole rows of `target`.
pub(crate) fn for_each_band<T: Send>(
    target: ImageMut<'_, T>,
    height: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let pitch = target.width() * target.channels();
    if pitch == 0 {
        return;
    }
    target
        .into_data()
        .par_chunks_mut(pitch * height)
        .enumerate()
        .for_each(|(band, values)| {
            dispatch(
                #[inline(always)]
                || work(band * height, values),
            );
        });
}

/// Most bands that a sum over a region is cut into.
const SUM_BANDS: usize = 32;

/// Adds to each of `sums` what `work(row, partial)` adds to `partial`, over `rows` rows, in row order.
pub(crate) fn sum_rows(rows: usize, sums: &mut [f64], work: impl Fn(usize, &mut [f64]) + Sync) {
    if rows == 0 || sums.is_empty() {
        return;
    }
    let bands = rows.min(SUM_BANDS);
    let mut partials = vec![0.0; bands * sums.len()];
    partials
        .par_chunks_exact_mut(sums.len())
        .enumerate()
        .for_each(|(band, partial)| {
            dispatch(
                #[inline(always)]
                || {
                    for row in band * rows / bands..(band + 1) * rows / bands {
                        work(row, partial);
                    }
                },
            );
        });
    for partial in partials.chunks_exact(sums.len()) {
        for (sum, &value) in sums.iter_mut().zip(partial) {
            *sum += value;
        }
    }
}

/// An upper bound of the bytes that a gradient by per-channel parameters allocates while it runs, all threads together:
/// [`bias_gradient`](crate::bias_gradient) with one parameter for each channel,
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
