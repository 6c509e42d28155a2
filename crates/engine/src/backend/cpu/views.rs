//! Slices of memory for buffers, and where their rectangles lie in them as the kernels say it.

use std::ops::Range;

use rayon::prelude::*;
use stream_grad_kernels::{
    ConvTranspose, Element, Image, ImageMut, KernelError, Located, Position, Region,
};

use super::Cpu;
use crate::backend::{Buffer, Combine, Mapping, PaddedWindow, Rect, Slabs, Transposed, length};
use crate::element::{Compute, Stored};
use crate::layers::Padding;
use crate::tile::{Strided, StridedMut};

/// Scratch for a kernel, and views of `N` buffers, all writable at once.
pub(super) type ScratchAndViews<'v, T, const N: usize> = (&'v mut [T], [&'v mut [T]; N]);

/// Two operands, what is written, and where.
pub(super) type OfTwo<'v, T> = (Located<'v, T>, Located<'v, T>, ImageMut<'v, T>, Region);

impl<T: Element + Stored + Compute> Slabs<'_, Cpu<T>> {
    /// The values of each memory, working memory without scratch, and scratch.
    fn split(&mut self) -> ([&mut [T]; 4], &mut [T]) {
        let scratch = self.layout.scratch.clone();
        let (working, rest) = self.working.split_at_mut(scratch.start);
        let shown = match &mut self.shown {
            Some(shown) => &mut shown[..],
            None => &mut [],
        };
        let memories = [working, &mut self.saved[..], &mut self.border[..], shown];
        (memories, &mut rest[..scratch.len()])
    }

    /// The memory of a buffer, and its values there.
    fn located(&self, buffer: Buffer) -> (usize, Range<usize>) {
        let (memory, start) = self.place(buffer.slab);
        let range = buffer.range();
        (memory, start + range.start..start + range.end)
    }

    /// Mutable views of buffers that do not overlap, in the order asked for, and scratch.
    pub(super) fn views<const N: usize>(
        &mut self,
        buffers: [Buffer; N],
    ) -> Result<ScratchAndViews<'_, T, N>, KernelError> {
        let places = buffers.map(|buffer| self.located(buffer));
        let (mut rest, scratch) = self.split();
        let mut order: [usize; N] = std::array::from_fn(|index| index);
        order.sort_unstable_by_key(|&index| (places[index].0, places[index].1.start));
        let mut taken = [0_usize; 4];
        let mut views: [&mut [T]; N] = std::array::from_fn(|_| Default::default());
        for index in order {
            let (memory, range) = &places[index];
            if range.is_empty() {
                continue;
            }
            let remaining = std::mem::take(&mut rest[*memory]);
            if range.start < taken[*memory] || range.end - taken[*memory] > remaining.len() {
                return Err(KernelError::Buffers);
            }
            let (view, tail) = remaining[range.start - taken[*memory]..].split_at_mut(range.len());
            views[index] = view;
            rest[*memory] = tail;
            taken[*memory] = range.end;
        }
        Ok((scratch, views))
    }

    /// Input and output of a kernel that goes position by position, and what it computes.
    pub(super) fn forward(
        &mut self,
        map: &Mapping,
    ) -> Result<(Located<'_, T>, ImageMut<'_, T>, Region), KernelError> {
        let (_, [x, y]) = self.views([map.input, map.output])?;
        Ok((
            at(&map.input, x, map.outputs)?,
            image_mut(&map.output, y)?,
            local(&map.output, map.outputs),
        ))
    }

    /// The same with two inputs, which may be one.
    pub(super) fn forward_of_two(
        &mut self,
        other: Buffer,
        map: &Mapping,
    ) -> Result<OfTwo<'_, T>, KernelError> {
        let outputs = map.outputs;
        let region = local(&map.output, outputs);
        if other.slab == map.input.slab && other.range() == map.input.range() {
            let (x, y, region) = self.forward(map)?;
            return Ok((x, x, y, region));
        }
        let (_, [a, b, y]) = self.views([map.input, other, map.output])?;
        let (a, b) = (at(&map.input, a, outputs)?, at(&other, b, outputs)?);
        Ok((a, b, image_mut(&map.output, y)?, region))
    }

    /// The cotangents of output and input of a kernel that goes position by position, and where the latter is added to.
    pub(super) fn vjp(
        &mut self,
        map: &Transposed,
    ) -> Result<(Located<'_, T>, ImageMut<'_, T>, Region), KernelError> {
        let (_, [g, to]) = self.views([map.cotangent, map.target])?;
        Ok((
            at(&map.cotangent, g, map.outputs)?,
            image_mut(&map.target, to)?,
            local(&map.target, map.outputs),
        ))
    }

    /// The same, after what the VJP reads.
    pub(super) fn vjp_reading(
        &mut self,
        read: Buffer,
        map: &Transposed,
    ) -> Result<OfTwo<'_, T>, KernelError> {
        let (_, [x, g, to]) = self.views([read, map.cotangent, map.target])?;
        Ok((
            at(&read, x, map.outputs)?,
            at(&map.cotangent, g, map.outputs)?,
            image_mut(&map.target, to)?,
            local(&map.target, map.outputs),
        ))
    }

    /// Input and cotangent of an operator with parameters that goes position by position, and where the latter is complete.
    pub(super) fn parameter_gradient(
        &mut self,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
    ) -> Result<(Located<'_, T>, Image<'_, T>, Region), KernelError> {
        let (_, [x, g]) = self.views([input, cotangent])?;
        Ok((
            at(&input, x, outputs)?,
            image(&cotangent, g)?,
            local(&cotangent, outputs),
        ))
    }

    /// Copies or adds the rows of `region`.
    pub(super) fn combine_rows(&mut self, to: Buffer, from: Buffer, region: Rect, how: Combine) {
        let rows = length(region.rows);
        let values = length(region.columns) * to.channels;
        if rows * values == 0 {
            return;
        }
        let pitches = [to, from].map(|buffer| buffer.width() * buffer.channels);
        let places = [to, from].map(|buffer| {
            let (memory, start) = self.place(buffer.slab);
            let place = local(&buffer, region);
            let first = (place.row * buffer.width() + place.column) * buffer.channels;
            let first = start + buffer.offset + first;
            let length = (rows - 1) * buffer.width() * buffer.channels + values;
            (memory, first..first + length)
        });
        let (memories, _) = self.split();
        let Some((to, from)) = two(memories, places) else {
            return;
        };
        let copy = |to: &mut [T], from: &[T]| to.copy_from_slice(from);
        let add = |to: &mut [T], from: &[T]| {
            for (to, from) in to.iter_mut().zip(from) {
                *to += *from;
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
    memories: [&mut [T]; 4],
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
        to.par_chunks_mut(to_pitch)
            .zip(from.par_chunks(from_pitch))
            .for_each(|(to, from)| combine(&mut to[..values], &from[..values]));
    }
}

/// A rectangle of the plane in a buffer's own coordinates.
pub(super) fn local(buffer: &Buffer, rect: Rect) -> Region {
    Region::new(
        distance(rect.rows.lo, buffer.rect.rows.lo),
        distance(rect.columns.lo, buffer.rect.columns.lo),
        length(rect.rows),
        length(rect.columns),
    )
}

/// Where, in a buffer of the input, the first tap of the first output's window lies; it may be in the padding.
pub(super) fn first_window(input: &Buffer, window: &PaddedWindow, outputs: Rect) -> Position {
    let first = |lo: i64, axis: usize, padding: usize, origin: i64| {
        let stride = i64::try_from(window.window.stride[axis]).unwrap_or(i64::MAX);
        let padding = i64::try_from(padding).unwrap_or(i64::MAX);
        isize::try_from(
            lo.saturating_mul(stride)
                .saturating_sub(padding)
                .saturating_sub(origin),
        )
        .unwrap_or(isize::MAX)
    };
    let PaddedWindow { padding, .. } = window;
    let Rect { rows, columns } = input.rect;
    Position::new(
        first(outputs.rows.lo, 0, padding.top, rows.lo),
        first(outputs.columns.lo, 1, padding.left, columns.lo),
    )
}

/// Where, on the grid on which the first position of a buffer of the input begins its window, the first output lies.
pub(super) fn transposed_origin(
    input: &Buffer,
    convolution: &ConvTranspose,
    padding: Padding,
    outputs: Rect,
) -> Position {
    let place = |lo: i64, axis: usize, padding: usize, origin: i64| {
        let stride = i64::try_from(convolution.window.stride[axis]).unwrap_or(i64::MAX);
        let padding = i64::try_from(padding).unwrap_or(i64::MAX);
        isize::try_from(
            lo.saturating_add(padding)
                .saturating_sub(origin.saturating_mul(stride)),
        )
        .unwrap_or(isize::MAX)
    };
    let Rect { rows, columns } = input.rect;
    Position::new(
        place(outputs.rows.lo, 0, padding.top, rows.lo),
        place(outputs.columns.lo, 1, padding.left, columns.lo),
    )
}

/// A buffer's values as the kernels take them.
pub(super) fn image<'a, T>(buffer: &Buffer, data: &'a [T]) -> Result<Image<'a, T>, KernelError> {
    Image::new(data, buffer.height(), buffer.width(), buffer.channels)
}

/// A buffer's values as the kernels write them.
pub(super) fn image_mut<'a, T>(
    buffer: &Buffer,
    data: &'a mut [T],
) -> Result<ImageMut<'a, T>, KernelError> {
    ImageMut::new(data, buffer.height(), buffer.width(), buffer.channels)
}

/// The values of a buffer that belong to a rectangle of the plane.
pub(super) fn at<'a, T>(
    buffer: &Buffer,
    data: &'a [T],
    rect: Rect,
) -> Result<Located<'a, T>, KernelError> {
    let Region { row, column, .. } = local(buffer, rect);
    Ok(Located::new(image(buffer, data)?, row, column))
}

/// The rows of `region` of a buffer that begins at `start` of `values`.
pub(super) fn strided<'a, T>(
    values: &'a [T],
    start: usize,
    buffer: &Buffer,
    region: Rect,
) -> Option<Strided<'a, T>> {
    let (start, place) = rows_at(start, buffer, region);
    Strided::new(
        values.get(start..)?,
        place.rows,
        place.columns * buffer.channels,
        buffer.width() * buffer.channels,
    )
}

/// The same, to write.
pub(super) fn strided_mut<'a, T>(
    values: &'a mut [T],
    start: usize,
    buffer: &Buffer,
    region: Rect,
) -> Option<StridedMut<'a, T>> {
    let (start, place) = rows_at(start, buffer, region);
    StridedMut::new(
        values.get_mut(start..)?,
        place.rows,
        place.columns * buffer.channels,
        buffer.width() * buffer.channels,
    )
}

fn rows_at(start: usize, buffer: &Buffer, region: Rect) -> (usize, Region) {
    let place = local(buffer, region);
    let first = place
        .row
        .saturating_mul(buffer.width())
        .saturating_add(place.column);
    (
        start.saturating_add(first.saturating_mul(buffer.channels)),
        place,
    )
}

fn distance(index: i64, origin: i64) -> usize {
    usize::try_from(index - origin).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn ranges_of_one_memory_must_not_overlap() {
        let mut values = [1, 2, 3, 4, 5, 6];
        let empty = || [&mut [][..], &mut [], &mut []];
        let run = |values: &mut [i32], to: Range<usize>, from: Range<usize>| {
            let [a, b, c] = empty();
            two([values, a, b, c], [(0, to), (0, from)])
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
