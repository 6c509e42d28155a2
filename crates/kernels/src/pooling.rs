//! Pooling and its VJPs.

mod average;
mod max;

pub use average::{AveragePool, CountIncludePad, avg_pool_forward, avg_pool_vjp};
pub use max::{max_pool_forward, max_pool_vjp};

use std::ops::Range;

use crate::integers::signed;
use crate::rows::for_each_band;
use crate::stored;
use crate::{Element, Existing, Storage, ViewMut, Window};

/// Rows of input cotangent that one task of a VJP owns.
const BAND_ROWS: usize = 16;

/// Values that it sums at once, and their channels, where they are not stored as they are computed.
const PART: usize = 1 << 14;
const PART_CHANNELS: usize = 64;

/// The taps of one window along one axis that exist, as positions in a buffer.
#[derive(Clone, Copy)]
struct Taps {
    first: usize,
    step: usize,
    count: usize,
}

impl Taps {
    /// The taps of the window that starts at `first`, in an axis of `extent` positions.
    #[inline(always)]
    fn new(window: &Window, axis: usize, first: isize, extent: usize) -> Self {
        Self::inside(first, window.dilation[axis], window.kernel[axis], extent).1
    }

    /// Those of `count` taps, the first of which is at `first`, that are in `0..extent`; before them, how many are skipped.
    #[inline(always)]
    fn inside(first: isize, step: usize, count: usize, extent: usize) -> (usize, Self) {
        let before = |bound: isize| {
            // Nearly always all taps exist: no division then.
            if first >= bound {
                0
            } else if first + signed(count * step) - signed(step) < bound {
                count
            } else {
                let taps = (bound - first).unsigned_abs().div_ceil(step);
                taps.min(count)
            }
        };
        let skipped = before(0);
        let taps = Self {
            first: (first + signed(skipped * step)).unsigned_abs(),
            step,
            count: before(signed(extent)) - skipped,
        };
        (skipped, taps)
    }

    /// The positions, in order.
    #[inline(always)]
    fn positions(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |tap| self.first + tap * self.step)
    }

    /// Those of the taps that are in `0..extent` when all are moved by `shift`; before them, how many are skipped.
    #[inline(always)]
    fn moved(self, shift: isize, extent: usize) -> (usize, Self) {
        Self::inside(signed(self.first) + shift, self.step, self.count, extent)
    }
}

/// A block of an input cotangent whose values are summed at once.
struct Block {
    rows: Range<usize>,
    columns: Range<usize>,
    channels: Range<usize>,
    /// Values from one row's sums to the next's, and from one pixel's to the next's.
    pitches: [usize; 2],
}

impl Block {
    /// Whose sums lie one after another.
    fn new(rows: &Range<usize>, columns: Range<usize>, channels: Range<usize>) -> Self {
        Self {
            rows: rows.clone(),
            pitches: [columns.len() * channels.len(), channels.len()],
            columns,
            channels,
        }
    }

    /// Runs `work` for each stretch of its sums, which lie one after another, and of values of a band of which pixels have `channels`
    /// channels, and rows are `pitch` values apart.
    #[inline(always)]
    fn for_each_stretch<T, E>(
        &self,
        sums: &mut [T],
        band: &mut [E],
        [pitch, channels]: [usize; 2],
        work: impl Fn(&mut [T], &mut [E]),
    ) {
        let [row, pixel] = self.pitches;
        // Long stretches where all channels are summed.
        let (stretch, step) = if pixel == channels {
            (row, row)
        } else {
            (pixel, channels)
        };
        let first = self.columns.start * channels + self.channels.start;
        for (sums, band) in sums.chunks_mut(row).zip(band.chunks_mut(pitch)) {
            let band = band[first..].chunks_mut(step);
            for (sums, band) in sums.chunks_mut(stretch).zip(band) {
                work(sums, band);
            }
        }
    }
}

/// Runs `work` for blocks of `target`, to add to their sums: to the values that are there, or to zeros. A value that is not stored as
/// it is computed is rounded once, when all is added: it is summed on the stack.
fn for_each_block_of_sums<E: Storage>(
    target: ViewMut<'_, E>,
    existing: Existing,
    work: impl Fn(&Block, &mut [E::Compute]) + Sync,
) {
    let (width, channels) = (target.width(), target.channels());
    let pitch = target.pitch() * channels;
    for_each_band(
        target,
        BAND_ROWS,
        #[inline(always)]
        |first_row: usize, band: &mut [E]| {
            let rows = first_row..first_row + band.len().div_ceil(pitch);
            if let Some(sums) = E::as_computed_mut(band) {
                if existing == Existing::Replace {
                    clear_rows(sums, pitch, width * channels);
                }
                let whole = Block {
                    pitches: [pitch, channels],
                    ..Block::new(&rows, 0..width, 0..channels)
                };
                work(&whole, sums);
                return;
            }
            let mut room = [E::Compute::ZERO; PART];
            let part = channels.min(PART_CHANNELS);
            let across = PART / (BAND_ROWS * part);
            for column in (0..width).step_by(across) {
                for channel in (0..channels).step_by(part) {
                    let columns = column..(column + across).min(width);
                    let block = Block::new(&rows, columns, channel..(channel + part).min(channels));
                    let sums = &mut room[..block.pitches[0] * rows.len()];
                    match existing {
                        Existing::Replace => sums.fill(E::Compute::ZERO),
                        Existing::Add => block.for_each_stretch(
                            sums,
                            band,
                            [pitch, channels],
                            #[inline(always)]
                            |sums, band| stored::widen(band, sums),
                        ),
                    }
                    work(&block, sums);
                    block.for_each_stretch(
                        sums,
                        band,
                        [pitch, channels],
                        #[inline(always)]
                        |sums, band| stored::narrow(sums, band),
                    );
                }
            }
        },
    );
}

/// Sets rows of `length` values to zero that lie `pitch` values apart.
#[inline(always)]
fn clear_rows<T: Element>(values: &mut [T], pitch: usize, length: usize) {
    for row in values.chunks_mut(pitch) {
        row[..length].fill(T::ZERO);
    }
}

/// The windows of `0..windows` along an axis, of which the first is at `first`, that may touch `positions` there.
fn windows_touching(
    window: &Window,
    axis: usize,
    windows: usize,
    first: isize,
    positions: &Range<usize>,
) -> Range<usize> {
    let stride = signed(window.stride[axis]);
    let reach = signed(window.kernel[axis] - 1) * signed(window.dilation[axis]);
    let start = (signed(positions.start) - first - reach + stride - 1).div_euclid(stride);
    let end = (signed(positions.end) - first + stride - 1).div_euclid(stride);
    let clamp = |at: isize| usize::try_from(at).unwrap_or_default().min(windows);
    clamp(start)..clamp(end).max(clamp(start))
}
