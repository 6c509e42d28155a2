use super::{BAND_ROWS, Taps, windows_touching};
use crate::convolution::signed;
use crate::rows::{block_mut, for_each_band, for_each_block, for_each_row};
use crate::{Element, Existing, Image, ImageMut, KernelError, Position, Region, Window};

/// What average pooling divides its sums by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Divisor {
    /// The number of taps, padding included (PyTorch's `count_include_pad=True`, its default).
    #[default]
    WindowArea,
    /// The number of taps that are not padding.
    ValidCount,
}

impl Divisor {
    #[expect(clippy::cast_precision_loss, reason = "tap counts are far below 2^53")]
    fn of<T: Element>(self, window: &Window, rows: &Taps, columns: &Taps) -> T {
        T::from_f64(match self {
            Self::WindowArea => window.taps() as f64,
            Self::ValidCount => (rows.count * columns.count) as f64,
        })
    }
}

/// Average-pools `input` into `region` of `output`; padding counts as zero. A window that is all padding yields 0.
///
/// Region and `first_window` are as for [`conv_forward`](crate::conv_forward).
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn avg_pool_forward<T: Element>(
    window: &Window,
    divisor: Divisor,
    input: Image<'_, T>,
    first_window: Position,
    output: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    window.check(region, first_window)?;
    let channels = output.channels();
    input.check_channels("average-pool input", channels)?;
    output.check_region("average-pool output", region)?;
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
                if rows.count * columns.count == 0 {
                    output.fill(T::ZERO);
                    continue;
                }
                let divisor = divisor.of::<T>(window, &rows, &columns);
                for_each_block!(channels, channel, N, {
                    let mut sums = [T::ZERO; N];
                    for row in rows.positions() {
                        for column in columns.positions() {
                            let values = input.block::<N>(row, column, channel);
                            for lane in 0..N {
                                sums[lane] += values[lane];
                            }
                        }
                    }
                    output[channel..][..N].copy_from_slice(&sums.map(|sum| sum / divisor));
                });
            }
        },
    );
    Ok(())
}

/// Adds the gradient of average pooling to `input_cotangent`, or writes it there, for the cotangents in `region`.
///
/// Here too whatever lies outside `input_cotangent` is padding, so with [`Divisor::ValidCount`] it must hold every
/// position that the windows of `region` read.
///
/// With [`Existing::Replace`] what no cotangent reaches gets zero.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn avg_pool_vjp<T: Element>(
    window: &Window,
    divisor: Divisor,
    cotangent: Image<'_, T>,
    region: Region,
    first_window: Position,
    input_cotangent: ImageMut<'_, T>,
    existing: Existing,
) -> Result<(), KernelError> {
    window.check(region, first_window)?;
    let channels = input_cotangent.channels();
    cotangent.check_channels("average-pool cotangent", channels)?;
    cotangent.check_region("average-pool cotangent", region)?;
    let (height, width) = (input_cotangent.height(), input_cotangent.width());
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
            for row in windows_touching(window, region.rows, first_window.row, &band) {
                let first = first_window.row + signed(row) * signed(window.stride[0]);
                let rows = Taps::new(window, 0, first, height);
                let (_, own_rows) = rows.moved(-signed(band.start), band.len());
                for column in 0..region.columns {
                    let first = first_window.column + signed(column) * signed(window.stride[1]);
                    let columns = Taps::new(window, 1, first, width);
                    let divisor = divisor.of::<T>(window, &rows, &columns);
                    let (from_row, from_column) = (region.row + row, region.column + column);
                    for_each_block!(channels, channel, N, {
                        let given = cotangent.block::<N>(from_row, from_column, channel);
                        let share = given.map(|cotangent| cotangent / divisor);
                        for row in own_rows.positions() {
                            for column in columns.positions() {
                                let place = (row * width + column) * channels + channel;
                                let sums = block_mut::<T, N>(sums, place);
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
