use super::{BAND_ROWS, Taps, windows_touching};
use crate::blocks::{block_mut, for_each_block};
use crate::integers::signed;
use crate::rows::{for_each_band, for_each_row};
use crate::{Element, Existing, Image, ImageMut, KernelError, Position, Region, Window};

/// True where PyTorch's max-pooling takes `value` in place of `best`: a NaN always wins, the last one of several.
#[inline(always)]
#[expect(clippy::eq_op, reason = "only NaN differs from itself")]
fn wins<T: Element>(value: T, best: T) -> bool {
    (value > best) | (value != value)
}

/// Max-pools `input` into `region` of `output`; padding is minus infinity, and a NaN in a window wins.
///
/// Region and `first_window` are as for [`conv_forward`](crate::conv_forward).
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn max_pool_forward<T: Element>(
    window: &Window,
    input: Image<'_, T>,
    first_window: Position,
    output: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    window.check(region, first_window)?;
    let channels = output.channels();
    input.check_channels("max-pool input", channels)?;
    output.check_region("max-pool output", region)?;
    for_each_row(
        output,
        region,
        #[inline(always)]
        |row: usize, output: &mut [T]| {
            let first = first_window.row + signed(row) * signed(window.stride[0]);
            let rows = Taps::new(window, 0, first, input.height());
            for (column, output) in output.chunks_exact_mut(channels).enumerate() {
                let first = first_window.column + signed(column) * signed(window.stride[1]);
                let columns = Taps::new(window, 1, first, input.width());
                for_each_block!(channels, channel, N, {
                    let best = largest::<T, N>(input, rows, columns, channel);
                    output[channel..][..N].copy_from_slice(&best);
                });
            }
        },
    );
    Ok(())
}

/// The values that win for `N` channels.
#[inline(always)]
fn largest<T: Element, const N: usize>(
    input: Image<'_, T>,
    rows: Taps,
    columns: Taps,
    channel: usize,
) -> [T; N] {
    let mut best = [T::NEG_INFINITY; N];
    for row in rows.positions() {
        for column in columns.positions() {
            let values = input.block::<N>(row, column, channel);
            for lane in 0..N {
                let won = wins(values[lane], best[lane]);
                best[lane] = if won { values[lane] } else { best[lane] };
            }
        }
    }
    best
}

/// Adds the gradient of max-pooling to `input_cotangent`, or writes it there: each cotangent in `region` goes to the first maximum of its
/// window in scan order, to the last NaN where there is one, and nowhere where the whole window is padding.
///
/// The windows are searched anew in `input`, where the first is at `first_window`. `input_cotangent` may hold another
/// rectangle of the plane than `input` does: there the first window is at `cotangent_first_window`, and what falls
/// outside is dropped. With [`Existing::Replace`] what no cotangent reaches gets zero.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
#[expect(
    clippy::too_many_arguments,
    reason = "three images, with where their windows lie"
)]
pub fn max_pool_vjp<T: Element>(
    window: &Window,
    input: Image<'_, T>,
    first_window: Position,
    cotangent: Image<'_, T>,
    region: Region,
    input_cotangent: ImageMut<'_, T>,
    cotangent_first_window: Position,
    existing: Existing,
) -> Result<(), KernelError> {
    window.check(region, first_window)?;
    window.check(region, cotangent_first_window)?;
    let channels = input_cotangent.channels();
    input.check_channels("max-pool input", channels)?;
    cotangent.check_channels("max-pool cotangent", channels)?;
    cotangent.check_region("max-pool cotangent", region)?;
    let width = input_cotangent.width();
    // From a position in the input to the same one in its cotangent.
    let row_shift = cotangent_first_window.row - first_window.row;
    let column_shift = cotangent_first_window.column - first_window.column;
    let whole = input_cotangent.region();
    for_each_band(
        input_cotangent,
        whole,
        BAND_ROWS,
        #[inline(always)]
        |first_row: usize, sums: &mut [T]| {
            if existing == Existing::Replace {
                sums.fill(T::ZERO);
            }
            let band = first_row..first_row + sums.len() / (width * channels);
            for row in windows_touching(window, region.rows, cotangent_first_window.row, &band) {
                let first = first_window.row + signed(row) * signed(window.stride[0]);
                let rows = Taps::new(window, 0, first, input.height());
                let shift = row_shift - signed(band.start);
                let (first_row, own_rows) = rows.moved(shift, band.len());
                for column in 0..region.columns {
                    let first = first_window.column + signed(column) * signed(window.stride[1]);
                    let columns = Taps::new(window, 1, first, input.width());
                    let (from_row, from_column) = (region.row + row, region.column + column);
                    let (first_column, own_columns) = columns.moved(column_shift, width);
                    for_each_block!(channels, channel, N, {
                        let winners = winners::<T, N>(input, rows, columns, channel);
                        let given = *cotangent.block::<N>(from_row, from_column, channel);
                        for (tap_row, row) in (first_row..).zip(own_rows.positions()) {
                            let taps = tap_row * columns.count + first_column..;
                            for (tap, column) in taps.zip(own_columns.positions()) {
                                let place = (row * width + column) * channels + channel;
                                let sums = block_mut::<T, N>(sums, place);
                                let (tap, mut share) = (number(tap), given);
                                for lane in 0..N {
                                    let won = winners[lane] == tap;
                                    share[lane] = if won { given[lane] } else { T::ZERO };
                                }
                                for lane in 0..N {
                                    sums[lane] += share[lane];
                                }
                            }
                        }
                    });
                }
            }
        },
    );
    Ok(())
}

/// For each of `N` channels, the number of the tap that wins, counted over the taps that exist.
#[inline(always)]
fn winners<T: Element, const N: usize>(
    input: Image<'_, T>,
    rows: Taps,
    columns: Taps,
    channel: usize,
) -> [u32; N] {
    let mut best = [T::NEG_INFINITY; N];
    let mut winners = [0; N];
    let mut tap = 0_u32;
    for row in rows.positions() {
        for column in columns.positions() {
            let values = input.block::<N>(row, column, channel);
            for lane in 0..N {
                let won = wins(values[lane], best[lane]);
                best[lane] = if won { values[lane] } else { best[lane] };
                winners[lane] = if won { tap } else { winners[lane] };
            }
            tap = tap.wrapping_add(1);
        }
    }
    winners
}

/// The number of a tap, as [`winners`] counts.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "searching a window of 2^32 pixels would take seconds for each output"
)]
const fn number(tap: usize) -> u32 {
    tap as u32
}
