//! Packing: the inputs under the windows of a few positions, and their cotangents, side by side.

use std::ops::Range;

use pulp::Simd;

use super::{Block, INPUT_BYTES};
use crate::Storage;
use crate::bounds::holds;
use crate::element::sealed::{lanes, load_some, store_some};
use crate::gather::zeros;
use crate::integers::signed;
use crate::integers::steps_inside;
use crate::stack::ALIGNMENT;
use crate::weight_gradient::product::Rows;

/// One axis of the packed inputs of some positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedAxis {
    pub(super) positions: usize,
    /// Inputs that are packed.
    pub(super) count: usize,
    /// From one packed input to the next, in the image.
    step: usize,
    /// From one position's first tap to the next's, and from one tap to the next, in packed inputs.
    position_step: usize,
    pub(super) tap_step: usize,
    /// Whether an input serves several taps.
    is_shared: bool,
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
            is_shared: taps > 1,
        }
    }

    /// Places of a packed row. At each lie an input and, beside it, what the tap that reads it reads of the other positions of a
    /// step: as long as it serves one tap, inputs are first in a step or beside another.
    #[inline(always)]
    pub(super) fn places<E: Storage>(&self) -> usize {
        self.count.div_ceil(self.inputs_of_place::<E>())
    }

    /// Inputs from the first of one place to the first of the next.
    #[inline(always)]
    fn inputs_of_place<E: Storage>(&self) -> usize {
        if self.is_shared { 1 } else { E::TERMS }
    }

    /// From the place of one step's first tap to that of the next's.
    #[inline(always)]
    fn step_places<E: Storage>(&self) -> usize {
        self.position_step * E::TERMS / self.inputs_of_place::<E>()
    }
}

impl<E: Storage> Block<'_, E> {
    /// How the inputs of at most `positions` are packed: of fewer, where they would take too much room.
    pub(super) fn packed(&self, positions: [usize; 2]) -> [PackedAxis; 2] {
        let window = self.job.convolution.window;
        let axis = |axis: usize, positions: usize| {
            let taps = self.kernel[axis].len();
            PackedAxis::new(positions, taps, window.stride[axis], window.dilation[axis])
        };
        let [mut rows, mut columns] = positions;
        loop {
            let packed = [axis(0, rows), axis(1, columns)];
            if self.packed_bytes(&packed) <= INPUT_BYTES || rows * columns == 1 {
                return packed;
            }
            if rows > 1 {
                rows = rows.div_ceil(2);
            } else {
                columns = columns.div_ceil(2);
            }
        }
    }

    /// Bytes of packed inputs.
    pub(super) fn packed_bytes(&self, packed: &[PackedAxis; 2]) -> usize {
        packed[0]
            .count
            .saturating_mul(packed[1].places::<E>())
            .saturating_mul(self.inputs.len() * E::TERMS * size_of::<E>())
    }

    /// The inputs of some positions where a tap reads all channels of each: then they need not be packed.
    #[inline(always)]
    pub(super) fn inputs_in_place(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> Option<Rows<E>> {
        let job = self.job;
        let window = job.convolution.window;
        let input = job.input;
        if E::TERMS > 1 || window.taps() > 1 || self.inputs.len() < input.channels() {
            return None;
        }
        let at = |axis: usize, first: isize, position: usize, extent: usize| {
            let position = first + signed(position) * signed(window.stride[axis]);
            usize::try_from(position).ok().filter(|&at| at < extent)
        };
        let row = at(0, job.first[0], rows.start, input.height())?;
        let column = at(1, job.first[1], columns.start, input.width())?;
        at(0, job.first[0], rows.end - 1, input.height())?;
        at(1, job.first[1], columns.end - 1, input.width())?;
        let pixel = row * input.pitch() + column;
        let found = Rows {
            first: input.data()[pixel * input.channels()..].as_ptr(),
            row_pitch: window.stride[0] * input.pitch() * input.channels(),
            pitch: window.stride[1] * input.channels(),
        };
        debug_assert!(found.are_in(input.data(), [rows, columns], input.channels()));
        Some(found)
    }

    /// Whether a part of the block has all channels of the cotangents, in whole registers: then they need not be packed.
    #[inline(always)]
    pub(super) fn has_whole_cotangents<S: Simd>(&self, part: &Range<usize>) -> bool {
        let channels = self.job.convolution.out_channels;
        E::TERMS == 1 && part.len() == channels && channels.is_multiple_of(lanes::<S, E>())
    }

    #[inline(always)]
    pub(super) fn cotangents_in_place(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> Rows<E> {
        let cotangent = self.job.cotangent;
        let pixel = rows.start * cotangent.pitch() + columns.start;
        let found = Rows {
            first: cotangent.data()[pixel * cotangent.channels()..].as_ptr(),
            row_pitch: cotangent.pitch() * cotangent.channels(),
            pitch: cotangent.channels(),
        };
        debug_assert!(found.are_in(cotangent.data(), [rows, columns], cotangent.channels()));
        found
    }

    /// Copies a part of the block's cotangents of some positions; what fills up the last register of a position is zero.
    ///
    /// # Safety
    /// `packed` must have room for all positions.
    #[inline(always)]
    #[expect(unsafe_code, reason = "packing addresses memory by pointer")]
    pub(super) unsafe fn pack_cotangents<S: Simd>(
        &self,
        simd: S,
        rows: &Range<usize>,
        columns: &Range<usize>,
        part: &Range<usize>,
        packed: *mut E,
    ) -> Rows<E> {
        let job = self.job;
        let lanes = lanes::<S, E>();
        let channels = job.convolution.out_channels;
        let first =
            self.group * (channels / job.convolution.groups) + self.outputs.start + part.start;
        let pitch = part.len().next_multiple_of(ALIGNMENT) * E::TERMS;
        let mut to = packed;
        let row_pitch = columns.len().div_ceil(E::TERMS) * pitch;
        for row in rows.clone() {
            let pixel = row * job.cotangent.pitch();
            let mut from = job.cotangent.data()[(pixel + columns.start) * channels..].as_ptr();
            if E::TERMS > 1 {
                for column in columns.clone().step_by(E::TERMS) {
                    let terms = columns.end - column;
                    // SAFETY: the positions lie in the cotangent; the caller vouches for the target.
                    unsafe {
                        let rows = rows_of(from.add(first), channels, terms);
                        E::interleave(simd, rows, to, part.len());
                        let length = part.len() * E::TERMS;
                        clear(to.wrapping_add(length), pitch - length);
                    }
                    from = from.wrapping_add(channels * E::TERMS);
                    to = to.wrapping_add(pitch);
                }
                continue;
            }
            for _ in columns.clone() {
                debug_assert!(holds(
                    job.cotangent.data(),
                    from.wrapping_add(first),
                    part.len()
                ));
                for column in (0..part.len()).step_by(lanes) {
                    let count = lanes.min(part.len() - column);
                    // SAFETY: the position lies in the cotangent; the caller vouches for the target.
                    unsafe {
                        let value = load_some::<S, E>(simd, from.add(first + column), count);
                        store_some::<S, E>(simd, to.add(column), lanes, value);
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
    pub(super) unsafe fn pack_inputs<S: Simd>(
        &self,
        simd: S,
        packed: &[PackedAxis; 2],
        position: [usize; 2],
        inputs: *mut E,
    ) -> Rows<E> {
        let job = self.job;
        let window = job.convolution.window;
        let first = [0, 1].map(|axis: usize| {
            job.first[axis]
                + signed(position[axis]) * signed(window.stride[axis])
                + signed(self.kernel[axis].start) * signed(window.dilation[axis])
        });
        let channels = job.convolution.in_channels;
        let group = self.group * (channels / job.convolution.groups);
        let depth = self.inputs.len();
        let data = job.input.data()[group + self.inputs.start..].as_ptr();
        let [rows, columns] = packed;
        let places = columns.places::<E>();
        let width = places * depth * E::TERMS;
        // Where no channels are left out, a row is one piece of memory.
        let whole = depth == channels && columns.step == 1;
        let inside = steps_inside(
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
                    Ok(row) if E::TERMS > 1 && row < job.input.height() && !inside.is_empty() => {
                        let column = |index: usize| {
                            let index = inside.contains(&index).then_some(index)?;
                            let column = first[1] + signed(index) * signed(columns.step);
                            let pixel = row * job.input.pitch() + column.unsigned_abs();
                            Some(data.wrapping_add(pixel * channels))
                        };
                        for place in 0..places {
                            let index = place * columns.inputs_of_place::<E>();
                            let rows = [column(index), column(index + columns.position_step)];
                            let rows = rows.map(|row| row.unwrap_or(zeros()));
                            let to = to.wrapping_add(place * depth * E::TERMS);
                            E::interleave(simd, rows, to, depth);
                        }
                    }
                    Ok(row) if row < job.input.height() && !inside.is_empty() => {
                        clear(to, inside.start * depth);
                        let column = first[1] + signed(inside.start) * signed(columns.step);
                        let from = row * job.input.pitch() + column.unsigned_abs();
                        let from = data.wrapping_add(from * channels);
                        let first = to.wrapping_add(inside.start * depth);
                        let last = from.wrapping_add((inside.len() - 1) * columns.step * channels);
                        debug_assert!([from, last].iter().all(|&from| holds(
                            job.input.data(),
                            from,
                            depth
                        )));
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
            pitch: columns.step_places::<E>() * depth * E::TERMS,
        }
    }
}

/// The values of two positions of a row from `first` on, `pitch` apart, of which the second may not exist: `count` do.
#[inline(always)]
fn rows_of<E: Storage>(first: *const E, pitch: usize, count: usize) -> [*const E; 2] {
    let second = if count > 1 {
        first.wrapping_add(pitch)
    } else {
        zeros()
    };
    [first, second]
}

/// # Safety
/// `from` must be valid for reading `count` values, and `to` for writing them.
#[inline(always)]
#[expect(unsafe_code, reason = "packing addresses memory by pointer")]
unsafe fn copy<S: Simd, E: Storage>(simd: S, from: *const E, to: *mut E, count: usize) {
    let lanes = lanes::<S, E>();
    for first in (0..count).step_by(lanes) {
        let count = lanes.min(count - first);
        // SAFETY: as the caller vouches.
        unsafe {
            let value = load_some::<S, E>(simd, from.add(first), count);
            store_some::<S, E>(simd, to.add(first), count, value);
        }
    }
}

/// # Safety
/// `to` must be valid for writing `count` values.
#[inline(always)]
#[expect(unsafe_code, reason = "packing addresses memory by pointer")]
unsafe fn clear<E: Storage>(to: *mut E, count: usize) {
    // SAFETY: as the caller vouches; a zero's bytes are all zero.
    unsafe { to.write_bytes(0, count) };
}
