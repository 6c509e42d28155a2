//! The memory that a sweep works in, and how it is cut.

use stream_grad_tiling::Sweep;

use super::buffer::offset;
use super::memory::{Memory, length_of_parts, parts};
use super::{Schedule, scratch_length};
use crate::scalar::Scalar;

/// Elements of what a sweep works in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Working {
    /// Activations and cotangents of one tile.
    arena: usize,
    /// Strips and left halos that only carry.
    transient: usize,
    /// Cotangents on their way to tiles above and to the left.
    carries: usize,
    /// For the kernels.
    scratch: usize,
}

/// [`Working`] memory.
pub(super) struct Parts<'w, T> {
    pub(super) arena: &'w mut [T],
    pub(super) transient: &'w mut [T],
    pub(super) carries: &'w mut [T],
    pub(super) scratch: &'w mut [T],
}

impl Working {
    /// Of the forward sweep.
    pub(super) fn forward<T: Scalar>(schedule: &Schedule<'_>) -> Self {
        let buffers = schedule.buffers;
        let carrying = if schedule.geometry.segments() > 1 {
            buffers.forward_length(Sweep::Carrying)
        } else {
            0
        };
        Self {
            arena: offset(buffers.forward_length(Sweep::Saving).max(carrying)),
            transient: offset(buffers.transient_length()),
            carries: 0,
            scratch: scratch_length::<T>(schedule.operations),
        }
    }

    /// Of the backward sweep, which repeats forward sweeps where there are segments.
    pub(super) fn backward<T: Scalar>(schedule: &Schedule<'_>) -> Self {
        let buffers = schedule.buffers;
        let (forward, transient) = if schedule.geometry.segments() > 1 {
            let forward = buffers.forward_length(Sweep::Saving);
            (forward, buffers.transient_length())
        } else {
            (0, 0)
        };
        Self {
            arena: offset(buffers.backward_length().max(forward)),
            transient: offset(transient),
            carries: offset(buffers.cotangent_length()),
            scratch: scratch_length::<T>(schedule.operations),
        }
    }

    /// Of either sweep, in turn.
    pub(super) fn either<T: Scalar>(schedule: &Schedule<'_>) -> Self {
        let [forward, backward] = [Self::forward::<T>(schedule), Self::backward::<T>(schedule)];
        Self {
            arena: forward.arena.max(backward.arena),
            transient: forward.transient.max(backward.transient),
            carries: forward.carries.max(backward.carries),
            scratch: forward.scratch.max(backward.scratch),
        }
    }

    const fn lengths(&self) -> [usize; 4] {
        [self.arena, self.transient, self.carries, self.scratch]
    }

    /// Values of memory that it takes.
    fn length<T>(&self) -> usize {
        length_of_parts::<T, 4>(self.lengths())
    }

    /// Makes the memory, unless it is there, and cuts it. Forward and backward sweep work in the same if they can.
    pub(super) fn cut<'w, T: Scalar>(
        self,
        schedule: &Schedule<'_>,
        memory: &'w mut Memory<T>,
    ) -> Parts<'w, T> {
        let used = self.length::<T>();
        schedule.make(memory, held_length::<T>(schedule).max(used), used);
        let [arena, transient, carries, scratch] = parts(memory, self.lengths());
        Parts {
            arena,
            transient,
            carries,
            scratch,
        }
    }
}

/// Values of the memory that is handed on from sweep to sweep.
pub(crate) fn held_length<T: Scalar>(schedule: &Schedule<'_>) -> usize {
    Working::backward::<T>(schedule).length::<T>()
}
