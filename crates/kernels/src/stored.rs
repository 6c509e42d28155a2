//! Values that are stored, one by one: widened as they are read, rounded as they are written.

use crate::Storage;

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
