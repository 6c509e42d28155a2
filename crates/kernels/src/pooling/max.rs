use super::{BAND_ROWS, Taps, windows_touching};
use crate::convolution::signed;
use crate::rows::{for_each_band, for_each_row};
use crate::{Element, Image, ImageMut, KernelError, Position, Region, Window};

/// Channels whose maxima are searched together, in registers: a fixed number, which is what vectorises.
const CHANNELS_AT_ONCE: usize = 16;

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
    for_each_row(output, region, |row, output| {
        let first = first_window.row + signed(row) * signed(window.stride[0]);
        let rows = Taps::new(window, 0, first, input.height());
        for (column, best) in output.chunks_exact_mut(channels).enumerate() {
            let first = first_window.column + signed(column) * signed(window.stride[1]);
            let columns = Taps::new(window, 1, first, input.width());
            best.fill(T::NEG_INFINITY);
            for row in rows.positions() {
                for column in columns.positions() {
                    for (best, &value) in best.iter_mut().zip(input.pixel(row, column)) {
                        *best = if wins(value, *best) { value } else { *best };
                    }
                }
            }
        }
    });
    Ok(())
}

/// Adds the gradient of max-pooling to `input_cotangent`: each cotangent in `region` goes to the first maximum of its
/// window in scan order, to the last NaN where there is one, and nowhere where the whole window is padding.
///
/// The windows are searched anew in `input`, where the first is at `first_window`. `input_cotangent` may hold another
/// rectangle of the plane than `input` does: there the first window is at `cotangent_first_window`, and what falls
/// outside is dropped.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn max_pool_vjp<T: Element>(
    window: &Window,
    input: Image<'_, T>,
    first_window: Position,
    cotangent: Image<'_, T>,
    region: Region,
    input_cotangent: ImageMut<'_, T>,
    cotangent_first_window: Position,
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
    for_each_band(input_cotangent, BAND_ROWS, |first_row, sums| {
        let band = first_row..first_row + sums.len() / (width * channels);
        for row in windows_touching(window, region.rows, cotangent_first_window.row, &band) {
            let first = first_window.row + signed(row) * signed(window.stride[0]);
            let rows = Taps::new(window, 0, first, input.height());
            for column in 0..region.columns {
                let first = first_window.column + signed(column) * signed(window.stride[1]);
                let columns = Taps::new(window, 1, first, input.width());
                let cotangent = cotangent.pixel(region.row + row, region.column + column);
                for (block, cotangent) in cotangent.chunks(CHANNELS_AT_ONCE).enumerate() {
                    let channel = block * CHANNELS_AT_ONCE;
                    let winners = winners(input, &rows, &columns, channel, cotangent.len());
                    let mut tap = 0_u32;
                    for row in rows.positions() {
                        let in_band = usize::try_from(signed(row) + row_shift)
                            .ok()
                            .filter(|row| band.contains(row));
                        for column in columns.positions() {
                            let to = in_band.zip(
                                usize::try_from(signed(column) + column_shift)
                                    .ok()
                                    .filter(|&column| column < width),
                            );
                            if let Some((row, column)) = to {
                                let to = ((row - band.start) * width + column) * channels + channel;
                                let sums = &mut sums[to..][..cotangent.len()];
                                add_where_won(sums, cotangent, &winners, tap);
                            }
                            tap += 1;
                        }
                    }
                }
            }
        }
    });
    Ok(())
}

/// Adds the cotangents of the channels where tap `tap` won.
#[inline(always)]
fn add_where_won<T: Element>(
    sums: &mut [T],
    cotangent: &[T],
    winners: &[u32; CHANNELS_AT_ONCE],
    tap: u32,
) {
    let add = |sum: &mut T, winner: u32, cotangent: T| {
        *sum += if winner == tap { cotangent } else { T::ZERO };
    };
    match (
        sums.first_chunk_mut::<CHANNELS_AT_ONCE>(),
        cotangent.first_chunk::<CHANNELS_AT_ONCE>(),
    ) {
        (Some(sums), Some(cotangent)) => {
            for lane in 0..CHANNELS_AT_ONCE {
                add(&mut sums[lane], winners[lane], cotangent[lane]);
            }
        }
        _ => {
            for ((sum, &winner), &cotangent) in sums.iter_mut().zip(winners).zip(cotangent) {
                add(sum, winner, cotangent);
            }
        }
    }
}

/// For each channel of a block, the number of the tap that wins, counted over the taps that exist.
#[inline(always)]
fn winners<T: Element>(
    input: Image<'_, T>,
    rows: &Taps,
    columns: &Taps,
    channel: usize,
    count: usize,
) -> [u32; CHANNELS_AT_ONCE] {
    let mut best = [T::NEG_INFINITY; CHANNELS_AT_ONCE];
    let mut winners = [0; CHANNELS_AT_ONCE];
    let mut tap = 0_u32;
    for row in rows.positions() {
        for column in columns.positions() {
            let pixel = &input.pixel(row, column)[channel..][..count];
            let mut values = [T::NEG_INFINITY; CHANNELS_AT_ONCE];
            match pixel.first_chunk() {
                Some(pixel) => values = *pixel,
                None => values[..count].copy_from_slice(pixel),
            }
            for lane in 0..CHANNELS_AT_ONCE {
                let won = wins(values[lane], best[lane]);
                best[lane] = if won { values[lane] } else { best[lane] };
                winners[lane] = if won { tap } else { winners[lane] };
            }
            tap += 1;
        }
    }
    winners
}
