//! `bf16` on processors without instructions for it: widened as it is loaded, rounded as it is stored.

use ::half::bf16;
use pulp::Simd;

use super::registers::{Register, Stored, for_each_row, lanes};
#[cfg(target_arch = "x86_64")]
use super::{native, registers::Operation, x86};
use crate::Storage;
use crate::element::sealed::{Family, Vectors};
use crate::stack::Aligned;

/// Lanes of the longest register.
const MOST_LANES: usize = 16;

#[expect(unsafe_code, reason = "the micro-kernels address memory by pointer")]
impl Stored for bf16 {
    const TERMS: usize = 2;

    #[inline(always)]
    fn run<F: Family>(task: F::Task<'_, Self>) {
        F::half(task);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn operate<O: Operation>(operands: O::Operands<'_, Self>) {
        if native::is_there() {
            O::run(O::native(operands));
        } else {
            O::run(operands);
        }
    }

    #[inline(always)]
    fn to_factor(self) -> Self {
        Self::narrow(self.widen())
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> Register<Self, S> {
        #[cfg(target_arch = "x86_64")]
        if x86::has_registers::<S>() {
            // SAFETY: as the caller vouches.
            return unsafe { x86::widened(x86::load::<S::f32s>(from)) };
        }
        // SAFETY: as the caller vouches.
        unsafe { Self::load_first(simd, from, lanes::<S, Self>()) }
    }

    #[inline(always)]
    unsafe fn load_first<S: Simd>(_: S, from: *const Self, lanes: usize) -> Register<Self, S> {
        #[cfg(target_arch = "x86_64")]
        if x86::has_registers::<S>() {
            // SAFETY: as the caller vouches.
            return unsafe { x86::widened(x86::load_first::<S::f32s>(from, lanes)) };
        }
        let mut wide = Aligned([0.0; MOST_LANES]);
        for (lane, value) in wide.0.iter_mut().enumerate().take(lanes) {
            // SAFETY: as the caller vouches.
            *value = unsafe { from.add(lane).read() }.widen();
        }
        // SAFETY: a register has at most so many lanes, and is plain numbers without padding.
        unsafe { wide.0.as_ptr().cast::<Register<Self, S>>().read() }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, to: *mut Self, value: Register<Self, S>) {
        #[cfg(target_arch = "x86_64")]
        if x86::has_registers::<S>() {
            // SAFETY: as the caller vouches.
            return unsafe { x86::store::<S::f32s>(to, x86::rounded(value)) };
        }
        // SAFETY: as the caller vouches.
        unsafe { Self::store_first(simd, to, lanes::<S, Self>(), value) }
    }

    #[inline(always)]
    unsafe fn store_first<S: Simd>(_: S, to: *mut Self, lanes: usize, value: Register<Self, S>) {
        #[cfg(target_arch = "x86_64")]
        if x86::has_registers::<S>() {
            // SAFETY: as the caller vouches.
            return unsafe { x86::store_first::<S::f32s>(to, lanes, x86::rounded(value)) };
        }
        let wide = in_lanes::<S>(value);
        for (lane, &value) in wide.0.iter().enumerate().take(lanes) {
            // SAFETY: as the caller vouches.
            unsafe { to.add(lane).write(Self::narrow(value)) };
        }
    }

    #[inline(always)]
    unsafe fn store_term<S: Simd>(_: S, to: *mut Self, term: usize, value: Register<Self, S>) {
        #[cfg(target_arch = "x86_64")]
        if x86::has_registers::<S>() {
            // SAFETY: as the caller vouches.
            return unsafe { x86::store_term::<S::f32s>(to, term, x86::rounded(value)) };
        }
        let wide = in_lanes::<S>(value);
        for (lane, &value) in wide.0.iter().enumerate().take(lanes::<S, Self>()) {
            let to = to.wrapping_add(2 * lane);
            // SAFETY: as the caller vouches.
            unsafe {
                to.add(term).write(Self::narrow(value));
                if term == 0 {
                    to.add(1).write(Self::ZERO);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add_step<S: Simd, const VECTORS: usize, const ROWS: usize, const WHOLE: bool>(
        simd: S,
        sums: &mut [[Register<Self, S>; VECTORS]; ROWS],
        left: impl Fn(usize) -> *const Self,
        panel: *const Self,
    ) {
        let lanes = lanes::<S, Self>();
        let mut pairs = [simd.splat_u32s(0); VECTORS];
        for (vector, pair) in pairs.iter_mut().enumerate() {
            let from = panel.wrapping_add(vector * lanes * Self::TERMS);
            // SAFETY: as the caller vouches; vectors are plain numbers without padding.
            *pair = unsafe { from.cast::<S::u32s>().read_unaligned() };
        }
        // One term after the other: there are registers for one of each pair.
        for term in [1, 0] {
            let mut factors = [simd.splat_f32s(0.0); VECTORS];
            for (factor, &pair) in factors.iter_mut().zip(&pairs) {
                *factor = member(simd, pair, term);
            }
            for_each_row!(ROWS, row, {
                let bits = if term == 0 || WHOLE {
                    // SAFETY: as the caller vouches.
                    unsafe { left(row).add(term).read() }.to_bits()
                } else {
                    0
                };
                let value = simd.splat_u32s(u32::from(bits) << 16);
                let value = flushed(simd, simd.transmute_f32s_u32s(value));
                for vector in 0..VECTORS {
                    let sum = &mut sums[row][vector];
                    *sum = flushed(
                        simd,
                        <f32 as Vectors>::mul_add(simd, value, factors[vector], *sum),
                    );
                }
            });
        }
    }
}

/// The lanes of a register, where they can be counted through.
#[inline(always)]
fn in_lanes<S: Simd>(value: S::f32s) -> Aligned<[f32; MOST_LANES]> {
    let mut wide = Aligned([0.0; MOST_LANES]);
    #[expect(unsafe_code, reason = "registers are plain numbers")]
    // SAFETY: a register has at most so many lanes.
    unsafe {
        wide.0.as_mut_ptr().cast::<S::f32s>().write(value);
    }
    wide
}

/// A member of each pair: the even one, 0, or the odd one, 1.
#[inline(always)]
fn member<S: Simd>(simd: S, pairs: S::u32s, member: usize) -> S::f32s {
    let is_upper = cfg!(target_endian = "little") == (member == 1);
    simd.transmute_f32s_u32s(if is_upper {
        simd.and_u32s(pairs, simd.splat_u32s(0xFFFF_0000))
    } else {
        simd.wrapping_dyn_shl_u32s(pairs, simd.splat_u32s(16))
    })
}

/// Zero of the same sign where a lane is subnormal, as the instructions for `bf16` have it.
#[inline(always)]
fn flushed<S: Simd>(simd: S, value: S::f32s) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    if x86::has_registers::<S>() {
        #[expect(unsafe_code, reason = "intrinsics of the processor")]
        // SAFETY: `simd` vouches for the processor.
        return unsafe { x86::flushed(value) };
    }
    let is_small = simd.less_than_f32s(simd.abs_f32s(value), simd.splat_f32s(f32::MIN_POSITIVE));
    let zero = simd.and_f32s(value, simd.splat_f32s(-0.0));
    simd.select_f32s(is_small, zero, value)
}
