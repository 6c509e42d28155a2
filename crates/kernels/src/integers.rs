//! Counts and positions of buffers, as signed integers.

use std::ops::Range;

/// A count or a position that leaves room for sums and differences of a few of its kind.
pub(crate) fn bounded(count: usize) -> Option<isize> {
    isize::try_from(count)
        .ok()
        .filter(|&count| count <= isize::MAX / 8)
}

/// A count that `Window::place` or the existence of a slice bounds.
#[expect(
    clippy::cast_possible_wrap,
    reason = "checked: extents and windows fit isize"
)]
pub(crate) fn signed(count: usize) -> isize {
    count as isize
}

/// The steps `i` of `range` for which `first + i * step` is in `0..extent`.
#[inline(always)]
pub(crate) fn steps_inside(
    first: isize,
    step: isize,
    extent: usize,
    range: Range<usize>,
) -> Range<usize> {
    let at_least = |bound: isize| {
        // The first step at or beyond `bound`.
        let distance = bound - first;
        usize::try_from(distance.div_euclid(step) + isize::from(distance.rem_euclid(step) != 0))
            .unwrap_or_default()
    };
    let start = at_least(0).clamp(range.start, range.end);
    let end = at_least(signed(extent)).clamp(start, range.end);
    start..end
}
