//! Depthwise weight gradients: each input channel times its own cotangent.
//!
//! A task takes some channels through the rows of a strip. A row of cotangents stays in the first-level cache while all kernel
//! rows pass, and the rows of inputs that it meets stay in the second for the rows to come.

use std::ops::Range;

use pulp::Simd;

use super::cut::{
    Blocked, Cut, Destination, Place, Summed, Target, Task, columns, scratch_for, slots,
};
use super::operands::Operands;
use super::product::Extent;
use crate::bounds::holds;
use crate::element::sealed::{
    Family, Register, Stored, Vectors, for_each_number, lanes, load, load_some, store, zero,
};
use crate::integers::signed;
use crate::integers::steps_inside;
use crate::{Convolution, Storage, View};

/// Channels of a block: at least two registers.
const CHANNELS: usize = 32;

/// Kernel positions of a block.
const TAPS: usize = 64;

/// Taps of a kernel row that are summed in registers at a time.
const ROW_TAPS: usize = 8;

/// Positions that share the inputs that they load, where they lie as far apart as taps.
const SHARED: usize = 4;

/// Positions of the longest sum in the element's own precision, if a row is not longer.
const STRIP: usize = 1024;

fn blocks(convolution: &Convolution) -> [usize; 2] {
    [
        convolution.window.taps().div_ceil(TAPS),
        convolution.out_channels.div_ceil(CHANNELS),
    ]
}

/// Values of scratch that a weight gradient needs.
pub(crate) fn scratch_len<E: Storage>(convolution: &Convolution) -> usize {
    let [taps, channels] = blocks(convolution);
    scratch_for::<E>(slots(taps.saturating_mul(channels)).saturating_mul(TAPS * CHANNELS))
}

/// Adds the weight gradient to `sums`, laid out `[kernel row][kernel column][channel]`.
pub(super) fn weight_gradient<E: Storage>(
    operands: Operands<'_, E>,
    sums: &mut [f64],
    scratch: &mut [E],
) {
    let Operands {
        convolution,
        input,
        cotangent,
        first,
    } = operands;
    let window = convolution.window;
    let [tap_blocks, channel_blocks] = blocks(convolution);
    let job = Job {
        input,
        first,
        cotangent,
        stride: window.stride.map(signed),
        dilation: window.dilation.map(signed),
        kernel: window.kernel,
        tap_blocks,
        channel_blocks,
    };
    let destination = Destination::new::<E>(sums, scratch, TAPS * CHANNELS);
    let longest = (STRIP / cotangent.width()).max(1);
    Cut::new(tap_blocks * channel_blocks, cotangent.height(), 1, longest).run(|part| {
        E::run::<PerChannel>(Task {
            job: &job,
            destination: &destination,
            part,
        });
    });
}

/// The whole gradient.
struct Job<'a, E: Storage> {
    input: View<'a, E>,
    first: [isize; 2],
    cotangent: View<'a, E>,
    stride: [isize; 2],
    dilation: [isize; 2],
    kernel: [usize; 2],
    tap_blocks: usize,
    channel_blocks: usize,
}

/// The family of this gradient's tasks.
struct PerChannel;

impl Family for PerChannel {
    type Task<'a, E: Storage> = Task<'a, E, Job<'a, E>>;

    for_each_number!(|task, Number| Number::dispatch(task));
}

impl<E: Storage> Blocked<E> for Job<'_, E> {
    type Block<'a>
        = Block<'a, E>
    where
        Self: 'a;

    fn block(&self, index: usize) -> Block<'_, E> {
        let (tap, channel) = (index / self.channel_blocks, index % self.channel_blocks);
        let taps = self.kernel[0] * self.kernel[1];
        Block {
            job: self,
            taps: tap * taps / self.tap_blocks..(tap + 1) * taps / self.tap_blocks,
            channels: columns(self.input.channels(), channel, self.channel_blocks),
        }
    }
}

/// Some taps of some channels.
struct Block<'a, E: Storage> {
    job: &'a Job<'a, E>,
    /// In raster order.
    taps: Range<usize>,
    channels: Range<usize>,
}

/// Taps of a block that lie in one kernel row.
#[derive(Clone)]
struct RowTaps {
    kernel_row: usize,
    columns: Range<usize>,
    /// Place of the first in the block.
    place: usize,
}

/// Sums of a block on the stack.
#[repr(align(64))]
struct Stack<T>([[T; CHANNELS]; TAPS]);

impl<E: Storage> Summed<E> for Block<'_, E> {
    fn place(&self) -> Place {
        let channels = self.job.input.channels();
        Place {
            first: self.taps.start * channels + self.channels.start,
            taps: Extent {
                rows: 1,
                columns: self.taps.len(),
            },
            tap_steps: [0, channels],
            rows: 1,
            row_step: 0,
            columns: self.channels.len(),
        }
    }

    /// Sums over some rows of the cotangents.
    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, rows: Range<usize>, target: &Target<'_, E::Compute>) {
        let lanes = lanes::<S, E>();
        let mut sums = Stack([[E::Compute::ZERO; CHANNELS]; TAPS]);
        for row in rows {
            for taps in self.row_taps() {
                let channels = self.channels.len();
                let mut channel = 0;
                // Two registers at a time, if both are whole.
                while channel < channels {
                    let step = if channels - channel >= 2 * lanes {
                        2
                    } else {
                        1
                    };
                    let count = (step * lanes).min(channels - channel);
                    let view = RowView {
                        block: self,
                        row,
                        taps: &taps,
                        channel,
                        width: count,
                    };
                    if step == 2 {
                        view.by_taps::<S, 2>(simd, &mut sums);
                    } else {
                        view.by_taps::<S, 1>(simd, &mut sums);
                    }
                    channel += count;
                }
            }
        }
        let place = self.place();
        for (tap, sums) in sums.0.iter().enumerate().take(self.taps.len()) {
            for column in (0..place.columns).step_by(lanes) {
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: this task alone writes the block to the target.
                unsafe {
                    let value = load::<S, E::Compute>(simd, sums.as_ptr().add(column));
                    target.take(simd, &place, tap, column, value);
                }
            }
        }
    }
}

impl<E: Storage> Block<'_, E> {
    /// The block's taps by kernel row, at most [`ROW_TAPS`] at a time.
    #[inline(always)]
    fn row_taps(&self) -> impl Iterator<Item = RowTaps> + use<E> {
        let width = self.job.kernel[1];
        let taps = self.taps.clone();
        let mut next = taps.start;
        std::iter::from_fn(move || {
            let (kernel_row, column) = (next / width, next % width);
            let count = (width - column).min(taps.end - next).min(ROW_TAPS);
            let place = next - taps.start;
            next += count;
            (count > 0).then_some(RowTaps {
                kernel_row,
                columns: column..column + count,
                place,
            })
        })
    }
}

/// One row of cotangents, some taps of one kernel row, and the channels of a few registers.
struct RowView<'a, E: Storage> {
    block: &'a Block<'a, E>,
    row: usize,
    taps: &'a RowTaps,
    /// First channel in the block.
    channel: usize,
    /// Channels that exist.
    width: usize,
}

impl<E: Storage> RowView<'_, E> {
    #[inline(always)]
    fn by_taps<S: Simd, const VECTORS: usize>(&self, simd: S, sums: &mut Stack<E::Compute>) {
        match self.taps.columns.len() {
            1 => self.add::<S, VECTORS, 1>(simd, sums),
            2 => self.add::<S, VECTORS, 2>(simd, sums),
            3 => self.add::<S, VECTORS, 3>(simd, sums),
            4 => self.add::<S, VECTORS, 4>(simd, sums),
            5 => self.add::<S, VECTORS, 5>(simd, sums),
            6 => self.add::<S, VECTORS, 6>(simd, sums),
            7 => self.add::<S, VECTORS, 7>(simd, sums),
            _ => self.add::<S, VECTORS, ROW_TAPS>(simd, sums),
        }
    }

    #[inline(always)]
    fn add<S: Simd, const VECTORS: usize, const COUNT: usize>(
        &self,
        simd: S,
        stack: &mut Stack<E::Compute>,
    ) {
        let job = self.block.job;
        let lanes = lanes::<S, E>();
        let (width, channels) = (job.input.width(), job.input.channels());
        let pitches = [job.input.pitch(), job.cotangent.pitch()];
        let input_row = job.first[0]
            + signed(self.taps.kernel_row) * job.dilation[0]
            + signed(self.row) * job.stride[0];
        if input_row < 0 || input_row >= signed(job.input.height()) {
            return;
        }
        let channel = self.block.channels.start + self.channel;
        let column_of = |tap: usize, column: usize| {
            let tap = signed(self.taps.columns.start + tap);
            job.first[1] + tap * job.dilation[1] + signed(column) * job.stride[1]
        };
        let input = |tap: usize, column: usize| {
            let pixel = input_row * signed(pitches[0]) + column_of(tap, column);
            let from = pixel * signed(channels) + signed(channel);
            job.input.data().as_ptr().wrapping_offset(from)
        };
        let cotangent = |column: usize| {
            let from = (self.row * pitches[1] + column) * channels + channel;
            job.cotangent.data().as_ptr().wrapping_add(from)
        };
        let inside = |tap: usize| {
            let all = 0..job.cotangent.width();
            steps_inside(column_of(tap, 0), job.stride[1], width, all)
        };
        let (low, high) = (inside(0), inside(COUNT - 1));
        let all = high.start.max(low.start)..low.end.min(high.end);
        let columns = 0..job.cotangent.width();
        let all = if all.is_empty() {
            columns.end..columns.end
        } else {
            all
        };
        let steps = Steps {
            cotangent: channels,
            input: job.stride[1] * signed(channels),
            tap: job.dilation[1] * signed(channels),
            last: self.width - (VECTORS - 1) * lanes,
        };
        debug_assert!(self.channel + VECTORS * lanes <= stack.0[0].len());
        let is_there = |tap: usize, column: usize| {
            holds(job.input.data(), input(tap, column), self.width)
                && holds(job.cotangent.data(), cotangent(column), self.width)
        };
        let ends = [all.start, all.end.max(1) - 1];
        debug_assert!(
            all.is_empty() || (0..COUNT).all(|tap| ends.iter().all(|&end| is_there(tap, end)))
        );
        #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
        // SAFETY: the stack has room for the block; every tap of the columns in `all` exists, and of the others those that are
        // not skipped.
        unsafe {
            let mut sums = [[zero::<S, E>(simd); VECTORS]; COUNT];
            let place =
                |tap: usize, vector: usize| (self.taps.place + tap, self.channel + vector * lanes);
            for (tap, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    let (tap, channel) = place(tap, vector);
                    *sum = load::<S, E::Compute>(simd, stack.0[tap].as_ptr().add(channel));
                }
            }
            for column in (columns.start..all.start).chain(all.end..columns.end) {
                for (tap, sums) in sums.iter_mut().enumerate() {
                    let source = column_of(tap, column);
                    if source < 0 || source >= signed(width) {
                        continue;
                    }
                    debug_assert!(is_there(tap, column));
                    let (from, to) = (input(tap, column), cotangent(column));
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        let first = vector * lanes;
                        let count = lanes.min(self.width - first);
                        let value = load_some::<S, E>(simd, from.add(first), count);
                        let factor = load_some::<S, E>(simd, to.add(first), count);
                        *sum = E::Compute::mul_add(simd, value, factor, *sum);
                    }
                }
            }
            if !all.is_empty() {
                let (from, to) = (input(0, all.start), cotangent(all.start));
                accumulate(simd, &mut sums, from, to, all.len(), &steps);
            }
            for (tap, sums) in sums.iter().enumerate() {
                for (vector, &sum) in sums.iter().enumerate() {
                    let (tap, channel) = place(tap, vector);
                    store::<S, E::Compute>(simd, stack.0[tap].as_mut_ptr().add(channel), sum);
                }
            }
        }
    }
}

/// Distances in memory.
struct Steps {
    /// From one position's cotangent to the next.
    cotangent: usize,
    /// From one position's input to the next.
    input: isize,
    /// From one tap's input to the next.
    tap: isize,
    /// Lanes of the last register that exist.
    last: usize,
}

/// Adds, for `count` positions, each tap's inputs times the cotangents.
///
/// # Safety
/// All of them must exist.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
unsafe fn accumulate<S: Simd, E: Storage, const VECTORS: usize, const COUNT: usize>(
    simd: S,
    sums: &mut [[Register<E, S>; VECTORS]; COUNT],
    input: *const E,
    cotangent: *const E,
    count: usize,
    steps: &Steps,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        if steps.last == lanes::<S, E>() {
            let load = |from| load::<S, E>(simd, from);
            accumulate_by(simd, sums, input, cotangent, count, steps, load);
        } else {
            let load = |from| load_some::<S, E>(simd, from, steps.last);
            accumulate_by(simd, sums, input, cotangent, count, steps, load);
        }
    }
}

/// # Safety
/// As for [`accumulate`].
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
unsafe fn accumulate_by<S: Simd, E: Storage, const VECTORS: usize, const COUNT: usize>(
    simd: S,
    sums: &mut [[Register<E, S>; VECTORS]; COUNT],
    mut input: *const E,
    mut cotangent: *const E,
    count: usize,
    steps: &Steps,
    load_last: impl Fn(*const E) -> Register<E, S>,
) {
    let lanes = lanes::<S, E>();
    let load = |from: *const E, vector: usize| {
        if vector + 1 == VECTORS {
            load_last(from.wrapping_add(vector * lanes))
        } else {
            // SAFETY: as the caller vouches.
            unsafe { load::<S, E>(simd, from.wrapping_add(vector * lanes)) }
        }
    };
    // A local copy is what the compiler keeps in registers.
    let mut local = *sums;
    let mut left = count;
    // What is loaded is shared, if sums, cotangents and a value fit in the registers.
    if S::REGISTER_COUNT >= 32 && steps.input == steps.tap {
        while left >= SHARED {
            let mut factors = [[zero::<S, E>(simd); SHARED]; VECTORS];
            for position in 0..SHARED {
                for (vector, factors) in factors.iter_mut().enumerate() {
                    factors[position] = load(cotangent, vector);
                }
                cotangent = cotangent.wrapping_add(steps.cotangent);
            }
            let mut from = input;
            // Unrolled by hand: the compiler keeps sums in registers only where it knows all indices.
            macro_rules! meet {
                ($($place:literal)*) => {
                    $(if $place < SHARED + COUNT - 1 {
                        for vector in 0..VECTORS {
                            let value = load(from, vector);
                            for (position, &factor) in factors[vector].iter().enumerate() {
                                if position <= $place && $place - position < COUNT {
                                    let sum = &mut local[$place - position][vector];
                                    *sum = E::Compute::mul_add(simd, value, factor, *sum);
                                }
                            }
                        }
                        from = from.wrapping_offset(steps.tap);
                    })*
                };
            }
            meet!(0 1 2 3 4 5 6 7 8 9 10);
            input = input.wrapping_offset(signed(SHARED) * steps.input);
            left -= SHARED;
        }
    }
    for _ in 0..left {
        for vector in 0..VECTORS {
            let factor = load(cotangent, vector);
            let mut from = input;
            for sums in &mut local {
                sums[vector] = E::Compute::mul_add(simd, load(from, vector), factor, sums[vector]);
                from = from.wrapping_offset(steps.tap);
            }
        }
        input = input.wrapping_offset(steps.input);
        cotangent = cotangent.wrapping_add(steps.cotangent);
    }
    *sums = local;
}
