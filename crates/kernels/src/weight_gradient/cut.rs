//! How a weight gradient is cut into tasks, and how what they sum comes together.
//!
//! A task sums one block of the gradient over one strip of positions, in the element's own precision; the sums of strips are
//! added to double-precision sums in the order of the strips, so that sums over thousands of tiles stay accurate and do not
//! depend on who computed what. The cut is one of geometry alone: neither threads nor registers count.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::product::Extent;
use crate::element::sealed::{lanes, load_some, store};
use crate::parallel::parallel_for;
use crate::shared::Shared;
use crate::stack::ALIGNMENT;
use crate::{Element, Storage};

/// Output channels of a block.
pub(crate) const COLUMNS: usize = 64;

/// Tasks worth having. Where there are fewer blocks, they are summed over several strips at a time.
const TASKS: usize = 16;

/// Pieces in which one block's strips are added up.
const PIECES: usize = 8;

/// Strips of positions of all blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    blocks: usize,
    positions: usize,
    /// Strips that are summed at a time.
    strips: usize,
    /// Positions of a strip.
    length: usize,
}

/// One part of the work.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// Sum a block over some positions, into slot `slot` of the scratch, or straight into the gradient if the block has one strip.
    Sum {
        block: usize,
        positions: Range<usize>,
        slot: Option<usize>,
    },
    /// Add to the gradient what `slots`, `step` apart, hold of a block's rows: piece `piece` of `pieces`.
    Add {
        block: usize,
        slots: usize,
        step: usize,
        piece: usize,
        pieces: usize,
    },
}

/// Blocks that are summed into slots at the same time, at most.
pub(crate) fn slots(blocks: usize) -> usize {
    match TASKS.div_ceil(blocks.max(1)) {
        1 => 0,
        strips => strips * blocks,
    }
}

impl Cut {
    /// Cuts `positions` into strips of whole chunks of `chunk`, of at most `longest`.
    pub(crate) fn new(blocks: usize, positions: usize, chunk: usize, longest: usize) -> Self {
        let strips = TASKS.div_ceil(blocks.max(1));
        let length = positions
            .div_ceil(strips)
            .next_multiple_of(chunk)
            .clamp(chunk, longest);
        Self {
            blocks,
            positions,
            strips,
            length,
        }
    }

    /// Does all parts, as many at a time as there are threads.
    pub(crate) fn run(&self, part: impl Fn(Part) + Sync) {
        let blocks = self.blocks;
        for start in (0..self.positions).step_by(self.strips * self.length) {
            let strips = (self.positions - start)
                .div_ceil(self.length)
                .min(self.strips);
            parallel_for((0..strips * blocks).into_par_iter(), |task| {
                let first = start + task / blocks * self.length;
                part(Part::Sum {
                    block: task % blocks,
                    positions: first..(first + self.length).min(self.positions),
                    slot: (strips > 1).then_some(task),
                });
            });
            if strips > 1 {
                parallel_for((0..blocks * PIECES).into_par_iter(), |task| {
                    part(Part::Add {
                        block: task / PIECES,
                        slots: strips,
                        step: blocks,
                        piece: task % PIECES,
                        pieces: PIECES,
                    });
                });
            }
        }
    }
}

/// Where a block's rows lie in the gradient: `taps` times `rows` of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Of the first value.
    pub(crate) first: usize,
    pub(crate) taps: Extent,
    /// From one kernel row to the next, and from one tap of it to the next.
    pub(crate) tap_steps: [usize; 2],
    pub(crate) rows: usize,
    pub(crate) row_step: usize,
    /// Values of each row.
    pub(crate) columns: usize,
}

impl Place {
    /// From one row of a block to the next, in scratch.
    pub(crate) fn pitch(&self) -> usize {
        self.columns.next_multiple_of(ALIGNMENT)
    }

    #[inline(always)]
    fn row(&self, row: usize) -> usize {
        let (tap, row) = (row / self.rows, row % self.rows);
        self.first
            + tap / self.taps.columns * self.tap_steps[0]
            + tap % self.taps.columns * self.tap_steps[1]
            + row * self.row_step
    }
}

/// What the parts of the work share: where sums go.
pub(crate) struct Destination<'a, T> {
    gradient: Shared<'a, f64>,
    slots: Shared<'a, T>,
    /// Values of a slot.
    slot: usize,
}

impl<'a, T: Element> Destination<'a, T> {
    /// Slots of `slot` sums lie in the scratch, as many as [`scratch_for`] made room for.
    pub(crate) fn new<E: Storage<Compute = T>>(
        gradient: &'a mut [f64],
        scratch: &'a mut [E],
        slot: usize,
    ) -> Self {
        #[expect(unsafe_code, reason = "scratch is memory for any number")]
        // SAFETY: any bits are a number of either kind.
        let (_, slots, _) = unsafe { scratch.align_to_mut::<T>() };
        Self {
            gradient: Shared::new(gradient),
            slots: Shared::new(slots),
            slot,
        }
    }

    fn slot(&self, index: usize) -> *mut T {
        self.slots.place(index * self.slot, self.slot)
    }
}

/// Values of scratch that hold so many sums, wherever the scratch begins.
pub(crate) const fn scratch_for<E: Storage>(sums: usize) -> usize {
    let per_sum = size_of::<E::Compute>() / size_of::<E>();
    sums.saturating_mul(per_sum).saturating_add(per_sum - 1)
}

/// A block of the gradient.
pub(crate) trait Summed<E: Storage> {
    /// Where it lies.
    fn place(&self) -> Place;

    /// Sums it over some positions and hands all of it to `target`.
    fn sum<S: Simd>(&self, simd: S, positions: Range<usize>, target: &Target<'_, E::Compute>);
}

/// A weight gradient that is summed in blocks.
pub(crate) trait Blocked<E: Storage>: Sync {
    type Block<'a>: Summed<E>
    where
        Self: 'a;

    /// The block of a number.
    fn block(&self, index: usize) -> Self::Block<'_>;
}

/// A part of a weight gradient, to be done with a processor's best instructions.
pub(crate) struct Task<'a, E: Storage, B> {
    pub(crate) job: &'a B,
    pub(crate) destination: &'a Destination<'a, E::Compute>,
    pub(crate) part: Part,
}

impl<E: Storage, B: Blocked<E>> WithSimd for Task<'_, E, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            job,
            destination,
            part,
        } = self;
        match part {
            Part::Sum {
                block,
                positions,
                slot,
            } => {
                let target = match slot {
                    Some(slot) => Target::Slot(destination.slot(slot)),
                    None => Target::Gradient(&destination.gradient),
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
                let first = destination.slot(block);
                let place = job.block(block).place();
                let rows = place.taps.product() * place.rows;
                let rows = piece * rows / pieces..(piece + 1) * rows / pieces;
                let slots = [slots, step * destination.slot];
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: all tasks that fill the block's slots are done, and these rows belong to this task alone.
                unsafe {
                    add_slots(simd, &place, rows, first, slots, &destination.gradient);
                }
            }
        }
    }
}

/// Who takes a block's sums over a strip.
pub(crate) enum Target<'a, T> {
    Gradient(&'a Shared<'a, f64>),
    Slot(*mut T),
}

impl<T: Element> Target<'_, T> {
    /// Takes the register of a row that begins at `column`.
    ///
    /// # Safety
    /// The slot must have room for the block in `place`, the gradient must hold it, and no other task may touch either.
    #[inline(always)]
    #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
    pub(crate) unsafe fn take<S: Simd>(
        &self,
        simd: S,
        place: &Place,
        row: usize,
        column: usize,
        value: T::Vector<S>,
    ) {
        debug_assert!(row < place.taps.product() * place.rows);
        debug_assert!(column + lanes::<S, T>() <= place.pitch());
        // SAFETY: as the caller vouches.
        unsafe {
            match *self {
                Self::Gradient(sums) => {
                    let count = lanes::<S, T>().min(place.columns - column);
                    let to = sums.place(place.row(row) + column, count);
                    add_to_sums::<S, T>(simd, to, count, value);
                }
                Self::Slot(slot) => {
                    store::<S, T>(simd, slot.add(row * place.pitch() + column), value);
                }
            }
        }
    }
}

/// Adds to the gradient, row by row, what the slots hold of a piece of a block, in the order of the slots.
///
/// # Safety
/// `slots` must point to `count` slots, `step` values apart, that hold the block; no other task may touch its part of `sums`.
#[inline(always)]
#[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
unsafe fn add_slots<S: Simd, T: Element>(
    simd: S,
    place: &Place,
    rows: Range<usize>,
    slots: *const T,
    [count, step]: [usize; 2],
    sums: &Shared<'_, f64>,
) {
    let lanes = lanes::<S, T>();
    for row in rows {
        for column in (0..place.columns).step_by(lanes) {
            let width = lanes.min(place.columns - column);
            for slot in 0..count {
                // SAFETY: as the caller vouches.
                unsafe {
                    let from = slots.add(slot * step + row * place.pitch() + column);
                    let to = sums.place(place.row(row) + column, width);
                    add_to_sums::<S, T>(simd, to, width, load_some::<S, T>(simd, from, width));
                }
            }
        }
    }
}

/// Adds the first `count` lanes to double-precision sums.
///
/// # Safety
/// `sums` must be valid for reading and writing `count` numbers.
#[inline(always)]
#[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
unsafe fn add_to_sums<S: Simd, T: Element>(
    simd: S,
    sums: *mut f64,
    count: usize,
    value: T::Vector<S>,
) {
    let lanes = lanes::<S, T>();
    let mut buffer = [T::ZERO; 16];
    debug_assert!(count <= lanes && lanes <= buffer.len());
    // SAFETY: a register has at most 16 lanes; the caller vouches for the sums.
    unsafe {
        store::<S, T>(simd, buffer.as_mut_ptr(), value);
        // A known number of lanes is what vectorises.
        if count == lanes {
            for (lane, value) in buffer.iter().enumerate().take(lanes) {
                *sums.add(lane) += value.to_f64();
            }
        } else {
            for (lane, value) in buffer.iter().enumerate().take(count) {
                *sums.add(lane) += value.to_f64();
            }
        }
    }
}

/// Even parts of `count` channels, in whole registers of any width.
pub(crate) fn columns(count: usize, block: usize, blocks: usize) -> Range<usize> {
    let units = count.div_ceil(ALIGNMENT);
    let first = block * units / blocks * ALIGNMENT;
    first..((block + 1) * units / blocks * ALIGNMENT).min(count)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every position counts once in every block, and in the order of the strips.
        #[test]
        fn parts_cover_the_gradient_once(
            blocks in 1..=20_usize,
            positions in 1..=3000_usize,
            chunk in 1..=70_usize,
            chunks in 1..=5_usize,
        ) {
            struct State {
                slots: Vec<Option<(usize, Range<usize>)>>,
                /// Of each block and piece: the position up to which it was summed.
                done: Vec<[usize; PIECES]>,
            }
            let cut = Cut::new(blocks, positions, chunk, chunk * chunks);
            let state = Mutex::new(State {
                slots: vec![None; slots(blocks)],
                done: vec![[0; PIECES]; blocks],
            });
            cut.run(|part| {
                let mut state = state.lock().unwrap();
                match part {
                    Part::Sum { block, positions, slot: Some(slot) } => {
                        assert_eq!(state.slots[slot].replace((block, positions)), None);
                    }
                    Part::Sum { block, positions, slot: None } => {
                        assert_eq!(state.done[block], [positions.start; PIECES]);
                        state.done[block] = [positions.end; PIECES];
                    }
                    Part::Add { block, slots, step, piece, pieces } => {
                        assert_eq!(pieces, PIECES);
                        for slot in (block..).step_by(step).take(slots) {
                            let (of, strip) = state.slots[slot].clone().unwrap();
                            assert_eq!((of, strip.start), (block, state.done[block][piece]));
                            state.done[block][piece] = strip.end;
                        }
                        if state.done[block].iter().all(|&end| end == state.done[block][0]) {
                            for slot in (block..).step_by(step).take(slots) {
                                state.slots[slot] = None;
                            }
                        }
                    }
                }
            });
            let state = state.into_inner().unwrap();
            prop_assert_eq!(state.done, vec![[positions; PIECES]; blocks]);
        }
    }
}
