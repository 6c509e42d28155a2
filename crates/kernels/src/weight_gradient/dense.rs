//! Dense weight gradients: a task packs the inputs under the windows of a few positions and their cotangents side by side, and
//! multiplies them for all taps.
//!
//! In place, the inputs of neighbouring positions lie a power of two apart and fall on a few sets of the cache; and each input
//! that is fetched serves all taps that read it.

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::cut::{ALIGNMENT, COLUMNS, Cut, Part, Place, Target, add_slots, columns, slots};
use super::product::{Extent, Rows, Sums, multiply};
use crate::convolution::signed;
use crate::element::sealed::{lanes, load, load_some, store_some};
use crate::shared::Shared;
use crate::{Convolution, Element, Image, Position, Region, Windows};

/// Rows of a block: taps times input channels. More only where a single kernel row of one channel has more.
const ROWS: usize = 576;

/// Most input channels of a block.
const CHANNELS: usize = 192;

/// Positions of a chunk.
const POSITIONS: usize = 128;

/// Columns of a chunk, in a region that is high enough, of a convolution with several taps: nearly square chunks share most inputs.
const CHUNK_COLUMNS: usize = 16;

/// Bytes of a chunk's packed inputs.
const INPUT_BYTES: usize = 160 << 10;

/// Chunks of the longest sum in the element's own precision.
const STRIP: usize = 8;

/// A convolution's blocks.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    /// Parts of the kernel's rows and columns, and of a group's input and output channels.
    kernel: [usize; 2],
    inputs: usize,
    outputs: usize,
    groups: usize,
}

impl Blocks {
    fn new(convolution: &Convolution) -> Self {
        let [kernel_rows, kernel_columns] = convolution.window.kernel;
        let depth = convolution.in_channels / convolution.groups;
        let columns = kernel_columns.min(ROWS);
        let channels = (ROWS / columns).clamp(1, depth.min(CHANNELS));
        // Fewer channels where that lets a block have all taps.
        let all = ROWS / kernel_rows.saturating_mul(columns).max(1);
        let channels = if all >= channels.min(32) {
            channels.min(all)
        } else {
            channels
        };
        let rows = (ROWS / (columns * channels)).clamp(1, kernel_rows);
        Self {
            kernel: [kernel_rows.div_ceil(rows), kernel_columns.div_ceil(columns)],
            inputs: depth.div_ceil(channels),
            outputs: (convolution.out_channels / convolution.groups).div_ceil(COLUMNS),
            groups: convolution.groups,
        }
    }

    fn count(&self) -> usize {
        [self.kernel[1], self.inputs, self.outputs, self.groups]
            .into_iter()
            .fold(self.kernel[0], usize::saturating_mul)
    }
}

/// Values of scratch that a weight gradient needs.
pub(crate) fn scratch_len(convolution: &Convolution) -> usize {
    slots(Blocks::new(convolution).count()).saturating_mul(ROWS * COLUMNS)
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
    let blocks = Blocks::new(convolution);
    let wished = if convolution.window.taps() == 1 {
        POSITIONS
    } else {
        CHUNK_COLUMNS
    };
    let columns = region
        .columns
        .min(wished.max(POSITIONS / region.rows.min(POSITIONS)));
    let job = Job {
        convolution: *convolution,
        input,
        first,
        cotangent,
        region,
        chunk: [region.rows.min(POSITIONS / columns), columns],
        blocks,
        sums: Shared::new(sums),
        slots: Shared::new(scratch),
    };
    let [rows, columns] = job.chunks();
    Cut::new(blocks.count(), rows * columns, 1, STRIP)
        .run(|part| T::weight_gradient(Task { job: &job, part }));
}

/// The whole gradient.
struct Job<'a, T> {
    convolution: Convolution,
    input: Image<'a, T>,
    first: Position,
    cotangent: Image<'a, T>,
    region: Region,
    /// Rows and columns of a chunk of positions.
    chunk: [usize; 2],
    blocks: Blocks,
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
                let rows = place.taps.product() * place.rows;
                let rows = piece * rows / pieces..(piece + 1) * rows / pieces;
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

    /// Chunks of the region, along rows and columns.
    fn chunks(&self) -> [usize; 2] {
        [
            self.region.rows.div_ceil(self.chunk[0]),
            self.region.columns.div_ceil(self.chunk[1]),
        ]
    }

    fn block(&self, index: usize) -> Block<'_, T> {
        let blocks = self.blocks;
        let convolution = &self.convolution;
        let mut rest = index;
        let mut next = |count: usize| {
            let part = rest % count;
            rest /= count;
            part
        };
        let even = |total: usize, part: usize, parts: usize| {
            part * total / parts..(part + 1) * total / parts
        };
        let output = next(blocks.outputs);
        let input = next(blocks.inputs);
        let kernel = [next(blocks.kernel[0]), next(blocks.kernel[1])];
        Block {
            job: self,
            group: next(blocks.groups),
            kernel: [0, 1].map(|axis| {
                even(
                    convolution.window.kernel[axis],
                    kernel[axis],
                    blocks.kernel[axis],
                )
            }),
            inputs: even(
                convolution.in_channels / convolution.groups,
                input,
                blocks.inputs,
            ),
            outputs: columns(
                convolution.out_channels / convolution.groups,
                output,
                blocks.outputs,
            ),
        }
    }
}

/// Some taps of some input channels, and some output channels, of one group.
struct Block<'a, T> {
    job: &'a Job<'a, T>,
    group: usize,
    kernel: [Range<usize>; 2],
    inputs: Range<usize>,
    outputs: Range<usize>,
}

/// Values on the stack, written before they are read.
#[repr(align(64))]
struct Stack<const BYTES: usize>([MaybeUninit<u8>; BYTES]);

impl<const BYTES: usize> Stack<BYTES> {
    #[inline(always)]
    const fn uninit() -> Self {
        Self([const { MaybeUninit::uninit() }; BYTES])
    }
}

/// One axis of the packed inputs of some positions.
#[derive(Debug, Clone, Copy)]
struct PackedAxis {
    positions: usize,
    /// Inputs that are packed.
    count: usize,
    /// From one packed input to the next, in the image.
    step: usize,
    /// From one position's first tap to the next's, and from one tap to the next, in packed inputs.
    position_step: usize,
    tap_step: usize,
}

impl PackedAxis {
    fn new(positions: usize, taps: usize, stride: usize, dilation: usize) -> Self {
        let (count, step, position_step, tap_step) = if taps == 1 {
            (positions, stride, 1, 1)
        } else if positions == 1 {
            (taps, dilation, 1, 1)
        } else {
            let count = ((positions - 1).saturating_mul(stride))
                .saturating_add((taps - 1).saturating_mul(dilation))
                .saturating_add(1);
            (count, 1, stride, dilation)
        };
        Self {
            positions,
            count,
            step,
            position_step,
            tap_step,
        }
    }
}

impl<T: Element> Block<'_, T> {
    fn place(&self) -> Place {
        let convolution = &self.job.convolution;
        let row_step = convolution.out_channels;
        let depth = convolution.in_channels / convolution.groups;
        let columns = convolution.window.kernel[1];
        let tap = self.kernel[0].start * columns + self.kernel[1].start;
        let width = convolution.out_channels / convolution.groups;
        Place {
            first: (tap * depth + self.inputs.start) * row_step
                + self.group * width
                + self.outputs.start,
            taps: Extent {
                rows: self.kernel[0].len(),
                columns: self.kernel[1].len(),
            },
            tap_steps: [columns * depth * row_step, depth * row_step],
            rows: self.inputs.len(),
            row_step,
            columns: self.outputs.len(),
        }
    }

    /// Sums over some chunks of the region, counted in raster order.
    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, chunks: Range<usize>, target: &Target<'_, T>) {
        let lanes = lanes::<S, T>();
        let place = self.place();
        let mut inputs = Stack::<INPUT_BYTES>::uninit();
        let mut cotangents = Stack::<{ POSITIONS * COLUMNS * size_of::<f64>() }>::uninit();
        let mut sums = Stack::<{ ROWS * COLUMNS * size_of::<f64>() }>::uninit();
        let inputs = inputs.0.as_mut_ptr().cast::<T>();
        let cotangents = cotangents.0.as_mut_ptr().cast::<T>();
        let sums = sums.0.as_mut_ptr().cast::<T>();
        let [height, width] = self.job.chunk;
        let across = self.job.chunks()[1];
        let mut replace = true;
        for chunk in chunks {
            let (row, column) = (chunk / across * height, chunk % across * width);
            let rows = row..(row + height).min(self.job.region.rows);
            let columns = column..(column + width).min(self.job.region.columns);
            let packed = self.packed([rows.len(), columns.len()]);
            let step = packed.map(|axis| axis.positions);
            for row in rows.clone().step_by(step[0]) {
                for column in columns.clone().step_by(step[1]) {
                    let rows = row..(row + step[0]).min(rows.end);
                    let columns = column..(column + step[1]).min(columns.end);
                    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
                    // SAFETY: the stack has room for the packed positions, and for the block's sums; the first positions write
                    // all of them.
                    unsafe {
                        let extent = Extent {
                            rows: rows.len(),
                            columns: columns.len(),
                        };
                        let inputs = self.inputs_in_place(&rows, &columns).unwrap_or_else(|| {
                            self.pack_inputs(simd, &packed, [rows.start, columns.start], inputs)
                        });
                        let cotangents = if self.has_whole_cotangents::<S>() {
                            self.cotangents_in_place(&rows, &columns)
                        } else {
                            self.pack_cotangents(simd, rows, columns, cotangents)
                        };
                        self.multiply(simd, &packed, extent, inputs, cotangents, sums, replace);
                    }
                    replace = false;
                }
            }
        }
        for row in 0..place.taps.product() * place.rows {
            for column in (0..place.columns).step_by(lanes) {
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: all sums were written; this task alone writes the block to the target.
                unsafe {
                    let value = load::<S, T>(simd, sums.add(row * place.pitch() + column));
                    target.take(simd, &place, row, column, value);
                }
            }
        }
    }

    /// How the inputs of at most `positions` are packed: of fewer, where they would take too much room.
    fn packed(&self, positions: [usize; 2]) -> [PackedAxis; 2] {
        let window = self.job.convolution.window;
        let axis = |axis: usize, positions: usize| {
            let taps = self.kernel[axis].len();
            PackedAxis::new(positions, taps, window.stride[axis], window.dilation[axis])
        };
        let [mut rows, mut columns] = positions;
        loop {
            let packed = [axis(0, rows), axis(1, columns)];
            let bytes = packed[0]
                .count
                .saturating_mul(packed[1].count)
                .saturating_mul(self.inputs.len() * size_of::<T>());
            if bytes <= INPUT_BYTES || rows * columns == 1 {
                return packed;
            }
            if rows > 1 {
                rows = rows.div_ceil(2);
            } else {
                columns = columns.div_ceil(2);
            }
        }
    }

    /// Adds the products of all taps over some packed positions.
    ///
    /// # Safety
    /// The positions must be packed, and `sums` have room for the block.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    #[expect(clippy::too_many_arguments, reason = "three matrices and their shapes")]
    unsafe fn multiply<S: Simd>(
        &self,
        simd: S,
        packed: &[PackedAxis; 2],
        extent: Extent,
        inputs: Rows<T>,
        cotangents: Rows<T>,
        sums: *mut T,
        replace: bool,
    ) {
        let place = self.place();
        let pitch = place.pitch();
        let depth = self.inputs.len();
        let row_pitch = packed[1].count * depth;
        // Neighbouring taps of a kernel row lie next to each other.
        let (taps, rows) = if packed[1].tap_step == 1 {
            (1, place.taps.columns * depth)
        } else {
            (place.taps.columns, depth)
        };
        for kernel_row in 0..place.taps.rows {
            for tap in 0..taps {
                let from =
                    kernel_row * packed[0].tap_step * row_pitch + tap * packed[1].tap_step * depth;
                let to = kernel_row * place.taps.columns * depth + tap * rows;
                // SAFETY: as the caller vouches.
                unsafe {
                    multiply(
                        simd,
                        Rows {
                            first: inputs.first.add(from),
                            ..inputs
                        },
                        cotangents,
                        extent,
                        Sums {
                            first: sums.add(to * pitch),
                            pitch,
                            rows,
                            columns: place.columns,
                            replace,
                        },
                    );
                }
            }
        }
    }

    /// The inputs of some positions where a tap reads all channels of each: then they need not be packed.
    #[inline(always)]
    fn inputs_in_place(&self, rows: &Range<usize>, columns: &Range<usize>) -> Option<Rows<T>> {
        let job = self.job;
        let window = job.convolution.window;
        let input = job.input;
        if window.taps() > 1 || self.inputs.len() < input.channels() {
            return None;
        }
        let at = |axis: usize, first: isize, position: usize, extent: usize| {
            let position = first + signed(position) * signed(window.stride[axis]);
            usize::try_from(position).ok().filter(|&at| at < extent)
        };
        let row = at(0, job.first.row, rows.start, input.height())?;
        let column = at(1, job.first.column, columns.start, input.width())?;
        at(0, job.first.row, rows.end - 1, input.height())?;
        at(1, job.first.column, columns.end - 1, input.width())?;
        let pixel = row * input.width() + column;
        Some(Rows {
            first: input.data()[pixel * input.channels()..].as_ptr(),
            row_pitch: window.stride[0] * input.width() * input.channels(),
            pitch: window.stride[1] * input.channels(),
        })
    }

    /// Whether the block has all channels of the cotangents, in whole registers: then they need not be packed.
    #[inline(always)]
    fn has_whole_cotangents<S: Simd>(&self) -> bool {
        let channels = self.job.convolution.out_channels;
        self.outputs.len() == channels && channels.is_multiple_of(lanes::<S, T>())
    }

    #[inline(always)]
    fn cotangents_in_place(&self, rows: &Range<usize>, columns: &Range<usize>) -> Rows<T> {
        let cotangent = self.job.cotangent;
        let region = self.job.region;
        let row = region.row + rows.start;
        let pixel = row * cotangent.width() + region.column + columns.start;
        Rows {
            first: cotangent.data()[pixel * cotangent.channels()..].as_ptr(),
            row_pitch: cotangent.width() * cotangent.channels(),
            pitch: cotangent.channels(),
        }
    }

    /// Copies the cotangents of some positions; what fills up the last register of a position is zero.
    ///
    /// # Safety
    /// `packed` must have room for all positions.
    #[inline(always)]
    #[expect(unsafe_code, reason = "packing addresses memory by pointer")]
    unsafe fn pack_cotangents<S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        columns: Range<usize>,
        packed: *mut T,
    ) -> Rows<T> {
        let job = self.job;
        let lanes = lanes::<S, T>();
        let channels = job.convolution.out_channels;
        let first = self.group * (channels / job.convolution.groups) + self.outputs.start;
        let pitch = self.place().pitch();
        let mut to = packed;
        let row_pitch = columns.len() * pitch;
        for row in rows {
            let pixel = (job.region.row + row) * job.cotangent.width() + job.region.column;
            let mut from = job.cotangent.data()[(pixel + columns.start) * channels..].as_ptr();
            for _ in columns.clone() {
                for column in (0..self.outputs.len()).step_by(lanes) {
                    let count = lanes.min(self.outputs.len() - column);
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
        Rows {
            first: packed,
            row_pitch,
            pitch,
        }
    }

    /// Copies the inputs under the windows of the positions from `position` on; padding is zero.
    ///
    /// # Safety
    /// `inputs` must have room for all packed inputs.
    #[inline(always)]
    #[expect(unsafe_code, reason = "packing addresses memory by pointer")]
    unsafe fn pack_inputs<S: Simd>(
        &self,
        simd: S,
        packed: &[PackedAxis; 2],
        position: [usize; 2],
        inputs: *mut T,
    ) -> Rows<T> {
        let job = self.job;
        let window = job.convolution.window;
        let origin = [job.first.row, job.first.column];
        let first = [0, 1].map(|axis: usize| {
            origin[axis]
                + signed(position[axis]) * signed(window.stride[axis])
                + signed(self.kernel[axis].start) * signed(window.dilation[axis])
        });
        let channels = job.convolution.in_channels;
        let group = self.group * (channels / job.convolution.groups);
        let depth = self.inputs.len();
        let data = job.input.data()[group + self.inputs.start..].as_ptr();
        let [rows, columns] = packed;
        let width = columns.count * depth;
        // Where no channels are left out, a row is one piece of memory.
        let whole = depth == channels && columns.step == 1;
        let inside = super::steps_inside(
            first[1],
            signed(columns.step),
            job.input.width(),
            0..columns.count,
        );
        let mut to = inputs;
        for row in 0..rows.count {
            let row = first[0] + signed(row) * signed(rows.step);
            // SAFETY: the columns inside exist, in rows that do; the caller vouches for the target.
            unsafe {
                match usize::try_from(row) {
                    Ok(row) if row < job.input.height() && !inside.is_empty() => {
                        clear(to, inside.start * depth);
                        let column = first[1] + signed(inside.start) * signed(columns.step);
                        let from = row * job.input.width() + column.unsigned_abs();
                        let from = data.wrapping_add(from * channels);
                        let first = to.wrapping_add(inside.start * depth);
                        if whole {
                            copy(simd, from, first, inside.len() * depth);
                        } else {
                            let step = columns.step * channels;
                            for column in 0..inside.len() {
                                let from = from.wrapping_add(column * step);
                                copy(simd, from, first.wrapping_add(column * depth), depth);
                            }
                        }
                        let end = inside.end * depth;
                        clear(to.wrapping_add(end), width - end);
                    }
                    _ => clear(to, width),
                }
            }
            to = to.wrapping_add(width);
        }
        Rows {
            first: inputs,
            row_pitch: rows.position_step * width,
            pitch: columns.position_step * depth,
        }
    }
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
    // SAFETY: as the caller vouches; a zero's bytes are all zero.
    unsafe { to.write_bytes(0, count) };
}

const _: () = assert!(COLUMNS.is_multiple_of(ALIGNMENT));
