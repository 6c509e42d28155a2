use stream_grad_tiling::{PerAxis, Rect};

use super::{Block, Taps, for_each_block_of_sums, windows_touching};
use crate::blocks::{block_mut, for_each_block};
use crate::integers::signed;
use crate::rows::for_each_row;
use crate::window::{OVERFLOW, position};
use crate::{Element, Existing, KernelError, Storage, View, ViewMut, Window};

/// Whether padding counts in what average pooling divides its sums by, as PyTorch's `count_include_pad` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CountIncludePad {
    /// Sums are divided by the number of taps, padding included (PyTorch's default).
    #[default]
    Yes,
    /// Sums are divided by the number of taps that are not padding.
    No,
}

/// The settings of average pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AveragePool {
    /// What is averaged.
    pub window: Window,
    /// Whether padding counts in what sums are divided by.
    pub count_include_pad: CountIncludePad,
    /// Where windows may reach beyond the padding (`PyTorch`'s `ceil_mode`), the row and the column of the input's plane with which it
    /// ends: taps from there on are not counted, not even by [`CountIncludePad::Yes`].
    pub end: Option<PerAxis<i64>>,
}

impl AveragePool {
    /// Average pooling whose windows end before the padding does.
    #[must_use]
    pub const fn new(window: Window, count_include_pad: CountIncludePad) -> Self {
        Self {
            window,
            count_include_pad,
            end: None,
        }
    }

    /// What sums are divided by over a buffer that holds `input`.
    fn over(&self, input: Rect) -> Result<Divide, KernelError> {
        let end = match (self.count_include_pad, self.end) {
            (CountIncludePad::No, _) | (_, None) => None,
            (CountIncludePad::Yes, Some(end)) => {
                let distance = |end: i64, origin: i64| position(end.checked_sub(origin)?);
                let row = distance(end.rows, input.rows.lo);
                let column = distance(end.columns, input.columns.lo);
                Some(row.zip(column).ok_or(OVERFLOW)?)
            }
        };
        Ok(Divide {
            window: self.window,
            count_include_pad: self.count_include_pad,
            end,
        })
    }
}

/// What the sums of windows over a buffer are divided by.
struct Divide {
    window: Window,
    count_include_pad: CountIncludePad,
    /// Where padding ends, counted from the buffer's first position.
    end: Option<(isize, isize)>,
}

impl Divide {
    /// By what for the window that starts at `first`, given its taps that are not padding.
    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "tap counts are far below 2^53")]
    fn by<T: Element>(&self, first: [isize; 2], taps: [&Taps; 2]) -> T {
        let count = match (self.count_include_pad, self.end) {
            (CountIncludePad::No, _) => taps[0].count * taps[1].count,
            (CountIncludePad::Yes, None) => self.window.taps(),
            (CountIncludePad::Yes, Some((row, column))) => {
                self.taps_before(0, first[0], row) * self.taps_before(1, first[1], column)
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

/// Average-pools `input` into `output`; padding counts as zero. A window that is all padding yields 0.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn avg_pool_forward<E: Storage>(
    pool: &AveragePool,
    input: View<'_, E>,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let window = &pool.window;
    let [first_row, first_column] = window.place(output.rect(), input.rect())?;
    let divide = pool.over(input.rect())?;
    let channels = output.channels();
    input.check_channels("average-pool input", channels)?;
    for_each_row(
        output,
        #[inline(always)]
        |row: usize, output: &mut [E]| {
            let first_row = first_row + signed(row) * signed(window.stride[0]);
            let rows = Taps::new(window, 0, first_row, input.height());
            for (column, output) in output.chunks_exact_mut(channels).enumerate() {
                let first = first_column + signed(column) * signed(window.stride[1]);
                let columns = Taps::new(window, 1, first, input.width());
                if rows.count * columns.count == 0 {
                    output.fill(E::ZERO);
                    continue;
                }
                let divisor = divide.by::<E::Compute>([first_row, first], [&rows, &columns]);
                for_each_block!(channels, channel, N, {
                    let mut sums = [E::Compute::ZERO; N];
                    for row in rows.positions() {
                        for column in columns.positions() {
                            let values = input.block::<N>(row, column, channel);
                            for lane in 0..N {
                                sums[lane] += values[lane].widen();
                            }
                        }
                    }
                    let output = block_mut::<E, N>(output, channel);
                    for lane in 0..N {
                        output[lane] = E::narrow(sums[lane] / divisor);
                    }
                });
            }
        },
    );
    Ok(())
}

/// Adds the gradient of average pooling to `input_cotangent`, or writes it there.
///
/// Here too whatever lies outside `input_cotangent` is padding, so with [`CountIncludePad::No`] it must hold every
/// position that the windows of the cotangents read.
///
/// With [`Existing::Replace`] what no cotangent reaches gets zero.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn avg_pool_vjp<E: Storage>(
    pool: &AveragePool,
    cotangent: View<'_, E>,
    input_cotangent: ViewMut<'_, E>,
    existing: Existing,
) -> Result<(), KernelError> {
    let window = &pool.window;
    let [window_row, window_column] = window.place(cotangent.rect(), input_cotangent.rect())?;
    let divide = pool.over(input_cotangent.rect())?;
    let channels = input_cotangent.channels();
    cotangent.check_channels("average-pool cotangent", channels)?;
    let (height, width) = (input_cotangent.height(), input_cotangent.width());
    for_each_block_of_sums(
        input_cotangent,
        existing,
        #[inline(always)]
        |block: &Block, sums: &mut [E::Compute]| {
            let [row_pitch, pitch] = block.pitches;
            let columns = &block.columns;
            let touching = windows_touching(window, 1, cotangent.width(), window_column, columns);
            for row in windows_touching(window, 0, cotangent.height(), window_row, &block.rows) {
                let first_row = window_row + signed(row) * signed(window.stride[0]);
                let rows = Taps::new(window, 0, first_row, height);
                let (_, own_rows) = rows.moved(-signed(block.rows.start), block.rows.len());
                for column in touching.clone() {
                    let first = window_column + signed(column) * signed(window.stride[1]);
                    let taps = Taps::new(window, 1, first, width);
                    let (_, own_columns) = taps.moved(-signed(columns.start), columns.len());
                    let divisor = divide.by::<E::Compute>([first_row, first], [&rows, &taps]);
                    for_each_block!(block.channels.len(), channel, N, {
                        let from = block.channels.start + channel;
                        let given = cotangent.block::<N>(row, column, from);
                        let mut share = [E::Compute::ZERO; N];
                        for lane in 0..N {
                            share[lane] = given[lane].widen() / divisor;
                        }
                        for row in own_rows.positions() {
                            for column in own_columns.positions() {
                                let place = row * row_pitch + column * pitch + channel;
                                let sums = block_mut::<_, N>(sums, place);
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
