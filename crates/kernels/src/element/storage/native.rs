//! `bf16` on processors that multiply pairs of it: x86-64 with AVX512-BF16.
//!
//! `pulp` knows the features and has no operations for them. So these kernels run on its token of AVX-512, in a function that allows
//! the instructions besides, and a type of number of their own says that they may use them.

use std::arch::x86_64::{
    __m256i, __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm512_cvtepu16_epi32,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_mask_storeu_epi32,
    _mm512_or_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32,
};
use std::fmt::{self, Display, Formatter};
use std::mem::transmute;

use ::half::bf16;
use pulp::x86::V4;
use pulp::{Simd, WithSimd};

use super::registers::{Register, Stored, for_each_row};
use super::x86::{self, mask, renamed};
use crate::Storage;
use crate::element::sealed::Family;
use crate::instructions;

/// A [`bf16`] of a processor that [`is_there`].
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct NativeBf16(bf16);

/// Whether this processor has the instructions, and may use them.
pub(super) fn is_there() -> bool {
    instructions::may_be_best() && V4::try_new().is_some() && is_x86_feature_detected!("avx512bf16")
}

/// The same numbers.
#[expect(unsafe_code, reason = "the type is a wrapper")]
pub(crate) fn native(values: &[bf16]) -> &[NativeBf16] {
    // SAFETY: the wrapper is transparent.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

/// The same numbers, to write.
#[expect(unsafe_code, reason = "the type is a wrapper")]
pub(crate) fn native_mut(values: &mut [bf16]) -> &mut [NativeBf16] {
    // SAFETY: the wrapper is transparent.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

impl Display for NativeBf16 {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, formatter)
    }
}

impl Storage for NativeBf16 {
    type Compute = f32;

    const ZERO: Self = Self(bf16::ZERO);

    #[inline(always)]
    fn widen(self) -> f32 {
        Storage::widen(self.0)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self(Storage::narrow(value))
    }
}

/// Runs work on a token of AVX-512, with what `V4` stands for and the instructions for `bf16` allowed.
#[target_feature(
    enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16"
)]
fn with_instructions<Work: WithSimd>(simd: V4, work: Work) -> Work::Output {
    work.with_simd(simd)
}

/// Bits as pairs of numbers.
#[inline(always)]
#[expect(unsafe_code, reason = "registers are plain numbers")]
fn pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without padding.
    unsafe { transmute::<__m512i, __m512bh>(bits) }
}

/// Numbers rounded; those that are subnormal are zero.
///
/// # Safety
/// The processor must have the instructions.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
unsafe fn rounded<V: Copy>(register: V) -> __m256i {
    // SAFETY: as the caller vouches; both are 32 bytes without padding.
    unsafe { transmute(_mm512_cvtneps_pbh(renamed(register))) }
}

// SAFETY, of all that follows: numbers of this type are made where the instructions are there, and the caller vouches for memory.
#[expect(unsafe_code, reason = "the micro-kernels address memory by pointer")]
impl Stored for NativeBf16 {
    const TERMS: usize = 2;

    #[inline(always)]
    fn run<F: Family>(task: F::Task<'_, Self>) {
        F::native_half(task);
    }

    #[inline(always)]
    fn dispatch<Work: WithSimd>(work: Work) -> Work::Output {
        // SAFETY: as above.
        unsafe { with_instructions(V4::new_unchecked(), work) }
    }

    #[inline(always)]
    fn to_factor(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(_: S, from: *const Self) -> Register<Self, S> {
        // SAFETY: as above.
        unsafe { x86::widened(x86::load::<S::f32s>(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_first<S: Simd>(_: S, from: *const Self, lanes: usize) -> Register<Self, S> {
        // SAFETY: as above.
        unsafe { x86::widened(x86::load_first::<S::f32s>(from.cast(), lanes)) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(_: S, to: *mut Self, value: Register<Self, S>) {
        // SAFETY: as above.
        unsafe { x86::store::<S::f32s>(to.cast(), rounded(value)) }
    }

    #[inline(always)]
    unsafe fn store_first<S: Simd>(_: S, to: *mut Self, lanes: usize, value: Register<Self, S>) {
        // SAFETY: as above.
        unsafe { x86::store_first::<S::f32s>(to.cast(), lanes, rounded(value)) }
    }

    #[inline(always)]
    unsafe fn store_term<S: Simd>(_: S, to: *mut Self, term: usize, value: Register<Self, S>) {
        // SAFETY: as above.
        unsafe { x86::store_term::<S::f32s>(to.cast(), term, rounded(value)) }
    }

    #[inline(always)]
    unsafe fn interleave<S: Simd>(_: S, rows: [*const Self; 2], to: *mut Self, count: usize) {
        let [first, second] = rows;
        for index in (0..count).step_by(16) {
            let lanes = mask((count - index).min(16));
            // SAFETY: as above.
            unsafe {
                let first = _mm256_maskz_loadu_epi16(lanes, first.add(index).cast());
                let second = _mm256_maskz_loadu_epi16(lanes, second.add(index).cast());
                let (first, second) = (_mm512_cvtepu16_epi32(first), _mm512_cvtepu16_epi32(second));
                let pairs = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
                _mm512_mask_storeu_epi32(to.add(2 * index).cast(), lanes, pairs);
            }
        }
    }

    #[inline(always)]
    unsafe fn add_step<S: Simd, const VECTORS: usize, const ROWS: usize, const WHOLE: bool>(
        _: S,
        sums: &mut [[Register<Self, S>; VECTORS]; ROWS],
        left: impl Fn(usize) -> *const Self,
        panel: *const Self,
    ) {
        // SAFETY: as above.
        unsafe {
            let mut factors = [pairs(_mm512_setzero_si512()); VECTORS];
            for (vector, factor) in factors.iter_mut().enumerate() {
                *factor = pairs(_mm512_loadu_si512(panel.cast::<__m512i>().add(vector)));
            }
            for_each_row!(ROWS, row, {
                let pair = if WHOLE {
                    left(row).cast::<i32>().read_unaligned()
                } else {
                    i32::from(left(row).read().0.to_bits())
                };
                let value = pairs(_mm512_set1_epi32(pair));
                for vector in 0..VECTORS {
                    let sum = &mut sums[row][vector];
                    *sum = renamed(_mm512_dpbf16_ps(renamed(*sum), value, factors[vector]));
                }
            });
        }
    }
}
