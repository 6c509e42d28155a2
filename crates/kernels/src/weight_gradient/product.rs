//! The inner loops of a weight gradient.

use pulp::Simd;

use crate::Element;
use crate::element::sealed::{lanes, load_some};

/// Where the input values of a row of positions lie.
pub(super) struct Inputs<T> {
    /// The value for the first gradient row at the first position.
    pub(super) first: *const T,
    /// From one position to the next.
    pub(super) step: isize,
    /// From one gradient row to the next, for products by channel; dense ones lie next to each other.
    pub(super) row_step: usize,
    /// Channels of a panel, for products by channel.
    pub(super) width: usize,
}

/// How input values meet cotangents.
pub(super) trait Product {
    /// Adds the products of a row of positions, one for each panel of cotangents.
    ///
    /// # Safety
    /// Every input value must exist.
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const ROWS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; ROWS],
        inputs: Inputs<T>,
        cotangents: &[[T::Vector<S>; VECTORS]],
    );
}

/// One input value times a panel of cotangents.
pub(super) struct Dense;

impl Product for Dense {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const ROWS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; ROWS],
        inputs: Inputs<T>,
        cotangents: &[[T::Vector<S>; VECTORS]],
    ) {
        // A local copy is what the compiler keeps in registers.
        let mut local = *sums;
        let mut input = inputs.first;
        for panel in cotangents {
            for (row, sums) in local.iter_mut().enumerate() {
                // SAFETY: the caller vouches for every input value.
                let value = T::splat(simd, unsafe { *input.add(row) });
                for (sum, &cotangent) in sums.iter_mut().zip(panel) {
                    *sum = T::mul_add(simd, value, cotangent, *sum);
                }
            }
            input = input.wrapping_offset(inputs.step);
        }
        *sums = local;
    }
}

/// Each input channel times its own cotangent.
pub(super) struct PerChannel;

impl Product for PerChannel {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const ROWS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; ROWS],
        inputs: Inputs<T>,
        cotangents: &[[T::Vector<S>; VECTORS]],
    ) {
        let lanes = lanes::<S, T>();
        let last = inputs.width - (VECTORS - 1) * lanes;
        let mut local = *sums;
        let mut input = inputs.first;
        for panel in cotangents {
            for (row, sums) in local.iter_mut().enumerate() {
                for (vector, (sum, &cotangent)) in sums.iter_mut().zip(panel).enumerate() {
                    let count = if vector + 1 == VECTORS { last } else { lanes };
                    // SAFETY: the caller vouches for every input value.
                    let value = unsafe {
                        let from = input.add(row * inputs.row_step + vector * lanes);
                        load_some::<S, T>(simd, from, count)
                    };
                    *sum = T::mul_add(simd, value, cotangent, *sum);
                }
            }
            input = input.wrapping_offset(inputs.step);
        }
        *sums = local;
    }
}
