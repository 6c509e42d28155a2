//! The inner loops of a gather.

use pulp::Simd;

use crate::Element;
use crate::element::sealed::{lanes, load, load_some};

/// Terms to add to every sum.
pub(crate) struct Terms<T> {
    /// The weights of the first term.
    pub(crate) weights: *const T,
    /// Number of terms.
    pub(crate) count: usize,
    /// From one term to the next, for products by channel; dense terms lie next to each other.
    pub(crate) source_step: isize,
    /// From the weights of one term to those of the next, for products by channel.
    pub(crate) weight_step: usize,
    /// Channels of the panel, for products by channel.
    pub(crate) width: usize,
}

/// How source values meet weights.
pub(crate) trait Product {
    /// True where each source channel has its own weights.
    const PER_CHANNEL: bool;

    /// Adds terms to every sum, the first of them with the source values at `places`.
    ///
    /// # Safety
    /// The source values and the weights of all terms must exist.
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const PIXELS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
        places: &[*const T; PIXELS],
        terms: &Terms<T>,
    );
}

/// One source value times a panel of weights.
pub(crate) struct Dense;

impl Product for Dense {
    const PER_CHANNEL: bool = false;

    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const PIXELS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
        places: &[*const T; PIXELS],
        terms: &Terms<T>,
    ) {
        let lanes = lanes::<S, T>();
        // A local copy is what the compiler keeps in registers.
        let mut local = *sums;
        for term in 0..terms.count {
            // SAFETY: the caller vouches for every term.
            unsafe {
                let row = terms.weights.add(term * VECTORS * lanes);
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
pub(crate) struct PerChannel;

impl Product for PerChannel {
    const PER_CHANNEL: bool = true;

    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const PIXELS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; PIXELS],
        places: &[*const T; PIXELS],
        terms: &Terms<T>,
    ) {
        let lanes = lanes::<S, T>();
        let last = terms.width - (VECTORS - 1) * lanes;
        let mut local = *sums;
        let (mut weights, mut offset) = (terms.weights, 0);
        for _ in 0..terms.count {
            for vector in 0..VECTORS {
                let count = if vector + 1 == VECTORS { last } else { lanes };
                let first = vector * lanes;
                // SAFETY: the caller vouches for every term.
                unsafe {
                    let weight = load::<S, T>(simd, weights.add(first));
                    for (sums, place) in local.iter_mut().zip(places) {
                        let from = place.wrapping_offset(offset).add(first);
                        let value = load_some::<S, T>(simd, from, count);
                        sums[vector] = T::mul_add(simd, value, weight, sums[vector]);
                    }
                }
            }
            weights = weights.wrapping_add(terms.weight_step);
            offset += terms.source_step;
        }
        *sums = local;
    }
}
