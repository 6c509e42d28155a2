//! Dense weight gradients: inputs and cotangents of a chunk of positions are packed side by side, and multiplied.
//!
//! Packing costs a copy for each input value and tap, and pays: in place, the inputs of neighbouring positions lie a power of
//! two apart and fall on a few sets of the cache.

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::cut::{ALIGNMENT, COLUMNS, Cut, Part, Place, Target, add_slots, columns, slots};
use super::product::{Rows, Sums, multiply};
use super::steps_inside;
use crate::convolution::signed;
use crate::element::sealed::{lanes, load, load_some, store_some};
use crate::shared::Shared;
use crate::{Convolution, Element, Image, Position, Region, Windows};

/// Rows of a block: kernel positions times input channels.
const ROWS: usize = 96;

/// Positions that are packed at a time.
const CHUNK: usize = 128;

/// Longest sum in the element's own precision.
const STRIP: usize = 8 * CHUNK;

/// Blocks of one group, along rows and columns.
fn blocks(convolution: &Convolution) -> [usize; 2] {
    let rows = convolution.window.taps() * (convolution.in_channels / convolution.groups);
    let columns = convolution.out_channels / convolution.groups;
    [rows.div_ceil(ROWS), columns.div_ceil(COLUMNS)]
}

/// Values of scratch that a weight gradient needs.
pub(crate) fn scratch_len(convolution: &Convolution) -> usize {
    let [rows, columns] = blocks(convolution);
    let blocks = rows.saturating_mul(columns);
    slots(blocks.saturating_mul(convolution.groups)).saturating_mul(ROWS * COLUMNS)
}

/// Adds the weight gradient to `sums`, laid out `[kernel row][kernel column][in / groups][out]`.
pub(super) fn weight_gradient<T: Element>(
    convolution: &Convolution,
    input: Image<'_, T>,
    windows: Windows,
    cotangent: Image<'_, T>,
    sums: &mut [f64],
    scratch: &mut [T],
) {
    let Windows { region, first, .. } = windows;
    let window = convolution.window;
    let depth = convolution.in_channels / convolution.groups;
    let [row_blocks, column_blocks] = blocks(convolution);
    // Taps of a kernel row that follow each other in memory are copied as one.
    let merged = convolution.groups == 1 && window.dilation[1] == 1;
    let job = Job {
        input,
        first,
        cotangent,
        region,
        stride: window.stride.map(signed),
        dilation: window.dilation.map(signed),
        kernel_columns: window.kernel[1],
        run_taps: if merged { window.kernel[1] } else { 1 },
        depth,
        rows: window.taps() * depth,
        width: convolution.out_channels / convolution.groups,
        row_blocks,
        column_blocks,
        sums: Shared::new(sums),
        slots: Shared::new(scratch),
    };
    let blocks = convolution.groups * row_blocks * column_blocks;
    Cut::new(blocks, region.pixels(), CHUNK, STRIP)
        .run(|part| T::weight_gradient(Task { job: &job, part }));
}

/// The whole gradient.
struct Job<'a, T> {
    input: Image<'a, T>,
    first: Position,
    cotangent: Image<'a, T>,
    region: Region,
    stride: [isize; 2],
    dilation: [isize; 2],
    kernel_columns: usize,
    /// Taps whose inputs lie next to each other.
    run_taps: usize,
    /// Input channels of a group.
    depth: usize,
    /// Rows of a group's gradient: taps times input channels.
    rows: usize,
    /// Output channels of a group.
    width: usize,
    row_blocks: usize,
    column_blocks: usize,
    sums: Shared<'a, f64>,
    slots: Shared<'a, T>,
}

/// A part of a weight gradient.
pub struct Task<'a, T> {
    job: &'a Job<'a, T>,
    part: Part,
}

impl<T: Element> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let job = self.job;
        match self.part {
            Part::Sum {
                block,
                positions,
                slot,
            } => {
                let target = match slot {
                    Some(slot) => Target::Slot(job.slot(slot)),
                    None => Target::Gradient(&job.sums),
                };
                job.block(block).sum(simd, positions, &target);
            }
            Part::Add {
                block,
                slots,
                step,
                piece,
                pieces,
            } => {
                let place = job.block(block).place();
                let rows = piece * place.rows / pieces..(piece + 1) * place.rows / pieces;
                let slots = [slots, step * ROWS * COLUMNS];
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: all tasks that fill the block's slots are done, and these rows belong to this task alone.
                unsafe {
                    add_slots(simd, &place, rows, job.slot(block), slots, &job.sums);
                }
            }
        }
    }
}

impl<T: Element> Job<'_, T> {
    fn slot(&self, index: usize) -> *mut T {
        self.slots.pointer().wrapping_add(index * ROWS * COLUMNS)
    }

    fn block(&self, index: usize) -> Block<'_, T> {
        let (index, column) = (index / self.column_blocks, index % self.column_blocks);
        let (group, row) = (index / self.row_blocks, index % self.row_blocks);
        Block {
            job: self,
            group,
            rows: row * self.rows / self.row_blocks..(row + 1) * self.rows / self.row_blocks,
            columns: columns(self.width, column, self.column_blocks),
        }
    }
}

/// Some rows and columns of one group's gradient.
struct Block<'a, T> {
    job: &'a Job<'a, T>,
    group: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Packed values and sums, written before they are read.
#[repr(align(64))]
struct Stack<T, const ROWS: usize, const COLUMNS: usize>([[MaybeUninit<T>; COLUMNS]; ROWS]);

impl<T: Copy, const ROWS: usize, const COLUMNS: usize> Stack<T, ROWS, COLUMNS> {
    #[inline(always)]
    const fn uninit() -> Self {
        Self([[const { MaybeUninit::uninit() }; COLUMNS]; ROWS])
    }
}

impl<T: Element> Block<'_, T> {
    fn place(&self) -> Place {
        let job = self.job;
        let row_step = job.cotangent.channels();
        Place {
            first: self.rows.start * row_step + self.group * job.width + self.columns.start,
            taps: 1,
            tap_step: 0,
            rows: self.rows.len(),
            row_step,
            columns: self.columns.len(),
        }
    }

    /// Sums over some positions of the region, counted in raster order.
    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, positions: Range<usize>, target: &Target<'_, T>) {
        let lanes = lanes::<S, T>();
        let place = self.place();
        let (rows, columns) = (place.rows, place.columns);
        let (left_pitch, pitch) = (rows.next_multiple_of(ALIGNMENT), place.pitch());
        let mut left = Stack::<T, CHUNK, ROWS>::uninit();
        let mut right = Stack::<T, CHUNK, COLUMNS>::uninit();
        let mut sums = Stack::<T, ROWS, COLUMNS>::uninit();
        let left = left.0.as_mut_ptr().cast::<T>();
        let right = right.0.as_mut_ptr().cast::<T>();
        let sums = sums.0.as_mut_ptr().cast::<T>();
        for start in positions.clone().step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(positions.end);
            let count = chunk.len();
            #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
            // SAFETY: the stack has room for a chunk's rows and columns, filled up to whole registers; the first chunk writes all
            // sums.
            unsafe {
                self.pack_inputs(simd, chunk.clone(), left, left_pitch);
                self.pack_cotangents(simd, chunk, right, pitch);
                multiply(
                    simd,
                    Rows {
                        first: left,
                        pitch: left_pitch,
                    },
                    Rows {
                        first: right,
                        pitch,
                    },
                    count,
                    Sums {
                        first: sums,
                        pitch,
                        rows,
                        columns,
                        replace: start == positions.start,
                    },
                );
            }
        }
        for row in 0..rows {
            for column in (0..columns).step_by(lanes) {
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: all sums were written; this task alone writes the block to the target.
                unsafe {
                    let value = load::<S, T>(simd, sums.add(row * pitch + column));
                    target.take(simd, &place, row, column, value);
                }
            }
        }
    }

    /// Rows of the region and the columns of each that make up `positions`.
    #[inline(always)]
    fn runs(
        &self,
        positions: Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + use<T> {
        let width = self.job.region.columns;
        let mut next = positions.start;
        std::iter::from_fn(move || {
            let (row, column) = (next / width, next % width);
            let count = (width - column).min(positions.end - next);
            next += count;
            (count > 0).then_some((row, column..column + count))
        })
    }

    /// Copies the cotangents of some positions; what fills up the last register of a position is zero.
    ///
    /// # Safety
    /// `to` must have room for all positions.
    #[inline(always)]
    #[expect(unsafe_code, reason = "packing addresses memory by pointer")]
    unsafe fn pack_cotangents<S: Simd>(
        &self,
        simd: S,
        positions: Range<usize>,
        to: *mut T,
        pitch: usize,
    ) {
        let job = self.job;
        let lanes = lanes::<S, T>();
        let channels = job.cotangent.channels();
        let first = self.group * job.width + self.columns.start;
        let mut to = to;
        for (row, columns) in self.runs(positions) {
            let pixel = (job.region.row + row) * job.cotangent.width() + job.region.column;
            let mut from = job.cotangent.data()[(pixel + columns.start) * channels..].as_ptr();
            for _ in columns {
                for column in (0..self.columns.len()).step_by(lanes) {
                    let count = lanes.min(self.columns.len() - column);
                    // SAFETY: the region lies in the cotangent; the caller vouches for the target.
                    unsafe {
                        let value = load_some::<S, T>(simd, from.add(first + column), count);
                        store_some::<S, T>(simd, to.add(column), lanes, value);
                    }
                }
                from = from.wrapping_add(channels);
                to = to.wrapping_add(pitch);
            }
        }
    }

    /// Copies the inputs under the windows of some positions; padding is zero.
    ///
    /// # Safety
    /// `to` must have room for all positions.
    #[inline(always)]
    #[expect(unsafe_code, reason = "packing addresses memory by pointer")]
    unsafe fn pack_inputs<S: Simd>(
        &self,
        simd: S,
        positions: Range<usize>,
        to: *mut T,
        pitch: usize,
    ) {
        let job = self.job;
        let run_rows = job.run_taps * job.depth;
        let mut start = self.rows.start;
        while start < self.rows.end {
            // The rows that one run of taps has in this block.
            let run = start / run_rows;
            let end = ((run + 1) * run_rows).min(self.rows.end);
            let runs = job.kernel_columns / job.run_taps;
            let taps = Taps {
                kernel_row: run / runs,
                first: run % runs * job.run_taps,
                rows: start - run * run_rows..end - run * run_rows,
            };
            let mut to = to.wrapping_add(start - self.rows.start);
            for (row, columns) in self.runs(positions.clone()) {
                let count = columns.len();
                // SAFETY: as the caller vouches.
                unsafe { self.pack_row(simd, &taps, row, columns, to, pitch) };
                to = to.wrapping_add(count * pitch);
            }
            start = end;
        }
    }

    /// Copies the inputs of some taps for some columns of one row of the region.
    ///
    /// # Safety
    /// `to` must have room for all columns.
    #[inline(always)]
    #[expect(unsafe_code, reason = "packing addresses memory by pointer")]
    unsafe fn pack_row<S: Simd>(
        &self,
        simd: S,
        taps: &Taps,
        row: usize,
        columns: Range<usize>,
        to: *mut T,
        pitch: usize,
    ) {
        let job = self.job;
        let (width, channels) = (job.input.width(), job.input.channels());
        let input_row =
            job.first.row + signed(taps.kernel_row) * job.dilation[0] + signed(row) * job.stride[0];
        let length = taps.rows.len();
        let outside = input_row < 0 || input_row >= signed(job.input.height());
        let first_tap = taps.first + taps.rows.start / job.depth;
        let last_tap = taps.first + (taps.rows.end - 1) / job.depth;
        let column_of = |tap: usize, column: usize| {
            job.first.column + signed(tap) * job.dilation[1] + signed(column) * job.stride[1]
        };
        let at = |tap: usize, column: usize| {
            let pixel = input_row * signed(width) + column_of(tap, column);
            let from = pixel * signed(channels) + signed(self.group * job.depth);
            job.input.data().as_ptr().wrapping_offset(from)
        };
        let inside = |tap: usize| {
            if outside {
                return columns.start..columns.start;
            }
            let step = job.stride[1];
            steps_inside(column_of(tap, 0), step, width, columns.clone())
        };
        // Columns where all taps exist.
        let (low, high) = (inside(first_tap), inside(last_tap));
        let all = high.start.max(low.start)..low.end.min(high.end);
        let all = if all.is_empty() {
            columns.end..columns.end
        } else {
            all
        };
        let place = |column: usize| to.wrapping_add((column - columns.start) * pitch);
        // SAFETY: every tap of the columns in `all` exists, and of the others those that are copied; the caller vouches for the
        // target.
        unsafe {
            if !all.is_empty() {
                let mut from = at(first_tap, all.start).wrapping_add(taps.rows.start % job.depth);
                let step = job.stride[1] * signed(channels);
                for column in all.clone() {
                    copy(simd, from, place(column), length);
                    from = from.wrapping_offset(step);
                }
            }
            for column in (columns.start..all.start).chain(all.end..columns.end) {
                let mut row = taps.rows.start;
                while row < taps.rows.end {
                    let (tap, channel) = (taps.first + row / job.depth, row % job.depth);
                    let count = (job.depth - channel).min(taps.rows.end - row);
                    let to = place(column).add(row - taps.rows.start);
                    let source = column_of(tap, column);
                    if outside || source < 0 || source >= signed(width) {
                        clear::<T>(to, count);
                    } else {
                        copy(simd, at(tap, column).wrapping_add(channel), to, count);
                    }
                    row += count;
                }
            }
        }
    }
}

/// Taps of one kernel row whose inputs follow each other, and the rows of the gradient that they have in a block, counted from
/// the first tap's first channel.
struct Taps {
    kernel_row: usize,
    first: usize,
    rows: Range<usize>,
}

/// # Safety
/// `from` must be valid for reading `count` values, and `to` for writing them.
#[inline(always)]
#[expect(unsafe_code, reason = "packing addresses memory by pointer")]
unsafe fn copy<S: Simd, T: Element>(simd: S, from: *const T, to: *mut T, count: usize) {
    let lanes = lanes::<S, T>();
    for first in (0..count).step_by(lanes) {
        let count = lanes.min(count - first);
        // SAFETY: as the caller vouches.
        unsafe {
            let value = load_some::<S, T>(simd, from.add(first), count);
            store_some::<S, T>(simd, to.add(first), count, value);
        }
    }
}

/// # Safety
/// `to` must be valid for writing `count` values.
#[inline(always)]
#[expect(unsafe_code, reason = "packing addresses memory by pointer")]
unsafe fn clear<T: Element>(to: *mut T, count: usize) {
    for place in 0..count {
        // SAFETY: as the caller vouches.
        unsafe { to.add(place).write(T::ZERO) };
    }
}
