//! Placing buffers with known lifetimes in one allocation.

use std::ops::Range;

/// A buffer that must exist from step `first` to step `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Size in elements.
    pub size: u64,
    /// First step that uses the buffer.
    pub first: usize,
    /// Last step that uses it.
    pub last: usize,
}

/// Where each buffer lies, and how long the allocation must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// Offset of each buffer, in elements.
    pub offsets: Vec<u64>,
    /// Length of the allocation, in elements.
    pub length: u64,
}

/// Elements to which every buffer is aligned: a cache line of f32.
pub const ALIGNMENT: u64 = 16;

/// Places buffers so that no two that live at the same time overlap.
///
/// Largest first, each at the lowest offset that is free for its whole lifetime ("greedy by size",
/// Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, section 5.2).
///
/// ```
/// use stream_grad_tiling::{place, Lifetime};
/// let early = Lifetime { size: 100, first: 0, last: 1 };
/// let late = Lifetime { size: 100, first: 2, last: 3 };
/// let placement = place(&[early, late]);
/// assert_eq!(placement.offsets, [0, 0]);
/// assert_eq!(placement.length, 112);                // rounded up to a whole cache line
/// ```
pub fn place(buffers: &[Lifetime]) -> Placement {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(buffers[index].size), index));
    let mut offsets = vec![0_u64; buffers.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    let mut length = 0_u64;
    for index in order {
        let buffer = buffers[index];
        if buffer.size == 0 {
            continue;
        }
        let mut taken: Vec<Range<u64>> = placed
            .iter()
            .filter(|&&other| {
                buffers[other].first <= buffer.last && buffer.first <= buffers[other].last
            })
            .map(|&other| {
                offsets[other]..offsets[other].saturating_add(aligned(buffers[other].size))
            })
            .collect();
        taken.sort_by_key(|range| range.start);
        let mut offset = 0_u64;
        for range in taken {
            if range.start >= offset.saturating_add(aligned(buffer.size)) {
                break;
            }
            offset = offset.max(range.end);
        }
        offsets[index] = offset;
        length = length.max(offset.saturating_add(aligned(buffer.size)));
        placed.push(index);
    }
    Placement { offsets, length }
}

/// A size rounded up to [`ALIGNMENT`]; `u64::MAX` stands for more than can be addressed.
pub const fn aligned(size: u64) -> u64 {
    size.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
}
