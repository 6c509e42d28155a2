use super::{Block, Taps, for_each_block_of_sums, windows_touching};
use crate::blocks::{block_mut, for_each_block};
use crate::integers::signed;
use crate::rows::for_each_row;
use crate::{Element, Existing, KernelError, Storage, View, ViewMut, Window};

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
pub fn max_pool_forward<E: Storage>(
    window: &Window,
    input: View<'_, E>,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let [first_row, first_column] = window.place(output.rect(), input.rect())?;
    let channels = output.channels();
    input.check_channels("max-pool input", channels)?;
    for_each_row(
        output,
        #[inline(always)]
        |row: usize, output: &mut [E]| {
            let first = first_row + signed(row) * signed(window.stride[0]);
            let rows = Taps::new(window, 0, first, input.height());
            for (column, output) in output.chunks_exact_mut(channels).enumerate() {
                let first = first_column + signed(column) * signed(window.stride[1]);
                let columns = Taps::new(window, 1, first, input.width());
                for_each_block!(channels, channel, N, {
                    let best = largest::<E, N>(input, rows, columns, channel);
                    let output = block_mut::<E, N>(output, channel);
                    for lane in 0..N {
                        output[lane] = E::narrow(best[lane]);
                    }
                });
            }
        },
    );
    Ok(())
}

/// The values that win for `N` channels.
#[inline(always)]
fn largest<E: Storage, const N: usize>(
    input: View<'_, E>,
    rows: Taps,
    columns: Taps,
    channel: usize,
) -> [E::Compute; N] {
    let mut best = [E::Compute::NEG_INFINITY; N];
    for row in rows.positions() {
        for column in columns.positions() {
            let values = input.block::<N>(row, column, channel);
            for lane in 0..N {
                let value = values[lane].widen();
                let won = wins(value, best[lane]);
                best[lane] = if won { value } else { best[lane] };
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
pub fn max_pool_vjp<E: Storage>(
    window: &Window,
    input: View<'_, E>,
    cotangent: View<'_, E>,
    input_cotangent: ViewMut<'_, E>,
    existing: Existing,
) -> Result<(), KernelError> {
    let outputs = cotangent.rect();
    let [first_row, first_column] = window.place(outputs, input.rect())?;
    let [to_first_row, to_first_column] = window.place(outputs, input_cotangent.rect())?;
    let channels = input_cotangent.channels();
    input.check_channels("max-pool input", channels)?;
    cotangent.check_channels("max-pool cotangent", channels)?;
    // From a position in the input's buffer to the same one in its cotangent's.
    let (row_shift, column_shift) = (to_first_row - first_row, to_first_column - first_column);
    for_each_block_of_sums(
        input_cotangent,
        existing,
        #[inline(always)]
        |block: &Block, sums: &mut [E::Compute]| {
            let [row_pitch, pitch] = block.pitches;
            let row_shift = row_shift - signed(block.rows.start);
            let column_shift = column_shift - signed(block.columns.start);
            let (height, width) = (cotangent.height(), cotangent.width());
            let touching = windows_touching(window, 1, width, to_first_column, &block.columns);
            for row in windows_touching(window, 0, height, to_first_row, &block.rows) {
                let first = first_row + signed(row) * signed(window.stride[0]);
                let rows = Taps::new(window, 0, first, input.height());
                let (skipped_rows, own_rows) = rows.moved(row_shift, block.rows.len());
                for column in touching.clone() {
                    let first = first_column + signed(column) * signed(window.stride[1]);
                    let columns = Taps::new(window, 1, first, input.width());
                    let own_columns = columns.moved(column_shift, block.columns.len());
                    let (skipped_columns, own_columns) = own_columns;
                    for_each_block!(block.channels.len(), channel, N, {
                        let from = block.channels.start + channel;
                        let winners = winners::<E, N>(input, rows, columns, from);
                        let given = *cotangent.block::<N>(row, column, from);
                        for (tap_row, row) in (skipped_rows..).zip(own_rows.positions()) {
                            let taps = tap_row * columns.count + skipped_columns..;
                            for (tap, column) in taps.zip(own_columns.positions()) {
                                let place = row * row_pitch + column * pitch + channel;
                                let sums = block_mut::<_, N>(sums, place);
                                let tap = number(tap);
                                let mut share = [E::Compute::ZERO; N];
                                for lane in 0..N {
                                    let won = winners[lane] == tap;
                                    let given = given[lane].widen();
                                    share[lane] = if won { given } else { E::Compute::ZERO };
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
fn winners<E: Storage, const N: usize>(
    input: View<'_, E>,
    rows: Taps,
    columns: Taps,
    channel: usize,
) -> [u32; N] {
    let mut best = [E::Compute::NEG_INFINITY; N];
    let mut winners = [0; N];
    let mut tap = 0_u32;
    for row in rows.positions() {
        for column in columns.positions() {
            let values = input.block::<N>(row, column, channel);
            for lane in 0..N {
                let value = values[lane].widen();
                let won = wins(value, best[lane]);
                best[lane] = if won { value } else { best[lane] };
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
