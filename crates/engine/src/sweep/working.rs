//! The memory that a sweep works in, and how it is cut.

use stream_grad_tiling::Sweep;

use super::{Schedule, scratch_length};
use crate::backend::{Backend, WorkingLayout, offset};

/// How memory is cut for the forward sweep.
pub(super) fn forward<B: Backend>(schedule: &Schedule<'_>, backend: &B) -> WorkingLayout {
    WorkingLayout::new(forward_lengths(schedule, backend), backend.alignment())
}

/// For the backward sweep, which repeats forward sweeps where there are segments.
pub(super) fn backward<B: Backend>(schedule: &Schedule<'_>, backend: &B) -> WorkingLayout {
    WorkingLayout::new(backward_lengths(schedule, backend), backend.alignment())
}

/// For either sweep, in turn.
pub(super) fn either<B: Backend>(schedule: &Schedule<'_>, backend: &B) -> WorkingLayout {
    let forward = forward_lengths(schedule, backend);
    let backward = backward_lengths(schedule, backend);
    let lengths = std::array::from_fn(|part| forward[part].max(backward[part]));
    WorkingLayout::new(lengths, backend.alignment())
}

/// Makes the memory, unless it is there. Forward and backward sweep work in the same if they can.
pub(super) fn make<B: Backend>(
    layout: &WorkingLayout,
    schedule: &Schedule<'_>,
    backend: &B,
    memory: &mut B::Memory,
) {
    let used = layout.length(backend.alignment());
    let length = held_length(schedule, backend).max(used);
    schedule.make(backend, memory, length, used);
}

/// Values of the memory that is handed on from sweep to sweep.
pub(super) fn held_length<B: Backend>(schedule: &Schedule<'_>, backend: &B) -> usize {
    backward(schedule, backend).length(backend.alignment())
}

/// Values of arena, transient halos, carries and scratch.
fn forward_lengths<B: Backend>(schedule: &Schedule<'_>, backend: &B) -> [usize; 4] {
    let buffers = schedule.buffers;
    let carrying = if schedule.geometry.segments() > 1 {
        buffers.forward_length(Sweep::Carrying)
    } else {
        0
    };
    [
        offset(buffers.forward_length(Sweep::Saving).max(carrying)),
        offset(buffers.transient_length()),
        0,
        scratch_length(backend, schedule.nodes),
    ]
}

fn backward_lengths<B: Backend>(schedule: &Schedule<'_>, backend: &B) -> [usize; 4] {
    let buffers = schedule.buffers;
    let (forward, transient) = if schedule.geometry.segments() > 1 {
        let forward = buffers.forward_length(Sweep::Saving);
        (forward, buffers.transient_length())
    } else {
        (0, 0)
    };
    [
        offset(buffers.backward_length().max(forward)),
        offset(transient),
        offset(buffers.cotangent_length()),
        scratch_length(backend, schedule.nodes),
    ]
}
