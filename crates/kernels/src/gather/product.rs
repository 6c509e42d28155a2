//! The inner loops of a gather.

use pulp::Simd;

use crate::Element;
use crate::element::sealed::{lanes, load, load_some};

/// How source values meet weights.
pub(super) trait Product {
    /// Adds `length` terms to every sum.
    ///
    /// # Safety
    /// Each place must be valid for reading the values of its terms, and `weights` for `length` panel rows.
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const PIXELS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
        places: &[*const T; PIXELS],
        weights: *const T,
        length: usize,
        width: usize,
    );
}

/// One source value times a panel of weights.
pub(super) struct Dense;

impl Product for Dense {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const PIXELS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
        places: &[*const T; PIXELS],
        weights: *const T,
        length: usize,
        _: usize,
    ) {
        let lanes = lanes::<S, T>();
        // A local copy is what the compiler keeps in registers.
        let mut local = *sums;
        for term in 0..length {
            // SAFETY: `term` is below `length`.
            unsafe {
                let row = weights.add(term * VECTORS * lanes);
                let mut panel = [T::splat(simd, T::ZERO); VECTORS];
                for (vector, slot) in panel.iter_mut().enumerate() {
                    *slot = load::<S, T>(simd, row.add(vector * lanes));
                }
                for pixel in 0..PIXELS {
                    let value = T::splat(simd, *places[pixel].add(term));
                    for vector in 0..VECTORS {
                        local[pixel][vector] =
                            T::mul_add(simd, value, panel[vector], local[pixel][vector]);
                    }
                }
            }
        }
        *sums = local;
    }
}

/// Each source channel times its own weight.
pub(super) struct PerChannel;

impl Product for PerChannel {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const PIXELS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
        places: &[*const T; PIXELS],
        weights: *const T,
        _: usize,
        width: usize,
    ) {
        let lanes = lanes::<S, T>();
        #[expect(clippy::needless_range_loop, reason = "two indices of one array")]
        for vector in 0..VECTORS {
            let first = vector * lanes;
            let count = lanes.min(width.saturating_sub(first));
            // SAFETY: the source holds `width` channels at each place.
            unsafe {
                let weight = load::<S, T>(simd, weights.add(first));
                for pixel in 0..PIXELS {
                    let value = load_some::<S, T>(simd, places[pixel].add(first), count);
                    sums[pixel][vector] = T::mul_add(simd, value, weight, sums[pixel][vector]);
                }
            }
        }
    }
}
