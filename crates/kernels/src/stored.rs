//! Values that are stored: widened as they are loaded, rounded as they are stored.

use pulp::Simd;

use crate::Storage;
use crate::element::sealed::{Register, lanes, load_from, store_to};
use crate::stack::Aligned;

/// Most lanes of a register.
const LANES: usize = 16;

/// The values of a slice that begin at `place`, as many as a register holds, or as are left; the other lanes are 0.
#[inline(always)]
pub(crate) fn widen_from<S: Simd, E: Storage>(simd: S, from: &[E], place: usize) -> Register<E, S> {
    if let Some(from) = E::as_computed(from) {
        return load_from(simd, from, place);
    }
    let mut room = Aligned([E::Compute::ZERO; LANES]);
    // A loop whose length is not known is vectorised: one of constant length would be unrolled first, value by value.
    widen(&from[place..], &mut room.0[..lanes::<S, E::Compute>()]);
    load_from(simd, &room.0, 0)
}

/// Stores a register in a slice from `place` on, as many lanes as there is room for.
#[inline(always)]
pub(crate) fn round_to<S: Simd, E: Storage>(
    simd: S,
    to: &mut [E],
    place: usize,
    value: Register<E, S>,
) {
    if let Some(to) = E::as_computed_mut(to) {
        store_to(simd, to, place, value);
        return;
    }
    let mut room = [E::Compute::ZERO; LANES];
    store_to(simd, &mut room, 0, value);
    let to = &mut to[place..];
    // Where a whole register is rounded, it never is memory.
    match to.get_mut(..lanes::<S, E::Compute>()) {
        Some(to) => narrow(&room, to),
        None => narrow(&room, to),
    }
}

/// Adds to a value that is stored; the sum is rounded once.
#[inline(always)]
pub(crate) fn add_to<E: Storage>(value: &mut E, more: E::Compute) {
    *value = E::narrow(value.widen() + more);
}

/// Widens values as far as both slices go.
#[inline(always)]
pub(crate) fn widen<E: Storage>(from: &[E], to: &mut [E::Compute]) {
    for (to, value) in to.iter_mut().zip(from) {
        *to = value.widen();
    }
}

/// Rounds values as far as both slices go.
#[inline(always)]
pub(crate) fn narrow<E: Storage>(from: &[E::Compute], to: &mut [E]) {
    for (to, &value) in to.iter_mut().zip(from) {
        *to = E::narrow(value);
    }
}
