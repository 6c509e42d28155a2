//! What activations are stored as, and what arithmetic is done in.
//!
//! `f32` and `f64` are stored as they are computed. `bf16`, the upper half of an `f32`, is stored in two bytes and computed in `f32`: a
//! kernel widens what it reads, and rounds what it writes once, to the nearest and to even. Subnormal numbers of `bf16` are zero,
//! whether they are read or written, since the processors' own instructions take them so.

mod half;
#[cfg(target_arch = "x86_64")]
pub(crate) mod native;
pub(crate) mod registers;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt::{Debug, Display};

use ::half::bf16;

use crate::Element;

/// A number that activations are stored as: `f32`, `f64` or [`bf16`].
pub trait Storage:
    registers::Stored
    + Copy
    + Default
    + Send
    + Sync
    + Debug
    + Display
    + PartialEq
    + PartialOrd
    + 'static
{
    /// What arithmetic on it is done in.
    type Compute: Element;

    /// Zero.
    const ZERO: Self;

    /// The same number, to compute with.
    #[must_use]
    fn widen(self) -> Self::Compute;

    /// The nearest number of this kind, to even in the middle.
    #[must_use]
    fn narrow(value: Self::Compute) -> Self;

    /// The same values, to write, if they are stored as they are computed.
    #[must_use]
    #[inline(always)]
    fn as_computed_mut(_: &mut [Self]) -> Option<&mut [Self::Compute]> {
        None
    }
}

macro_rules! stored_as_computed {
    ($number:ident) => {
        impl Storage for $number {
            type Compute = Self;

            const ZERO: Self = 0.0;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }

            #[inline(always)]
            fn narrow(value: Self) -> Self {
                value
            }

            #[inline(always)]
            fn as_computed_mut(values: &mut [Self]) -> Option<&mut [Self]> {
                Some(values)
            }
        }
    };
}

stored_as_computed!(f32);
stored_as_computed!(f64);

/// Bits of an `f32` that are not its sign.
const MAGNITUDE: u32 = 0x7FFF_FFFF;

/// Infinity's.
const INFINITY: u32 = 0x7F80_0000;

/// The least exponent of a number that is not subnormal.
const NORMAL: u32 = 0x0080_0000;

impl Storage for bf16 {
    type Compute = f32;

    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits()) << 16;
        let is_subnormal = bits & INFINITY == 0;
        f32::from_bits(if is_subnormal {
            bits & !MAGNITUDE
        } else {
            bits
        })
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the upper half is what is stored"
    )]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let magnitude = bits & MAGNITUDE;
        // Half of the last place that stays, less one where that place is even: what carries into it is what rounds up.
        let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
        let quiet = bits >> 16 | 0x40;
        let zero = (bits & !MAGNITUDE) >> 16;
        let rounded = if magnitude > INFINITY { quiet } else { nearest };
        Self::from_bits(if magnitude < NORMAL { zero } else { rounded } as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number is itself again; subnormal ones are zero, of the same sign.
    #[test]
    fn stored_numbers_stay() {
        for bits in 0..=u16::MAX {
            let number = bf16::from_bits(bits);
            let again = bf16::narrow(number.widen());
            if number.is_nan() {
                assert!(again.is_nan() && number.widen().is_nan(), "{bits:#x}");
            } else if number.is_normal() || number == bf16::ZERO || number.is_infinite() {
                assert_eq!(again.to_bits(), bits);
                assert_eq!(number.widen(), number.to_f32());
            } else {
                assert_eq!(again.to_bits(), bits & 0x8000);
            }
        }
    }

    /// Rounding is that of the crate that defines the number, except for what is subnormal.
    #[test]
    fn rounds_to_nearest_even() {
        let mut bits = 0_u32;
        for _ in 0..1 << 20 {
            bits = bits.wrapping_mul(0x915F_77F5).wrapping_add(0x9E37_79B9);
            for bits in [bits, bits & 0xFFFF_0000 | 0x8000, bits | 0xFFFF] {
                let value = f32::from_bits(bits);
                let (found, expected) = (bf16::narrow(value), bf16::from_f32(value));
                if value.is_nan() {
                    assert!(found.is_nan());
                } else if value.is_normal() {
                    assert_eq!(found.to_bits(), expected.to_bits(), "{value:e}");
                } else {
                    assert_eq!(found.widen(), 0.0);
                }
            }
        }
        assert_eq!(bf16::narrow(f32::INFINITY), bf16::INFINITY);
        assert_eq!(bf16::narrow(f32::MAX), bf16::INFINITY);
    }
}
