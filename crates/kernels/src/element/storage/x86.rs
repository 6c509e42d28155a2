//! `bf16` in the registers of x86-64, without instructions for it: eight numbers at a time with AVX2, sixteen with AVX-512.
//!
//! `pulp` has no operations that change the width of a number. A register of a [`Simd`] type is eight or sixteen lanes of `f32` here,
//! by its size; sixteen bits of each lie in an `__m256i`, of which eight lanes fill the lower half.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, __m512, __m512i, _CMP_UNORD_Q, _mm_loadu_si128, _mm_storeu_si128,
    _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_epi8,
    _mm256_castps_si256, _mm256_castsi128_si256, _mm256_castsi256_si128, _mm256_cmp_ps,
    _mm256_cmpeq_epi32, _mm256_cvtepu16_epi32, _mm256_loadu_si256, _mm256_mask_storeu_epi16,
    _mm256_maskz_loadu_epi16, _mm256_or_si256, _mm256_packus_epi32, _mm256_permute4x64_epi64,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_storeu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
    _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32, _mm512_loadu_si512,
    _mm512_mask_and_epi32, _mm512_mask_or_epi32, _mm512_or_si512, _mm512_set1_epi32,
    _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_si512, _mm512_testn_epi32_mask,
};

use ::half::bf16;
use pulp::Simd;

/// Bits of the exponent, of the magnitude and of the sign of an `f32`.
const EXPONENT: i32 = 0x7F80_0000;
const MAGNITUDE: i32 = 0x7FFF_FFFF;
const SIGN: i32 = i32::MIN;

/// What makes a NaN a quiet one, and the sign, in the upper half of an `f32`.
const QUIET: i32 = 0x40;
const HALF_SIGN: i32 = 0x8000;

/// Numbers of a register with AVX2.
const EIGHT: usize = 8;

/// Whether `S` stands for registers as they are meant here.
#[inline(always)]
pub(super) const fn has_registers<S: Simd>() -> bool {
    !S::IS_SCALAR && (is_long::<S::f32s>() || size_of::<S::f32s>() == size_of::<__m256>())
}

/// Whether a register has sixteen lanes.
#[inline(always)]
const fn is_long<V>() -> bool {
    size_of::<V>() == size_of::<__m512>()
}

/// A register by another name. A read through a pointer would be checked, where assertions are.
#[inline(always)]
#[expect(unsafe_code, reason = "registers are plain numbers")]
pub(super) fn renamed<From: Copy, To: Copy>(register: From) -> To {
    #[repr(C)]
    union Names<From: Copy, To: Copy> {
        from: From,
        to: To,
    }

    debug_assert_eq!(size_of::<From>(), size_of::<To>());
    // SAFETY: both are plain numbers without padding, and of one size.
    unsafe { Names { from: register }.to }
}

/// The lanes below `lanes`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "sixteen lanes at most")]
pub(super) fn mask(lanes: usize) -> u16 {
    ((1_u32 << lanes) - 1) as u16
}

// SAFETY, of all that follows: the caller vouches for the instructions that a register `V` stands for, and for the memory.

/// Loads as many numbers as a register has lanes.
///
/// # Safety
/// `from` must be valid for reading them.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
pub(super) unsafe fn load<V>(from: *const bf16) -> __m256i {
    // SAFETY: as above.
    unsafe {
        if is_long::<V>() {
            _mm256_loadu_si256(from.cast())
        } else {
            _mm256_castsi128_si256(_mm_loadu_si128(from.cast()))
        }
    }
}

/// Loads the first `lanes` numbers; the others are 0 and their memory is not touched.
///
/// # Safety
/// `from` must be valid for reading `lanes` numbers.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
pub(super) unsafe fn load_first<V>(from: *const bf16, lanes: usize) -> __m256i {
    // SAFETY: as above.
    unsafe {
        if is_long::<V>() {
            return _mm256_maskz_loadu_epi16(mask(lanes), from.cast());
        }
        let mut numbers = [bf16::ZERO; EIGHT];
        for (lane, number) in numbers.iter_mut().enumerate().take(lanes) {
            *number = from.add(lane).read();
        }
        load::<V>(numbers.as_ptr())
    }
}

/// Stores as many numbers as a register has lanes.
///
/// # Safety
/// `to` must be valid for writing them.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
pub(super) unsafe fn store<V>(to: *mut bf16, numbers: __m256i) {
    // SAFETY: as above.
    unsafe {
        if is_long::<V>() {
            _mm256_storeu_si256(to.cast(), numbers);
        } else {
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(numbers));
        }
    }
}

/// Stores the first `lanes` numbers; the memory of the others is not touched.
///
/// # Safety
/// `to` must be valid for writing `lanes` numbers.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
pub(super) unsafe fn store_first<V>(to: *mut bf16, lanes: usize, numbers: __m256i) {
    // SAFETY: as above.
    unsafe {
        if is_long::<V>() {
            return _mm256_mask_storeu_epi16(to.cast(), mask(lanes), numbers);
        }
        let mut room = [bf16::ZERO; EIGHT];
        store::<V>(room.as_mut_ptr(), numbers);
        for (lane, number) in room.into_iter().enumerate().take(lanes) {
            to.add(lane).write(number);
        }
    }
}

/// Stores numbers as the first or the second of as many pairs; with the first, the second are zero.
///
/// # Safety
/// `to` must be valid for writing the pairs, and for reading them unless `term` is 0.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
pub(super) unsafe fn store_term<V>(to: *mut bf16, term: usize, numbers: __m256i) {
    // SAFETY: as above.
    unsafe {
        if is_long::<V>() {
            let mut pairs = _mm512_cvtepu16_epi32(numbers);
            if term != 0 {
                let first = _mm512_loadu_si512(to.cast());
                pairs = _mm512_or_si512(first, _mm512_slli_epi32::<16>(pairs));
            }
            _mm512_storeu_si512(to.cast(), pairs);
        } else {
            let mut pairs = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(numbers));
            if term != 0 {
                let first = _mm256_loadu_si256(to.cast());
                pairs = _mm256_or_si256(first, _mm256_slli_epi32::<16>(pairs));
            }
            _mm256_storeu_si256(to.cast(), pairs);
        }
    }
}

/// Numbers widened; those that are subnormal are zero.
///
/// # Safety
/// The processor must have the instructions.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
pub(super) unsafe fn widened<V: Copy>(numbers: __m256i) -> V {
    // SAFETY: as above.
    unsafe {
        flushed(if is_long::<V>() {
            renamed(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers)))
        } else {
            let numbers = _mm256_castsi256_si128(numbers);
            renamed(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(numbers)))
        })
    }
}

/// Zero of the same sign where a lane is subnormal.
///
/// # Safety
/// The processor must have the instructions.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
pub(super) unsafe fn flushed<V: Copy>(register: V) -> V {
    // SAFETY: as above.
    unsafe {
        if is_long::<V>() {
            let bits: __m512i = renamed(register);
            let is_small = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(EXPONENT));
            let sign = _mm512_set1_epi32(SIGN);
            renamed(_mm512_mask_and_epi32(bits, is_small, bits, sign))
        } else {
            let bits: __m256i = renamed(register);
            let exponent = _mm256_and_si256(bits, _mm256_set1_epi32(EXPONENT));
            let is_small = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
            let cleared = _mm256_and_si256(is_small, _mm256_set1_epi32(MAGNITUDE));
            renamed(_mm256_andnot_si256(cleared, bits))
        }
    }
}

/// Numbers rounded to the nearest, to even in the middle; those that are subnormal are zero.
///
/// # Safety
/// The processor must have the instructions.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
pub(super) unsafe fn rounded<V: Copy>(register: V) -> __m256i {
    // SAFETY: as above.
    unsafe {
        if is_long::<V>() {
            rounded_long(renamed(register))
        } else {
            _mm256_castsi128_si256(rounded_short(renamed(register)))
        }
    }
}

/// As [`rounded`].
///
/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
unsafe fn rounded_long(value: __m512) -> __m256i {
    // SAFETY: as the caller vouches.
    unsafe {
        let bits = _mm512_castps_si512(value);
        let upper = _mm512_srli_epi32::<16>(bits);
        // Half of the last place that stays, less one where that place is even: what carries into it is what rounds up.
        let last = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        let carry = _mm512_add_epi32(last, _mm512_set1_epi32(0x7FFF));
        let nearest = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, carry));
        let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
        let rounded = _mm512_mask_or_epi32(nearest, is_nan, upper, _mm512_set1_epi32(QUIET));
        let is_small = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(EXPONENT));
        let sign = _mm512_set1_epi32(HALF_SIGN);
        _mm512_cvtepi32_epi16(_mm512_mask_and_epi32(rounded, is_small, upper, sign))
    }
}

/// As [`rounded`].
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics of the processor")]
unsafe fn rounded_short(value: __m256) -> __m128i {
    // SAFETY: as the caller vouches.
    unsafe {
        let bits = _mm256_castps_si256(value);
        let upper = _mm256_srli_epi32::<16>(bits);
        let last = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let carry = _mm256_add_epi32(last, _mm256_set1_epi32(0x7FFF));
        let nearest = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, carry));
        let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
        let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(QUIET));
        let rounded = _mm256_blendv_epi8(nearest, quiet, is_nan);
        let exponent = _mm256_and_si256(bits, _mm256_set1_epi32(EXPONENT));
        let is_small = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
        let sign = _mm256_and_si256(upper, _mm256_set1_epi32(HALF_SIGN));
        let rounded = _mm256_blendv_epi8(rounded, sign, is_small);
        // Both halves of a register are packed for themselves; their lower quarters are what is wanted.
        let packed = _mm256_packus_epi32(rounded, rounded);
        _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
    }
}
