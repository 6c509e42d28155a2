//! Views of the memory that buffers lie in.

use std::ops::Range;

use rayon::prelude::*;
use stream_grad_kernels::{KernelError, View, ViewMut, parallel_for};
use stream_grad_tiling::{Rect, Span};

use super::Cpu;
use crate::backend::{Buffer, Combine, Mapping, Slabs, Transposed};
use crate::element::Stored;
use crate::tile::{Strided, StridedMut};

/// Memories that slabs are parts of.
const MEMORIES: usize = 5;

/// Scratch for a kernel, and the values of `N` buffers, all writable at once.
pub(super) type ScratchAndSlices<'v, E, const N: usize> = (&'v mut [E], [&'v mut [E]; N]);

/// The same, with views.
pub(super) type ScratchAndViews<'v, E, const N: usize> = (&'v mut [E], [ViewMut<'v, E>; N]);

/// Two operands, and what is written.
pub(super) type OfTwo<'v, E> = (View<'v, E>, View<'v, E>, ViewMut<'v, E>);

impl<E: Stored> Slabs<'_, Cpu<E>> {
    /// The values of each memory, working memory without scratch, and scratch.
    fn split(&mut self) -> ([&mut [E]; MEMORIES], &mut [E]) {
        let scratch = self.layout.scratch.clone();
        let (working, rest) = self.working.split_at_mut(scratch.start);
        let shown = self.shown.as_deref_mut();
        let template = self.template.as_deref_mut();
        let memories = [
            working,
            &mut self.saved[..],
            &mut self.border[..],
            shown.map_or(&mut [], |shown| &mut shown[..]),
            template.map_or(&mut [], |template| &mut template[..]),
        ];
        (memories, &mut rest[..scratch.len()])
    }

    /// The memory of a buffer, and its values there.
    fn located(&self, buffer: Buffer) -> (usize, Range<usize>) {
        let (memory, start) = self.place(buffer.slab);
        let range = buffer.range();
        (memory, start + range.start..start + range.end)
    }

    /// The values of buffers that do not overlap, in the order asked for, and scratch.
    pub(super) fn slices<const N: usize>(
        &mut self,
        buffers: [Buffer; N],
    ) -> Result<ScratchAndSlices<'_, E, N>, KernelError> {
        let places = buffers.map(|buffer| self.located(buffer));
        let (mut rest, scratch) = self.split();
        let mut order: [usize; N] = std::array::from_fn(|index| index);
        order.sort_unstable_by_key(|&index| (places[index].0, places[index].1.start));
        let mut taken = [0_usize; MEMORIES];
        let mut slices: [&mut [E]; N] = std::array::from_fn(|_| Default::default());
        for index in order {
            let (memory, range) = &places[index];
            if range.is_empty() {
                continue;
            }
            let remaining = std::mem::take(&mut rest[*memory]);
            if range.start < taken[*memory] || range.end - taken[*memory] > remaining.len() {
                return Err(KernelError::Buffers);
            }
            let (slice, tail) = remaining[range.start - taken[*memory]..].split_at_mut(range.len());
            slices[index] = slice;
            rest[*memory] = tail;
            taken[*memory] = range.end;
        }
        Ok((scratch, slices))
    }

    /// The same, with views of what the buffers hold.
    pub(super) fn views<const N: usize>(
        &mut self,
        buffers: [Buffer; N],
    ) -> Result<ScratchAndViews<'_, E, N>, KernelError> {
        let (scratch, slices) = self.slices(buffers)?;
        let mut views: [ViewMut<'_, E>; N] = std::array::from_fn(|_| ViewMut::default());
        for ((view, buffer), values) in views.iter_mut().zip(buffers).zip(slices) {
            *view = ViewMut::new(values, buffer.rect, buffer.channels)?;
        }
        Ok((scratch, views))
    }

    /// The input of a forward kernel, and the part of its output that is computed.
    pub(super) fn forward(
        &mut self,
        map: &Mapping,
    ) -> Result<(View<'_, E>, ViewMut<'_, E>), KernelError> {
        let (_, [x, y]) = self.views([map.input, map.output])?;
        Ok((x.into_view(), y.part(map.outputs)?))
    }

    /// The same with two inputs, which may be one.
    pub(super) fn forward_of_two(
        &mut self,
        other: Buffer,
        map: &Mapping,
    ) -> Result<OfTwo<'_, E>, KernelError> {
        if other.slab == map.input.slab && other.range() == map.input.range() {
            let (x, y) = self.forward(map)?;
            return Ok((x, x, y));
        }
        let (_, [a, b, y]) = self.views([map.input, other, map.output])?;
        Ok((a.into_view(), b.into_view(), y.part(map.outputs)?))
    }

    /// The part of an output's cotangent that is complete, and all of the input's.
    pub(super) fn transposed(
        &mut self,
        map: &Transposed,
    ) -> Result<(View<'_, E>, ViewMut<'_, E>), KernelError> {
        let (_, [g, to]) = self.views([map.cotangent, map.target])?;
        Ok((g.into_view().part(map.outputs)?, to))
    }

    /// The same of a kernel that goes position by position: it adds to the same part.
    pub(super) fn vjp(
        &mut self,
        map: &Transposed,
    ) -> Result<(View<'_, E>, ViewMut<'_, E>), KernelError> {
        let (g, to) = self.transposed(map)?;
        Ok((g, to.part(map.outputs)?))
    }

    /// The same, after what the VJP reads.
    pub(super) fn vjp_reading(
        &mut self,
        read: Buffer,
        map: &Transposed,
    ) -> Result<OfTwo<'_, E>, KernelError> {
        let (_, [x, g, to]) = self.views([read, map.cotangent, map.target])?;
        Ok((x.into_view(), g.into_view(), to.part(map.outputs)?))
    }

    /// Input of an operator with parameters, and the part of its cotangent that is complete.
    pub(super) fn parameter_gradient(
        &mut self,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
    ) -> Result<(View<'_, E>, View<'_, E>), KernelError> {
        let (_, [x, g]) = self.views([input, cotangent])?;
        Ok((x.into_view(), g.into_view().part(outputs)?))
    }

    /// Copies or adds the rows of `region`.
    pub(super) fn combine_rows(&mut self, to: Buffer, from: Buffer, region: Rect, how: Combine) {
        let rows = region.height();
        let values = region.width() * to.channels;
        if rows * values == 0 {
            return;
        }
        let pitches = [to, from].map(|buffer| buffer.width() * buffer.channels);
        let places = [to, from].map(|buffer| {
            let (memory, start) = self.place(buffer.slab);
            let first = start + buffer.offset + before(&buffer, region);
            let length = (rows - 1) * buffer.width() * buffer.channels + values;
            (memory, first..first + length)
        });
        let (memories, _) = self.split();
        let Some((to, from)) = two(memories, places) else {
            return;
        };
        let copy = |to: &mut [E], from: &[E]| to.copy_from_slice(from);
        let add = |to: &mut [E], from: &[E]| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = E::narrow(to.widen() + from.widen());
            }
        };
        match how {
            Combine::Copy => each_row((to, from), pitches, values, copy),
            Combine::Add => each_row((to, from), pitches, values, add),
        }
    }
}

/// Two ranges, one of them to write; `None` if they overlap.
fn two<T>(
    memories: [&mut [T]; MEMORIES],
    [(to_memory, to), (from_memory, from)]: [(usize, Range<usize>); 2],
) -> Option<(&mut [T], &[T])> {
    let mut memories = memories.map(Some);
    if to_memory != from_memory {
        let target = memories[to_memory].take()?;
        let source = memories[from_memory].take()?;
        return Some((target.get_mut(to)?, source.get(from)?));
    }
    let memory = memories[to_memory].take()?;
    if to.end <= from.start {
        let (head, tail) = memory.split_at_mut(from.start);
        Some((head.get_mut(to)?, tail.get(..from.len())?))
    } else if from.end <= to.start {
        let (head, tail) = memory.split_at_mut(to.start);
        Some((tail.get_mut(..to.len())?, head.get(from)?))
    } else {
        None
    }
}

/// Bytes from which on several threads copy.
const PARALLEL_BYTES: usize = 256 << 10;

/// Runs `combine(to, from)` over rows of `values` values, which lie `pitches` apart.
fn each_row<T: Send + Sync>(
    (to, from): (&mut [T], &[T]),
    [to_pitch, from_pitch]: [usize; 2],
    values: usize,
    combine: impl Fn(&mut [T], &[T]) + Sync,
) {
    if size_of_val(from) < PARALLEL_BYTES {
        for (to, from) in to.chunks_mut(to_pitch).zip(from.chunks(from_pitch)) {
            combine(&mut to[..values], &from[..values]);
        }
    } else {
        let rows = to.par_chunks_mut(to_pitch).zip(from.par_chunks(from_pitch));
        parallel_for(rows, |(to, from)| {
            combine(&mut to[..values], &from[..values]);
        });
    }
}

/// The rows of `region` of a buffer that begins at `start` of `values`.
pub(super) fn strided<'a, T>(
    values: &'a [T],
    start: usize,
    buffer: &Buffer,
    region: Rect,
) -> Option<Strided<'a, T>> {
    let [first, rows, row_length, row_stride] = rows_of(start, buffer, region)?;
    Strided::new(values.get(first..)?, rows, row_length, row_stride)
}

/// The same, to write.
pub(super) fn strided_mut<'a, T>(
    values: &'a mut [T],
    start: usize,
    buffer: &Buffer,
    region: Rect,
) -> Option<StridedMut<'a, T>> {
    let [first, rows, row_length, row_stride] = rows_of(start, buffer, region)?;
    StridedMut::new(values.get_mut(first..)?, rows, row_length, row_stride)
}

/// Where the first value of `region` lies, how many rows there are, how long they are and how far apart; `None` if the buffer does
/// not hold them.
fn rows_of(start: usize, buffer: &Buffer, region: Rect) -> Option<[usize; 4]> {
    if !buffer.rect.covers(region) {
        return None;
    }
    if region.is_empty() {
        return Some([start, 0, 0, 0]);
    }
    Some([
        start + before(buffer, region),
        region.height(),
        region.width() * buffer.channels,
        buffer.width() * buffer.channels,
    ])
}

/// Values of a buffer before the first one of a part of it.
fn before(buffer: &Buffer, part: Rect) -> usize {
    let distance = |part: Span, all: Span| usize::try_from(part.lo - all.lo).unwrap_or(usize::MAX);
    let row = distance(part.rows, buffer.rect.rows);
    let column = distance(part.columns, buffer.rect.columns);
    (row.saturating_mul(buffer.width()))
        .saturating_add(column)
        .saturating_mul(buffer.channels)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn ranges_of_one_memory_must_not_overlap() {
        let mut values = [1, 2, 3, 4, 5, 6];
        let empty = || [&mut [][..], &mut [], &mut [], &mut []];
        let run = |values: &mut [i32], to: Range<usize>, from: Range<usize>| {
            let [a, b, c, d] = empty();
            two([values, a, b, c, d], [(0, to), (0, from)])
                .map(|(to, from)| (to.to_vec(), from.to_vec()))
        };
        assert_eq!(run(&mut values, 0..2, 4..6), Some((vec![1, 2], vec![5, 6])));
        assert_eq!(
            run(&mut values, 4..6, 0..3),
            Some((vec![5, 6], vec![1, 2, 3]))
        );
        assert_eq!(run(&mut values, 0..4, 3..6), None);
    }
}
