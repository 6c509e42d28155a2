//! The inner loops of a weight gradient.

use pulp::Simd;

use crate::Element;
use crate::element::sealed::{lanes, load_some};

/// A row of positions.
pub(super) struct Operands<T> {
    pub(super) input: *const T,
    pub(super) input_step: isize,
    pub(super) row_step: usize,
    pub(super) cotangent: *const T,
    pub(super) cotangent_step: usize,
    pub(super) columns: usize,
    pub(super) width: usize,
}

/// How input values meet cotangents.
pub(super) trait Product {
    /// Adds the products of a row of positions.
    ///
    /// # Safety
    /// Every input value and cotangent that the operands describe must exist.
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const ROWS: usize>(
        simd: S,
        sums: &mut [[T::Vector<S>; VECTORS]; ROWS],
        operands: Operands<T>,
    );

    /// Adds the product of one gradient row at one position.
    ///
    /// # Safety
    /// The input values and `width` cotangents must exist.
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate_one<S: Simd, T: Element, const VECTORS: usize>(
        simd: S,
        sums: &mut [T::Vector<S>; VECTORS],
        input: *const T,
        cotangent: *const T,
        width: usize,
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
        operands: Operands<T>,
    ) {
        let lanes = lanes::<S, T>();
        let mut local = *sums;
        let last = operands.width - (VECTORS - 1) * lanes;
        let (mut input, mut cotangent) = (operands.input, operands.cotangent);
        for _ in 0..operands.columns {
            // SAFETY: the caller vouches for every position.
            unsafe {
                let mut panel = [T::splat(simd, T::ZERO); VECTORS];
                for (vector, slot) in panel.iter_mut().enumerate() {
                    let count = if vector + 1 == VECTORS { last } else { lanes };
                    *slot = load_some::<S, T>(simd, cotangent.add(vector * lanes), count);
                }
                #[expect(clippy::needless_range_loop, reason = "two arrays of one index")]
                for row in 0..ROWS {
                    let value = T::splat(simd, *input.add(row));
                    for vector in 0..VECTORS {
                        local[row][vector] =
                            T::mul_add(simd, value, panel[vector], local[row][vector]);
                    }
                }
            }
            input = input.wrapping_offset(operands.input_step);
            cotangent = cotangent.wrapping_add(operands.cotangent_step);
        }
        *sums = local;
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate_one<S: Simd, T: Element, const VECTORS: usize>(
        simd: S,
        sums: &mut [T::Vector<S>; VECTORS],
        input: *const T,
        cotangent: *const T,
        width: usize,
    ) {
        let lanes = lanes::<S, T>();
        for (vector, sum) in sums.iter_mut().enumerate() {
            let first = vector * lanes;
            // SAFETY: the caller vouches for the input value and `width` cotangents.
            unsafe {
                let panel = load_some::<S, T>(simd, cotangent.add(first), lanes.min(width - first));
                *sum = T::mul_add(simd, T::splat(simd, *input), panel, *sum);
            }
        }
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
        operands: Operands<T>,
    ) {
        let lanes = lanes::<S, T>();
        let mut local = *sums;
        let last = operands.width - (VECTORS - 1) * lanes;
        let (mut input, mut cotangent) = (operands.input, operands.cotangent);
        for _ in 0..operands.columns {
            #[expect(clippy::needless_range_loop, reason = "two indices of one array")]
            for vector in 0..VECTORS {
                let count = if vector + 1 == VECTORS { last } else { lanes };
                // SAFETY: the caller vouches for every position.
                unsafe {
                    let panel = load_some::<S, T>(simd, cotangent.add(vector * lanes), count);
                    #[expect(clippy::needless_range_loop, reason = "two arrays of one index")]
                    for row in 0..ROWS {
                        let from = input.add(row * operands.row_step + vector * lanes);
                        let value = load_some::<S, T>(simd, from, count);
                        local[row][vector] = T::mul_add(simd, value, panel, local[row][vector]);
                    }
                }
            }
            input = input.wrapping_offset(operands.input_step);
            cotangent = cotangent.wrapping_add(operands.cotangent_step);
        }
        *sums = local;
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn accumulate_one<S: Simd, T: Element, const VECTORS: usize>(
        simd: S,
        sums: &mut [T::Vector<S>; VECTORS],
        input: *const T,
        cotangent: *const T,
        width: usize,
    ) {
        let lanes = lanes::<S, T>();
        for (vector, sum) in sums.iter_mut().enumerate() {
            let first = vector * lanes;
            let count = lanes.min(width - first);
            // SAFETY: the caller vouches for `width` input values and cotangents.
            unsafe {
                let value = load_some::<S, T>(simd, input.add(first), count);
                let panel = load_some::<S, T>(simd, cotangent.add(first), count);
                *sum = T::mul_add(simd, value, panel, *sum);
            }
        }
    }
}
