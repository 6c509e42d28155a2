//! Depthwise gathers: each channel times weights of its own.
//!
//! A register holds some channels of one position. Where one position lies as far from the next as one tap from the next,
//! along rows and columns, a block of positions of two rows shares what it loads: a source value meets all taps of a kernel row, whose
//! weights wait in registers, and adds to as many sums. So there is one load for some four multiply-adds, where each tap of
//! each position alone would need one, and enough independent sums to hide the latency of an addition.
//!
//! Each value is summed in one order, wherever its block lies.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{CHUNK_PIXELS, Existing, Gather, TASK_PRODUCTS};
use crate::bounds::holds;
use crate::element::sealed::{
    Family, Register, Stored, Vectors, for_each_number, lanes, load, load_some, store, store_some,
    zero,
};
use crate::integers::signed;
use crate::integers::steps_inside;
use crate::parallel::parallel_for;
use crate::shared::Shared;
use crate::stack::Aligned;
use crate::weights::Panel;
use crate::{Activation, Storage};

/// Rows of a block.
const ROWS: usize = 2;

/// Most source values that a block meets in one row.
const MOST_SOURCES: usize = 16;

impl<E: Storage> Gather<'_, E> {
    /// Runs a depthwise gather in the current rayon pool. The work is cut by its geometry alone.
    pub(super) fn run_depthwise(&self, target: &Shared<'_, E>) {
        let (rows, columns) = (self.rows.targets, self.columns.targets);
        let width = columns.min(CHUNK_PIXELS);
        let height = (CHUNK_PIXELS / width).next_multiple_of(ROWS);
        let layout = self.weights.layout;
        let per_panel = (width * height)
            .saturating_mul(self.rows.taps * self.columns.taps)
            .saturating_mul(layout.width.div_ceil(layout.panels));
        let step = (TASK_PRODUCTS / per_panel.max(1)).clamp(1, layout.panels);
        let across = columns.div_ceil(width);
        let panel_tasks = layout.panels.div_ceil(step);
        let tasks = rows.div_ceil(height) * across * panel_tasks;
        parallel_for((0..tasks).into_par_iter(), |task| {
            let (place, panel) = (task / panel_tasks, task % panel_tasks * step);
            let (row, column) = (place / across * height, place % across * width);
            E::run::<Depthwise>(DepthwiseTask {
                gather: self,
                target,
                rows: row..(row + height).min(rows),
                columns: column..(column + width).min(columns),
                panels: panel..(panel + step).min(layout.panels),
            });
        });
    }
}

/// A rectangle of positions times some panels: no two tasks share both.
pub(crate) struct DepthwiseTask<'a, E: Storage> {
    gather: &'a Gather<'a, E>,
    target: &'a Shared<'a, E>,
    rows: Range<usize>,
    columns: Range<usize>,
    panels: Range<usize>,
}

/// The family of [`DepthwiseTask`].
struct Depthwise;

impl Family for Depthwise {
    type Task<'a, E: Storage> = DepthwiseTask<'a, E>;

    for_each_number!(|task, Number| Number::dispatch(task));
}

impl<E: Storage> WithSimd for DepthwiseTask<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let gather = self.gather;
        let lanes = lanes::<S, E>();
        for index in self.panels.clone() {
            let panel = gather.weights.layout.panel(index);
            for first in (0..panel.width).step_by(lanes) {
                let strip = Strip {
                    gather,
                    target: self.target,
                    panel,
                    first,
                    count: lanes.min(panel.width - first),
                };
                // Sums, weights and a source value fit in the registers.
                if S::REGISTER_COUNT >= 32 {
                    strip.run::<S, 8, 16>(simd, &self);
                } else {
                    strip.run::<S, 4, 8>(simd, &self);
                }
            }
        }
    }
}

/// The channels of one register.
struct Strip<'a, E: Storage> {
    gather: &'a Gather<'a, E>,
    target: &'a Shared<'a, E>,
    panel: Panel,
    /// First channel in the panel.
    first: usize,
    /// Channels that exist.
    count: usize,
}

/// Where a block of positions begins, and how many of each row exist.
#[derive(Clone, Copy)]
struct Block {
    row: usize,
    column: usize,
    count: usize,
}

impl<E: Storage> Strip<'_, E> {
    /// Does blocks of two rows of `SLIDING` positions where these slide over the source, and of one row of `OTHERS` elsewhere.
    #[inline(always)]
    fn run<S: Simd, const SLIDING: usize, const OTHERS: usize>(
        &self,
        simd: S,
        task: &DepthwiseTask<'_, E>,
    ) {
        let (rows, columns) = (&self.gather.rows, &self.gather.columns);
        let slides = rows.source_step == rows.tap_step && columns.source_step == columns.tap_step;
        match columns.taps {
            taps if slides && taps.is_multiple_of(7) => {
                self.blocks::<S, 7, ROWS, SLIDING>(simd, task);
            }
            taps if slides && taps.is_multiple_of(5) => {
                self.blocks::<S, 5, ROWS, SLIDING>(simd, task);
            }
            taps if slides && taps.is_multiple_of(3) => {
                self.blocks::<S, 3, ROWS, SLIDING>(simd, task);
            }
            _ => self.blocks::<S, 1, 1, OTHERS>(simd, task),
        }
    }

    #[inline(always)]
    fn blocks<S: Simd, const TAPS: usize, const ROWS: usize, const POSITIONS: usize>(
        &self,
        simd: S,
        task: &DepthwiseTask<'_, E>,
    ) {
        for row in task.rows.clone().step_by(ROWS) {
            for column in task.columns.clone().step_by(POSITIONS) {
                let count = POSITIONS.min(task.columns.end - column);
                let block = Block { row, column, count };
                if row + ROWS <= task.rows.end {
                    self.block::<S, TAPS, ROWS, POSITIONS>(simd, block);
                } else {
                    self.block::<S, TAPS, 1, POSITIONS>(simd, block);
                }
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, const TAPS: usize, const ROWS: usize, const POSITIONS: usize>(
        &self,
        simd: S,
        block: Block,
    ) {
        let rows = &self.gather.rows;
        let mut sums = [[zero::<S, E>(simd); POSITIONS]; ROWS];
        for tap in (0..self.gather.columns.taps).step_by(TAPS) {
            let mut sources = Sources::<E, S, TAPS, POSITIONS>::new(simd, self, block, tap);
            #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
            // SAFETY: all kernel rows exist that are met.
            unsafe {
                if ROWS == 1 {
                    for row in 0..rows.taps {
                        sources.meet::<ROWS, 0, 1>(simd, row, &mut sums);
                    }
                } else {
                    sources.meet::<ROWS, 0, 1>(simd, 0, &mut sums);
                    for row in 1..rows.taps {
                        sources.meet::<ROWS, 0, 2>(simd, row, &mut sums);
                    }
                    sources.meet::<ROWS, 1, 2>(simd, rows.taps, &mut sums);
                }
            }
        }
        // Apart from the sums, which so stay in registers.
        let stored = Aligned(sums);
        for (row, sums) in stored.0.iter().enumerate() {
            let row = block.row + row;
            self.store(simd, Block { row, ..block }, sums);
        }
    }

    /// Where a source position's channels of the strip lie, if it exists.
    #[inline(always)]
    fn source(&self, [row, column]: [isize; 2]) -> *const E {
        let gather = self.gather;
        let offset = row
            .wrapping_mul(signed(gather.source_pitch))
            .wrapping_add(column)
            .wrapping_mul(signed(gather.source_channels));
        gather
            .source
            .as_ptr()
            .wrapping_offset(offset)
            .wrapping_add(self.channel())
    }

    #[inline(always)]
    fn channel(&self) -> usize {
        self.panel.first + self.first
    }

    /// Stores the sums of one row.
    #[inline(always)]
    fn store<S: Simd, const POSITIONS: usize>(
        &self,
        simd: S,
        block: Block,
        sums: &[Register<E, S>; POSITIONS],
    ) {
        let gather = self.gather;
        let adds = gather.existing == Existing::Add;
        let finishes = gather.bias.is_some()
            || gather.residual.is_some()
            || gather.activation != Activation::Identity;
        let first = gather.target_offset([block.row, block.column]) + self.channel();
        let step = gather.columns.target_step * gather.target_channels;
        for (index, &sum) in sums.iter().enumerate().take(block.count) {
            #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
            // SAFETY: the position's channels of the strip lie inside the target image, and belong to this task alone.
            unsafe {
                let to = self.target.place(first + index * step, self.count);
                let mut value = sum;
                if adds {
                    value = E::Compute::vector_add(
                        simd,
                        load_some::<S, E>(simd, to, self.count),
                        value,
                    );
                }
                if finishes {
                    let place = [block.row, block.column + index];
                    value = gather.finish(simd, place, self.channel(), self.count, value);
                }
                store_some::<S, E>(simd, to, self.count, value);
            }
        }
    }
}

/// The source values of a block, one row after another, and the weights that they meet: `TAPS` taps of each kernel row.
struct Sources<E: Storage, S: Simd, const TAPS: usize, const POSITIONS: usize> {
    /// The first source value, if it exists.
    from: *const E,
    /// From one row to the next, and from one value to the next.
    steps: [isize; 2],
    /// The row of the first value, how far it is to the next, and the rows that exist.
    row: isize,
    row_step: isize,
    rows: Range<isize>,
    /// Values that exist, of a row that exists.
    exist: Range<usize>,
    /// Whether all do.
    interior: bool,
    /// Channels.
    count: usize,
    /// Copies of a row, with zeros for what does not exist.
    copies: Aligned<[Register<E, S>; MOST_SOURCES]>,
    /// The weights of the first tap.
    weights: *const E,
    /// From one kernel row to the next, and from one tap to the next.
    weight_steps: [usize; 2],
}

impl<E: Storage, S: Simd, const TAPS: usize, const POSITIONS: usize>
    Sources<E, S, TAPS, POSITIONS>
{
    const COUNT: usize = POSITIONS + TAPS - 1;

    #[inline(always)]
    fn new(simd: S, strip: &Strip<'_, E>, block: Block, tap: usize) -> Self {
        let gather = strip.gather;
        let (rows, columns) = (&gather.rows, &gather.columns);
        let row = rows.source(block.row);
        let first = columns.source(block.column) + columns.tap(tap);
        let last = first + columns.source_step * signed(Self::COUNT - 1);
        let all = 0..Self::COUNT;
        let within = columns.holds(first) && columns.holds(last);
        let exist = if within {
            all
        } else {
            let extent = (columns.high - columns.low).unsigned_abs();
            steps_inside(first - columns.low, columns.source_step, extent, all)
        };
        let channels = signed(gather.source_channels);
        let width = strip.panel.vectors * lanes::<S, E>();
        let kernel_columns = gather.weights.layout.taps[1];
        let weight =
            rows.weight_first * kernel_columns + columns.weight_first + tap * columns.weight_step;
        let weights = &gather.weights.values[strip.panel.offset + weight * width + strip.first..];
        let sources = Self {
            from: strip.source([row, first]),
            steps: [
                rows.tap_step * signed(gather.source_pitch) * channels,
                columns.source_step * channels,
            ],
            row,
            row_step: rows.tap_step,
            rows: rows.low..rows.high,
            exist,
            interior: within && strip.count == lanes::<S, E>(),
            count: strip.count,
            copies: Aligned([zero::<S, E>(simd); MOST_SOURCES]),
            weights: weights.as_ptr(),
            weight_steps: [
                rows.weight_step * kernel_columns * width,
                columns.weight_step * width,
            ],
        };
        debug_assert!((0..=rows.taps).all(|row| sources.row_is_in(gather.source, signed(row))));
        let last_weight =
            (rows.taps - 1) * sources.weight_steps[0] + (TAPS - 1) * sources.weight_steps[1];
        debug_assert!(last_weight + lanes::<S, E>() <= weights.len());
        sources
    }

    /// Whether a row does not exist, or all values of it that do are part of `source`.
    fn row_is_in(&self, source: &[E], row: isize) -> bool {
        let from = self.from.wrapping_offset(row * self.steps[0]);
        let exists = self.rows.contains(&(self.row + row * self.row_step));
        !exists
            || self.exist.clone().all(|index| {
                let value = from.wrapping_offset(signed(index) * self.steps[1]);
                holds(source, value, self.count)
            })
    }

    /// Adds the products of the values of a row to the sums of the block's rows from `FROM` to `TO`. Of the block's row `i`
    /// it is under kernel row `row - i`.
    ///
    /// # Safety
    /// These kernel rows must exist.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn meet<const ROWS: usize, const FROM: usize, const TO: usize>(
        &mut self,
        simd: S,
        row: usize,
        sums: &mut [[Register<E, S>; POSITIONS]; ROWS],
    ) {
        let mut weights = [[zero::<S, E>(simd); TAPS]; ROWS];
        for (of, weights) in weights.iter_mut().enumerate().take(TO).skip(FROM) {
            let mut from = self.weights.wrapping_add((row - of) * self.weight_steps[0]);
            for weight in weights {
                // SAFETY: as the caller vouches.
                *weight = unsafe { load::<S, E>(simd, from) };
                from = from.wrapping_add(self.weight_steps[1]);
            }
        }
        let (from, step) = self.values(simd, signed(row));
        // Unrolled by hand: the compiler keeps sums in registers only where it knows all indices.
        macro_rules! meet {
            ($($place:literal)*) => {
                $(if $place < Self::COUNT {
                    // SAFETY: the value exists, or is a copy.
                    let value = unsafe { load::<S, E>(simd, from.wrapping_offset($place * step)) };
                    for of in FROM..TO {
                        add::<S, E, TAPS, POSITIONS, $place>(simd, &mut sums[of], &weights[of], value);
                    }
                })*
            };
        }
        meet!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }

    /// Where the values of a row begin, and how far apart they are.
    #[inline(always)]
    fn values(&mut self, simd: S, row: isize) -> (*const E, isize) {
        let from = self.from.wrapping_offset(row * self.steps[0]);
        let exists = self.rows.contains(&(self.row + row * self.row_step));
        if self.interior && exists {
            return (from, self.steps[1]);
        }
        let exist = if exists { self.exist.clone() } else { 0..0 };
        let lanes = lanes::<S, E>();
        let copies = self.copies.0.as_mut_ptr().cast::<E>();
        for index in 0..Self::COUNT {
            #[expect(unsafe_code, reason = "vectors are loaded and stored by pointer")]
            // SAFETY: the value exists, and there is room for so many copies: stored numbers are no larger than a register's.
            unsafe {
                let value = if exist.contains(&index) {
                    let from = from.wrapping_offset(signed(index) * self.steps[1]);
                    load_some::<S, E>(simd, from, self.count)
                } else {
                    zero::<S, E>(simd)
                };
                store::<S, E>(simd, copies.add(index * lanes), value);
            }
        }
        let from = copies.cast_const();
        (from, signed(lanes))
    }
}

/// Adds the products of the source value at `PLACE` and each tap to the sum of the position that has it there.
#[inline(always)]
fn add<S: Simd, E: Storage, const TAPS: usize, const POSITIONS: usize, const PLACE: usize>(
    simd: S,
    sums: &mut [Register<E, S>; POSITIONS],
    weights: &[Register<E, S>; TAPS],
    value: Register<E, S>,
) {
    for (tap, &weight) in weights.iter().enumerate() {
        if tap <= PLACE && PLACE - tap < POSITIONS {
            let sum = &mut sums[PLACE - tap];
            *sum = E::Compute::mul_add(simd, value, weight, *sum);
        }
    }
}
