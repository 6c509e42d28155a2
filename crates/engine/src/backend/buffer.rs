//! Where the rectangles of one tile lie.

use std::ops::Range;

use stream_grad_tiling::Rect;

/// A part of the memory of the sweeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slab {
    /// Activations and cotangents of the tile at hand; every tile uses it anew.
    Arena,
    /// Strips and left halos that only carry.
    Transient,
    /// Cotangents on their way to tiles above and to the left.
    Carries,
    /// What is saved from the forward to the backward sweep.
    Saved,
    /// What is saved at the borders of segments.
    Border,
    /// Sums over blocks that are shown to the caller.
    Shown,
    /// What is held of a tile that is computed for others.
    Template,
}

/// A rectangle of a node's plane, contiguous in height x width x channels order.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    /// The memory that it lies in.
    pub slab: Slab,
    /// Values before it in the slab.
    pub offset: usize,
    /// What it holds, in the node's plane.
    pub rect: Rect,
    /// Values of a position.
    pub channels: usize,
}

impl Buffer {
    /// Rows that it holds.
    #[must_use]
    pub fn height(&self) -> usize {
        self.rect.height()
    }

    /// Columns that it holds.
    #[must_use]
    pub fn width(&self) -> usize {
        self.rect.width()
    }

    /// Values that it holds.
    #[must_use]
    pub fn values(&self) -> usize {
        self.height() * self.width() * self.channels
    }

    /// Where it lies in its slab.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.values()
    }
}

/// How the memory that a sweep works in is cut into slabs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WorkingLayout {
    pub(crate) arena: Range<usize>,
    pub(crate) transient: Range<usize>,
    pub(crate) carries: Range<usize>,
    /// For kernels; nothing in it outlives one of them.
    pub(crate) scratch: Range<usize>,
}

impl WorkingLayout {
    /// Parts of these lengths, one after another, each at a multiple of `alignment`.
    pub(crate) fn new(lengths: [usize; 4], alignment: usize) -> Self {
        let mut start = 0_usize;
        let [arena, transient, carries, scratch] = lengths.map(|length| {
            let part = start..start.saturating_add(length);
            start = part.end.div_ceil(alignment).saturating_mul(alignment);
            part
        });
        Self {
            arena,
            transient,
            carries,
            scratch,
        }
    }

    /// Values of the whole.
    pub(crate) fn length(&self, alignment: usize) -> usize {
        self.scratch
            .end
            .div_ceil(alignment)
            .saturating_mul(alignment)
    }
}

/// An element count or offset; no buffer that exists is longer than `usize`.
pub(crate) fn offset(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_begin_at_multiples_of_the_alignment() {
        for length in [0, 1, 15, 16, 1000] {
            let lengths = [length, 3, 0, 17];
            let layout = WorkingLayout::new(lengths, 16);
            let WorkingLayout {
                arena,
                transient,
                carries,
                scratch,
            } = &layout;
            let parts = [arena, transient, carries, scratch];
            assert_eq!(parts.map(|part| part.len()), lengths);
            assert!(parts.iter().all(|part| part.start.is_multiple_of(16)));
            assert!(parts.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(layout.length(16) >= scratch.end && layout.length(16).is_multiple_of(16));
        }
    }
}
