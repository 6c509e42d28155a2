use super::{BAND_ROWS, Taps, windows_touching};
use crate::blocks::{block_mut, for_each_block};
use crate::integers::signed;
use crate::rows::{for_each_band, for_each_row};
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

/// The settings of average pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AveragePool {
    /// What is averaged.
    pub window: Window,
    /// What sums are divided by.
    pub divisor: Divisor,
    /// Where windows may reach beyond the padding (`PyTorch`'s `ceil_mode`), the position with which it ends, in the input
    /// buffer: taps from there on are not counted, not even by [`Divisor::WindowArea`].
    pub end: Option<Position>,
}

impl AveragePool {
    /// Average pooling whose windows end before the padding does.
    #[must_use]
    pub const fn new(window: Window, divisor: Divisor) -> Self {
        Self {
            window,
            divisor,
            end: None,
        }
    }

    /// What the sum of the window that starts at `first` is divided by, given its taps that are not padding.
    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "tap counts are far below 2^53")]
    fn divisor<T: Element>(&self, first: [isize; 2], taps: [&Taps; 2]) -> T {
        let count = match (self.divisor, self.end) {
            (Divisor::ValidCount, _) => taps[0].count * taps[1].count,
            (Divisor::WindowArea, None) => self.window.taps(),
            (Divisor::WindowArea, Some(end)) => {
                self.taps_before(0, first[0], end.row) * self.taps_before(1, first[1], end.column)
            }
        };
        T::from_f64(count as f64)
    }

    fn taps_before(&self, axis: usize, first: isize, end: isize) -> usize {
        let room = usize::try_from(end - first).unwrap_or_default();
        room.div_ceil(self.window.dilation[axis])
            .min(self.window.kernel[axis])
    }
}

/// Average-pools `input` into `region` of `output`; padding counts as zero. A window that is all padding yields 0.
///
/// Region and `first_window` are as for [`conv_forward`](crate::conv_forward).
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn avg_pool_forward<T: Element>(
    pool: &AveragePool,
    input: Image<'_, T>,
    first_window: Position,
    output: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    let window = &pool.window;
    window.check(region, first_window)?;
    let channels = output.channels();
    input.check_channels("average-pool input", channels)?;
    output.check_region("average-pool output", region)?;
    for_each_row(
        output,
        region,
        #[inline(always)]
        |row: usize, output: &mut [T]| {
            let first_row = first_window.row + signed(row) * signed(window.stride[0]);
            let rows = Taps::new(window, 0, first_row, input.height());
            for (column, output) in output.chunks_exact_mut(channels).enumerate() {
                let first = first_window.column + signed(column) * signed(window.stride[1]);
                let columns = Taps::new(window, 1, first, input.width());
                if rows.count * columns.count == 0 {
                    output.fill(T::ZERO);
                    continue;
                }
                let divisor = pool.divisor::<T>([first_row, first], [&rows, &columns]);
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
    pool: &AveragePool,
    cotangent: Image<'_, T>,
    region: Region,
    first_window: Position,
    input_cotangent: ImageMut<'_, T>,
    existing: Existing,
) -> Result<(), KernelError> {
    let window = &pool.window;
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
        |band_start: usize, sums: &mut [T]| {
            if existing == Existing::Replace {
                sums.fill(T::ZERO);
            }
            let band = band_start..band_start + sums.len() / (width * channels);
            for row in windows_touching(window, region.rows, first_window.row, &band) {
                let first_row = first_window.row + signed(row) * signed(window.stride[0]);
                let rows = Taps::new(window, 0, first_row, height);
                let (_, own_rows) = rows.moved(-signed(band.start), band.len());
                for column in 0..region.columns {
                    let first = first_window.column + signed(column) * signed(window.stride[1]);
                    let columns = Taps::new(window, 1, first, width);
                    let divisor = pool.divisor::<T>([first_row, first], [&rows, &columns]);
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
