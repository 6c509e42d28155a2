//! Pooling and its VJPs.

mod average;
mod max;

pub use average::{AveragePool, CountIncludePad, avg_pool_forward, avg_pool_vjp};
pub use max::{max_pool_forward, max_pool_vjp};

use std::ops::Range;

use crate::integers::signed;
use crate::{Element, Window};

/// Rows of input cotangent that one task of a VJP owns.
const BAND_ROWS: usize = 16;

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

/// Sets rows of `length` values to zero that lie `pitch` values apart.
#[inline(always)]
fn clear_rows<T: Element>(values: &mut [T], pitch: usize, length: usize) {
    for row in values.chunks_mut(pitch) {
        row[..length].fill(T::ZERO);
    }
}

/// The rows of `0..rows` whose windows may touch `band` of an axis where the first window is at `first`.
fn windows_touching(
    window: &Window,
    rows: usize,
    first: isize,
    band: &Range<usize>,
) -> Range<usize> {
    let stride = signed(window.stride[0]);
    let reach = signed(window.kernel[0] - 1) * signed(window.dilation[0]);
    let start = (signed(band.start) - first - reach + stride - 1).div_euclid(stride);
    let end = (signed(band.end) - first + stride - 1).div_euclid(stride);
    let clamp = |row: isize| usize::try_from(row).unwrap_or_default().min(rows);
    clamp(start)..clamp(end).max(clamp(start))
}
