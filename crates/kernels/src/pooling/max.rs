use super::{BAND_ROWS, Taps, clear_rows, windows_touching};
use crate::blocks::{block_mut, for_each_block};
use crate::integers::signed;
use crate::rows::{for_each_band, for_each_row};
use crate::{Element, Existing, KernelError, View, ViewMut, Window};

/// True where PyTorch's max-pooling takes `value` in place of `best`: a NaN always wins, the last one of several.
#[inline(always)]
#[expect(clippy::eq_op, reason = "only NaN differs from itself")]
fn wins<T: Element>(value: T, best: T) -> bool {
    (value > best) | (value != value)
}

/// Max-pools `input` into `output`; padding is minus infinity, and a NaN in a window wins.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn max_pool_forward<T: Element>(
    window: &Window,
    input: View<'_, T>,
    output: ViewMut<'_, T>,
) -> Result<(), KernelError> {
    let [first_row, first_column] = window.place(output.rect(), input.rect())?;
    let channels = output.channels();
    input.check_channels("max-pool input", channels)?;
    for_each_row(
        output,
        #[inline(always)]
        |row: usize, output: &mut [T]| {
            let first = first_row + signed(row) * signed(window.stride[0]);
            let rows = Taps::new(window, 0, first, input.height());
            for (column, output) in output.chunks_exact_mut(channels).enumerate() {
                let first = first_column + signed(column) * signed(window.stride[1]);
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
    input: View<'_, T>,
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

/// Adds the gradient of max-pooling to `input_cotangent`, or writes it there: each cotangent goes to the first maximum of its window in
/// scan order, to the last NaN where there is one, and nowhere where the whole window is padding.
///
/// The windows are searched anew in `input`, which must hold all that they read. What falls outside `input_cotangent` is dropped.
/// With [`Existing::Replace`] what no cotangent reaches gets zero.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn max_pool_vjp<T: Element>(
    window: &Window,
    input: View<'_, T>,
    cotangent: View<'_, T>,
    input_cotangent: ViewMut<'_, T>,
    existing: Existing,
) -> Result<(), KernelError> {
    let outputs = cotangent.rect();
    let [first_row, first_column] = window.place(outputs, input.rect())?;
    let [to_first_row, to_first_column] = window.place(outputs, input_cotangent.rect())?;
    let channels = input_cotangent.channels();
    input.check_channels("max-pool input", channels)?;
    cotangent.check_channels("max-pool cotangent", channels)?;
    let (width, pitch) = (input_cotangent.width(), input_cotangent.pitch());
    // From a position in the input's buffer to the same one in its cotangent's.
    let (row_shift, column_shift) = (to_first_row - first_row, to_first_column - first_column);
    for_each_band(
        input_cotangent,
        BAND_ROWS,
        #[inline(always)]
        |band_start: usize, sums: &mut [T]| {
            if existing == Existing::Replace {
                clear_rows(sums, pitch * channels, width * channels);
            }
            let band = band_start..band_start + sums.len().div_ceil(pitch * channels);
            for row in windows_touching(window, cotangent.height(), to_first_row, &band) {
                let first = first_row + signed(row) * signed(window.stride[0]);
                let rows = Taps::new(window, 0, first, input.height());
                let shift = row_shift - signed(band.start);
                let (skipped_rows, own_rows) = rows.moved(shift, band.len());
                for column in 0..cotangent.width() {
                    let first = first_column + signed(column) * signed(window.stride[1]);
                    let columns = Taps::new(window, 1, first, input.width());
                    let (skipped_columns, own_columns) = columns.moved(column_shift, width);
                    for_each_block!(channels, channel, N, {
                        let winners = winners::<T, N>(input, rows, columns, channel);
                        let given = *cotangent.block::<N>(row, column, channel);
                        for (tap_row, row) in (skipped_rows..).zip(own_rows.positions()) {
                            let taps = tap_row * columns.count + skipped_columns..;
                            for (tap, column) in taps.zip(own_columns.positions()) {
                                let place = (row * pitch + column) * channels + channel;
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
    input: View<'_, T>,
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
