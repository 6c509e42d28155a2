//! Buffers of one tile: where they lie, which rectangle they hold, and disjoint views of several at once.

use std::ops::Range;

use rayon::prelude::*;
use stream_grad_kernels::{Image, ImageMut, KernelError, Position, Region};
use stream_grad_tiling::{PerAxis, Span};

use crate::error::StreamError;
use crate::scalar::Scalar;
use crate::tile::{Strided, StridedMut};

/// The allocation that a buffer lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slab {
    /// The arena that every tile uses anew.
    Arena,
    /// What is saved from the forward to the backward sweep.
    Saved,
}

/// A rectangle of a node's plane, contiguous in height x width x channels order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) slab: Slab,
    pub(crate) offset: usize,
    pub(crate) rect: PerAxis<Span>,
    pub(crate) channels: usize,
}

impl Buffer {
    pub(crate) fn height(&self) -> usize {
        length(self.rect.rows)
    }

    pub(crate) fn width(&self) -> usize {
        length(self.rect.columns)
    }

    pub(crate) fn values(&self) -> usize {
        self.height() * self.width() * self.channels
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.values()
    }

    /// A rectangle of the plane in the buffer's coordinates.
    pub(crate) fn region(&self, rect: PerAxis<Span>) -> Region {
        Region::new(
            distance(rect.rows.lo, self.rect.rows.lo),
            distance(rect.columns.lo, self.rect.columns.lo),
            length(rect.rows),
            length(rect.columns),
        )
    }

    /// A position of the plane, possibly in the padding, in the buffer's coordinates.
    pub(crate) fn position(&self, row: i64, column: i64) -> Position {
        Position::new(
            signed(row - self.rect.rows.lo),
            signed(column - self.rect.columns.lo),
        )
    }

    pub(crate) fn image<'a, T>(&self, data: &'a [T]) -> Result<Image<'a, T>, KernelError> {
        Image::new(data, self.height(), self.width(), self.channels)
    }

    pub(crate) fn image_mut<'a, T>(
        &self,
        data: &'a mut [T],
    ) -> Result<ImageMut<'a, T>, KernelError> {
        ImageMut::new(data, self.height(), self.width(), self.channels)
    }
}

/// Length of a span; no buffer that exists is longer than `usize`.
pub(crate) fn length(span: Span) -> usize {
    offset(span.len())
}

/// An element count or offset; no buffer that exists is longer than `usize`.
pub(crate) fn offset(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn distance(index: i64, origin: i64) -> usize {
    usize::try_from(index - origin).unwrap_or(usize::MAX)
}

fn signed(value: i64) -> isize {
    isize::try_from(value).unwrap_or(isize::MAX)
}

/// Mutable views of buffers that do not overlap, in the order asked for.
pub(crate) fn disjoint<'a, T, const N: usize>(
    arena: &'a mut [T],
    saved: &'a mut [T],
    buffers: [Buffer; N],
    layer: &str,
) -> Result<[&'a mut [T]; N], StreamError> {
    let mut order: [usize; N] = std::array::from_fn(|index| index);
    order.sort_unstable_by_key(|&index| (buffers[index].slab, buffers[index].offset));
    let mut rest = [arena, saved];
    let mut taken = [0_usize; 2];
    let mut views: [&'a mut [T]; N] = std::array::from_fn(|_| Default::default());
    for index in order {
        let buffer = buffers[index];
        if buffer.values() == 0 {
            continue;
        }
        let slab = buffer.slab as usize;
        let remaining = std::mem::take(&mut rest[slab]);
        let range = buffer.range();
        if range.start < taken[slab] || range.end - taken[slab] > remaining.len() {
            return Err(StreamError::Internal {
                layer: layer.to_owned(),
                what: "two buffers of one step overlap or leave their allocation",
            });
        }
        let (view, tail) = remaining[range.start - taken[slab]..].split_at_mut(range.len());
        views[index] = view;
        rest[slab] = tail;
        taken[slab] = range.end;
    }
    Ok(views)
}

/// A rectangle of a plane that is stored in some slice from an offset on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) offset: usize,
    pub(crate) rect: PerAxis<Span>,
}

/// Bytes from which on several threads copy.
const PARALLEL_BYTES: usize = 256 << 10;

/// Runs `combine(to, from)` over each row of `region`, which lies in both stored rectangles.
pub(crate) fn combine_rows<T: Send + Sync>(
    to: &mut [T],
    to_place: Stored,
    from: &[T],
    from_place: Stored,
    region: PerAxis<Span>,
    channels: usize,
    combine: impl Fn(&mut [T], &[T]) + Sync,
) {
    let values = length(region.columns) * channels;
    let start = |place: Stored, row: i64| {
        let above = distance(row, place.rect.rows.lo) * length(place.rect.columns);
        place.offset + (above + distance(region.columns.lo, place.rect.columns.lo)) * channels
    };
    let rows = length(region.rows);
    if values * rows == 0 {
        return;
    }
    let pitch = |place: Stored| length(place.rect.columns) * channels;
    let part = |place: Stored| {
        let first = start(place, region.rows.lo);
        first..first + (rows - 1) * pitch(place) + values
    };
    let to = &mut to[part(to_place)];
    let from = &from[part(from_place)];
    let (to_pitch, from_pitch) = (pitch(to_place), pitch(from_place));
    if values * rows * size_of::<T>() < PARALLEL_BYTES {
        for (to, from) in to.chunks_mut(to_pitch).zip(from.chunks(from_pitch)) {
            combine(&mut to[..values], &from[..values]);
        }
    } else {
        to.par_chunks_mut(to_pitch)
            .zip(from.par_chunks(from_pitch))
            .for_each(|(to, from)| combine(&mut to[..values], &from[..values]));
    }
}

/// Values that one task clears.
const CLEARED_AT_ONCE: usize = 1 << 18;

/// Sets all values to zero.
pub(crate) fn clear<T: Scalar>(values: &mut [T]) {
    values
        .par_chunks_mut(CLEARED_AT_ONCE)
        .for_each(|values| values.fill(T::ZERO));
}

/// The rows of `region` of a buffer that lies in `slab`.
pub(crate) fn strided<T>(
    slab: &[T],
    buffer: Buffer,
    region: PerAxis<Span>,
) -> Option<Strided<'_, T>> {
    let place = buffer.region(region);
    let start = buffer.offset + (place.row * buffer.width() + place.column) * buffer.channels;
    Strided::new(
        slab.get(start..)?,
        place.rows,
        place.columns * buffer.channels,
        buffer.width() * buffer.channels,
    )
}

/// The rows of `region` of a buffer that lies in `slab`, to write.
pub(crate) fn strided_mut<T>(
    slab: &mut [T],
    buffer: Buffer,
    region: PerAxis<Span>,
) -> Option<StridedMut<'_, T>> {
    let place = buffer.region(region);
    let start = buffer.offset + (place.row * buffer.width() + place.column) * buffer.channels;
    StridedMut::new(
        slab.get_mut(start..)?,
        place.rows,
        place.columns * buffer.channels,
        buffer.width() * buffer.channels,
    )
}
