//! The two kinds of number the kernels run on, and their vectors.

pub(crate) mod storage;

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub};

use crate::math;
use storage::Storage;

/// A floating-point number the kernels run on: `f32` or `f64`.
pub trait Element:
    sealed::Vectors
    + Storage<Compute = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
    + Sum
    + Into<f64>
{
    /// One.
    const ONE: Self;
    /// Minus infinity: the padding of max-pooling.
    const NEG_INFINITY: Self;

    /// The nearest number of this kind.
    fn from_f64(value: f64) -> Self;

    /// The same number in double precision.
    fn to_f64(self) -> f64;

    /// The square root.
    #[must_use]
    fn sqrt(self) -> Self;

    /// The error function, accurate to a few units in the last place.
    #[must_use]
    fn erf(self) -> Self;

    /// The exponential, accurate to a few units in the last place.
    #[must_use]
    fn exp(self) -> Self;

    /// The hyperbolic tangent, accurate to a few units in the last place.
    #[must_use]
    fn tanh(self) -> Self;
}

macro_rules! element {
    ($number:ident, $round:expr, $erf:path, $exp:path, $tanh:path) => {
        impl Element for $number {
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = Self::NEG_INFINITY;

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                $round(value)
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }

            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }

            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh(self)
            }
        }
    };
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is asked for"
)]
fn round(value: f64) -> f32 {
    value as f32
}

element!(f32, round, math::erf, math::exp, math::tanh);
element!(
    f64,
    std::convert::identity,
    libm::erf,
    libm::exp,
    libm::tanh
);

pub(crate) mod sealed {
    use pulp::{MemMask, Simd};

    use crate::Storage;
    use crate::bf16;
    #[cfg(target_arch = "x86_64")]
    use crate::element::storage::native::NativeBf16;
    pub(crate) use crate::element::storage::registers::{
        Operation, Register, Stored, lanes, load, load_from, load_some, registers, store,
        store_some, store_to, zero,
    };

    /// A family of micro-kernels. Its functions are not generic, so that the kernels are compiled once, in this crate, and not again
    /// in every crate that calls them; and numbers know nothing of families.
    pub trait Family {
        /// What a micro-kernel works on.
        type Task<'a, E: Storage>;

        /// Runs a task in single precision.
        fn single(task: Self::Task<'_, f32>);

        /// Runs a task in double precision.
        fn double(task: Self::Task<'_, f64>);

        /// Runs a task on `bf16`.
        fn half(task: Self::Task<'_, bf16>);

        /// Runs a task on `bf16`, with instructions for it.
        #[cfg(target_arch = "x86_64")]
        fn native_half(task: Self::Task<'_, NativeBf16>);
    }

    /// The functions of a [`Family`], all alike.
    macro_rules! for_each_number {
        (|$task:ident, $Number:ident| $run:expr) => {
            fn single($task: Self::Task<'_, f32>) {
                type $Number = f32;
                $run
            }

            fn double($task: Self::Task<'_, f64>) {
                type $Number = f64;
                $run
            }

            fn half($task: Self::Task<'_, $crate::bf16>) {
                type $Number = $crate::bf16;
                $run
            }

            #[cfg(target_arch = "x86_64")]
            fn native_half($task: Self::Task<'_, $crate::element::storage::native::NativeBf16>) {
                type $Number = $crate::element::storage::native::NativeBf16;
                $run
            }
        };
    }
    pub(crate) use for_each_number;

    /// Vectors of a number on whatever instructions `S` stands for; all inlined into the caller, which
    /// `pulp` has compiled for those instructions.
    #[expect(unsafe_code, reason = "masked loads and stores are raw")]
    pub trait Vectors: Sized {
        /// A vector that fills one register.
        type Vector<S: Simd>: Copy;

        /// All lanes the same.
        fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

        /// `a + b`.
        fn vector_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

        /// `a - b`.
        fn vector_sub<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

        /// `a * b`.
        fn vector_mul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

        /// `a * b + c`, rounded once.
        fn mul_add<S: Simd>(
            simd: S,
            a: Self::Vector<S>,
            b: Self::Vector<S>,
            c: Self::Vector<S>,
        ) -> Self::Vector<S>;

        /// The bound where a lane is below it, and the lane elsewhere: NaN stays NaN.
        fn at_least<S: Simd>(
            simd: S,
            a: Self::Vector<S>,
            bound: Self::Vector<S>,
        ) -> Self::Vector<S>;

        /// The bound where a lane is above it, and the lane elsewhere: NaN stays NaN.
        fn at_most<S: Simd>(simd: S, a: Self::Vector<S>, bound: Self::Vector<S>)
        -> Self::Vector<S>;

        /// The sum of all lanes.
        fn sum_lanes<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;

        /// The first `lanes` lanes, and 0 in the others.
        fn first_lanes<S: Simd>(simd: S, a: Self::Vector<S>, lanes: usize) -> Self::Vector<S>;

        /// Loads the first `lanes` lanes; the others are 0 and their memory is not touched.
        ///
        /// # Safety
        /// `from` must be valid for reading `lanes` numbers; `lanes` is at most the vector's.
        unsafe fn load_first<S: Simd>(simd: S, from: *const Self, lanes: usize) -> Self::Vector<S>;

        /// Stores the first `lanes` lanes; the memory of the others is not touched.
        ///
        /// # Safety
        /// `to` must be valid for writing `lanes` numbers; `lanes` is at most the vector's.
        unsafe fn store_first<S: Simd>(
            simd: S,
            to: *mut Self,
            lanes: usize,
            value: Self::Vector<S>,
        );
    }

    macro_rules! vectors {
        (
            $number:ident, $vector:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident,
            $mul_add:ident, $sum:ident, $less:ident, $select:ident, $mask:ident, $load:ident, $store:ident, $lane:ident
        ) => {
            impl Vectors for $number {
                type Vector<S: Simd> = S::$vector;

                #[inline(always)]
                fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S> {
                    simd.$splat(value)
                }

                #[inline(always)]
                fn vector_add<S: Simd>(
                    simd: S,
                    a: Self::Vector<S>,
                    b: Self::Vector<S>,
                ) -> Self::Vector<S> {
                    simd.$add(a, b)
                }

                #[inline(always)]
                fn vector_sub<S: Simd>(
                    simd: S,
                    a: Self::Vector<S>,
                    b: Self::Vector<S>,
                ) -> Self::Vector<S> {
                    simd.$sub(a, b)
                }

                #[inline(always)]
                fn vector_mul<S: Simd>(
                    simd: S,
                    a: Self::Vector<S>,
                    b: Self::Vector<S>,
                ) -> Self::Vector<S> {
                    simd.$mul(a, b)
                }

                #[inline(always)]
                fn mul_add<S: Simd>(
                    simd: S,
                    a: Self::Vector<S>,
                    b: Self::Vector<S>,
                    c: Self::Vector<S>,
                ) -> Self::Vector<S> {
                    simd.$mul_add(a, b, c)
                }

                #[inline(always)]
                fn at_least<S: Simd>(
                    simd: S,
                    a: Self::Vector<S>,
                    bound: Self::Vector<S>,
                ) -> Self::Vector<S> {
                    simd.$select(simd.$less(a, bound), bound, a)
                }

                #[inline(always)]
                fn at_most<S: Simd>(
                    simd: S,
                    a: Self::Vector<S>,
                    bound: Self::Vector<S>,
                ) -> Self::Vector<S> {
                    simd.$select(simd.$less(bound, a), bound, a)
                }

                #[inline(always)]
                fn sum_lanes<S: Simd>(simd: S, a: Self::Vector<S>) -> Self {
                    simd.$sum(a)
                }

                #[inline(always)]
                fn first_lanes<S: Simd>(
                    simd: S,
                    a: Self::Vector<S>,
                    lanes: usize,
                ) -> Self::Vector<S> {
                    let mask = simd.$mask(0, $lane(lanes)).mask();
                    simd.$select(mask, a, simd.$splat(0.0))
                }

                #[inline(always)]
                #[expect(unsafe_code, reason = "masked loads are raw")]
                unsafe fn load_first<S: Simd>(
                    simd: S,
                    from: *const Self,
                    lanes: usize,
                ) -> Self::Vector<S> {
                    debug_assert!(lanes <= self::lanes::<S, Self>());
                    // SAFETY: only the lanes below `lanes` are read, which the caller vouches for.
                    unsafe { simd.$load(in_register(simd.$mask(0, $lane(lanes))), from) }
                }

                #[inline(always)]
                #[expect(unsafe_code, reason = "masked stores are raw")]
                unsafe fn store_first<S: Simd>(
                    simd: S,
                    to: *mut Self,
                    lanes: usize,
                    value: Self::Vector<S>,
                ) {
                    debug_assert!(lanes <= self::lanes::<S, Self>());
                    // SAFETY: only the lanes below `lanes` are written, which the caller vouches for.
                    unsafe { simd.$store(in_register(simd.$mask(0, $lane(lanes))), to, value) }
                }
            }
        };
    }

    vectors!(
        f32,
        f32s,
        splat_f32s,
        add_f32s,
        sub_f32s,
        mul_f32s,
        mul_add_f32s,
        reduce_sum_f32s,
        less_than_f32s,
        select_f32s,
        mask_between_m32s,
        mask_load_ptr_f32s,
        mask_store_ptr_f32s,
        lanes_u32
    );
    vectors!(
        f64,
        f64s,
        splat_f64s,
        add_f64s,
        sub_f64s,
        mul_f64s,
        mul_add_f64s,
        reduce_sum_f64s,
        less_than_f64s,
        select_f64s,
        mask_between_m64s,
        mask_load_ptr_f64s,
        mask_store_ptr_f64s,
        lanes_u64
    );

    /// A mask that is applied as such where instructions have masks, that is AVX-512: by default `pulp` jumps to code for it.
    #[inline(always)]
    fn in_register<Mask: Copy>(mask: MemMask<Mask>) -> MemMask<Mask> {
        if size_of::<Mask>() < 4 {
            mask.mask().into()
        } else {
            mask
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a register has few lanes")]
    fn lanes_u32(lanes: usize) -> u32 {
        lanes as u32
    }

    #[inline(always)]
    fn lanes_u64(lanes: usize) -> u64 {
        lanes as u64
    }

    /// Widest panel of weights, in registers, that leaves a micro-kernel enough accumulators.
    pub(crate) const fn widest_panel<S: Simd>() -> usize {
        if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
    }
}
