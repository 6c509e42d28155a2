//! Pooling and its VJPs.

mod average;
mod max;

pub use average::{Divisor, avg_pool_forward, avg_pool_vjp};
pub use max::{max_pool_forward, max_pool_vjp};

use std::ops::Range;

use crate::Window;
use crate::convolution::signed;

/// Rows of input cotangent that one task of a VJP owns.
const BAND_ROWS: usize = 16;

/// The taps of one window along one axis that exist: `first + tap * dilation` for `taps`.
#[derive(Clone)]
struct Taps {
    first: isize,
    dilation: isize,
    taps: Range<usize>,
}

impl Taps {
    /// The taps of the window that starts at `first`, in an axis of `extent` positions.
    fn new(window: &Window, axis: usize, first: isize, extent: usize) -> Self {
        let dilation = signed(window.dilation[axis]);
        let up_to = |bound: isize| {
            // Taps before `bound`.
            let taps = (bound - first + dilation - 1).div_euclid(dilation);
            usize::try_from(taps)
                .unwrap_or_default()
                .min(window.kernel[axis])
        };
        Self {
            first,
            dilation,
            taps: up_to(0)..up_to(signed(extent)),
        }
    }

    fn len(&self) -> usize {
        self.taps.len()
    }

    /// The input positions of the taps, in order.
    fn positions(&self) -> impl Iterator<Item = usize> + use<> {
        let Self {
            first,
            dilation,
            taps,
        } = self.clone();
        // A tap that exists is not negative.
        taps.filter_map(move |tap| usize::try_from(first + signed(tap) * dilation).ok())
    }
}

/// The rows `0..rows` of a region whose windows may touch `band` of an axis where the first window is at `first`.
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
