//! The inner loop of a gather.

use pulp::Simd;

use crate::Element;
use crate::element::sealed::{lanes, load};
use crate::prefetch::Ahead;

/// Terms between which lines are fetched.
pub(crate) const TERMS_BETWEEN_FETCHES: usize = 16;

/// Terms to add to every sum.
pub(crate) struct Terms<T> {
    /// The weights of the first term.
    pub(crate) weights: *const T,
    /// Number of terms.
    pub(crate) count: usize,
}

/// Adds terms to every sum, the first of them with the source values at `places`: one source value times a panel of weights.
///
/// # Safety
/// The source values and the weights of all terms must exist.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
pub(crate) unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const PIXELS: usize>(
    simd: S,
    sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
    places: &[*const T; PIXELS],
    terms: &Terms<T>,
) {
    // A local copy is what the compiler keeps in registers.
    let mut local = *sums;
    for term in 0..terms.count {
        // SAFETY: the caller vouches for every term.
        unsafe { add_term(simd, &mut local, places, terms, term) };
    }
    *sums = local;
}

/// [`accumulate`], fetching `lines` lines every [`TERMS_BETWEEN_FETCHES`] terms.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
pub(crate) unsafe fn accumulate_and_fetch<
    S: Simd,
    T: Element,
    const VECTORS: usize,
    const PIXELS: usize,
>(
    simd: S,
    sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
    places: &[*const T; PIXELS],
    terms: &Terms<T>,
    ahead: &mut Ahead<T>,
    lines: usize,
) {
    let mut local = *sums;
    for first in (0..terms.count).step_by(TERMS_BETWEEN_FETCHES) {
        ahead.fetch(lines);
        for term in first..terms.count.min(first + TERMS_BETWEEN_FETCHES) {
            // SAFETY: the caller vouches for every term.
            unsafe { add_term(simd, &mut local, places, terms, term) };
        }
    }
    *sums = local;
}

/// # Safety
/// As for [`accumulate`], of this term.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
unsafe fn add_term<S: Simd, T: Element, const VECTORS: usize, const PIXELS: usize>(
    simd: S,
    sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
    places: &[*const T; PIXELS],
    terms: &Terms<T>,
    term: usize,
) {
    let lanes = lanes::<S, T>();
    // SAFETY: as the caller vouches.
    unsafe {
        let row = terms.weights.add(term * VECTORS * lanes);
        let mut panel = [T::splat(simd, T::ZERO); VECTORS];
        for (vector, slot) in panel.iter_mut().enumerate() {
            *slot = load::<S, T>(simd, row.add(vector * lanes));
        }
        for pixel in 0..PIXELS {
            let value = T::splat(simd, *places[pixel].add(term));
            for vector in 0..VECTORS {
                sums[pixel][vector] = T::mul_add(simd, value, panel[vector], sums[pixel][vector]);
            }
        }
    }
}
