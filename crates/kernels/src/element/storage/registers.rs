//! How stored numbers meet registers: loads, stores, and the step of a product.

use pulp::{Simd, WithSimd};

use crate::Storage;
use crate::element::sealed::{Family, Vectors};
use crate::instructions;

/// A register of what a stored number is computed in.
pub(crate) type Register<E, S> = <<E as Storage>::Compute as Vectors>::Vector<S>;

/// A kernel as a whole, before it is cut into tasks.
pub trait Operation {
    /// What it works on.
    type Operands<'a, E: Storage>;

    /// Does it.
    fn run<E: Storage>(operands: Self::Operands<'_, E>);

    /// The same operands, of numbers for which the processor has instructions.
    #[cfg(target_arch = "x86_64")]
    fn native<'a>(
        operands: Self::Operands<'a, crate::bf16>,
    ) -> Self::Operands<'a, super::native::NativeBf16>;
}

/// Stored numbers in registers of whatever instructions `S` stands for; all inlined into the caller.
///
/// A product adds [`Stored::TERMS`] neighbouring terms to a sum in one step: the values of a step lie side by side on both sides. Of
/// two terms the odd one is added first.
#[expect(unsafe_code, reason = "the micro-kernels address memory by pointer")]
pub trait Stored: Sized {
    /// Terms of a step.
    const TERMS: usize;

    /// Runs a task of a family.
    fn run<F: Family>(task: F::Task<'_, Self>)
    where
        Self: Storage;

    /// Runs `work`, compiled for the best instructions for such numbers.
    #[inline(always)]
    fn dispatch<Work: WithSimd>(work: Work) -> Work::Output {
        instructions::dispatch(work)
    }

    /// Does an operation, with instructions for such numbers if the processor has some.
    #[inline(always)]
    fn operate<O: Operation>(operands: O::Operands<'_, Self>)
    where
        Self: Storage,
    {
        O::run(operands);
    }

    /// The same number, or zero where a product takes it so.
    #[must_use]
    fn to_factor(self) -> Self;

    /// Loads a whole register.
    ///
    /// # Safety
    /// `from` must be valid for reading a register's lanes.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> Register<Self, S>
    where
        Self: Storage;

    /// Loads the first `lanes` lanes; the others are 0 and their memory is not touched.
    ///
    /// # Safety
    /// `from` must be valid for reading `lanes` numbers; `lanes` is at most the register's.
    unsafe fn load_first<S: Simd>(simd: S, from: *const Self, lanes: usize) -> Register<Self, S>
    where
        Self: Storage;

    /// Stores a whole register.
    ///
    /// # Safety
    /// `to` must be valid for writing a register's lanes.
    unsafe fn store<S: Simd>(simd: S, to: *mut Self, value: Register<Self, S>)
    where
        Self: Storage;

    /// Stores the first `lanes` lanes; the memory of the others is not touched.
    ///
    /// # Safety
    /// `to` must be valid for writing `lanes` numbers; `lanes` is at most the register's.
    unsafe fn store_first<S: Simd>(simd: S, to: *mut Self, lanes: usize, value: Register<Self, S>)
    where
        Self: Storage;

    /// Stores a register as the terms `term` of as many steps that lie side by side. The first terms are stored first; what follows
    /// them is zero until it is stored, too.
    ///
    /// # Safety
    /// `to` must be valid for writing all terms of a register's lanes, and for reading them unless `term` is 0.
    unsafe fn store_term<S: Simd>(simd: S, to: *mut Self, term: usize, value: Register<Self, S>)
    where
        Self: Storage;

    /// Lays the values of two rows side by side, in pairs, as factors.
    ///
    /// # Safety
    /// The rows must be valid for reading `count` values, and `to` for writing twice as many.
    #[inline(always)]
    unsafe fn interleave<S: Simd>(_: S, rows: [*const Self; 2], to: *mut Self, count: usize)
    where
        Self: Storage,
    {
        for index in 0..count {
            for (term, row) in rows.iter().enumerate() {
                // SAFETY: as the caller vouches.
                unsafe {
                    to.add(2 * index + term)
                        .write(row.add(index).read().to_factor())
                };
            }
        }
    }

    /// Adds a step to all sums: what lies at `left` of each row, times a panel. Unless the step is `WHOLE`, only its first term is
    /// there on the left, and the others of the panel are zero.
    ///
    /// # Safety
    /// `left` must be valid for reading the terms that are there, and `panel` for reading all terms of so many registers.
    unsafe fn add_step<S: Simd, const VECTORS: usize, const ROWS: usize, const WHOLE: bool>(
        simd: S,
        sums: &mut [[Register<Self, S>; VECTORS]; ROWS],
        left: impl Fn(usize) -> *const Self,
        panel: *const Self,
    ) where
        Self: Storage;
}

macro_rules! stored_as_computed {
    ($number:ident, $run:ident) => {
        #[expect(unsafe_code, reason = "the micro-kernels address memory by pointer")]
        impl Stored for $number {
            const TERMS: usize = 1;

            #[inline(always)]
            fn run<F: Family>(task: F::Task<'_, Self>) {
                F::$run(task);
            }

            #[inline(always)]
            fn to_factor(self) -> Self {
                self
            }

            #[inline(always)]
            unsafe fn load<S: Simd>(_: S, from: *const Self) -> Register<Self, S> {
                // SAFETY: the caller vouches for the memory; vectors are plain numbers without padding.
                unsafe { from.cast::<Register<Self, S>>().read_unaligned() }
            }

            #[inline(always)]
            unsafe fn load_first<S: Simd>(
                simd: S,
                from: *const Self,
                lanes: usize,
            ) -> Register<Self, S> {
                // SAFETY: as the caller vouches.
                unsafe { <Self as Vectors>::load_first(simd, from, lanes) }
            }

            #[inline(always)]
            unsafe fn store<S: Simd>(_: S, to: *mut Self, value: Register<Self, S>) {
                // SAFETY: the caller vouches for the memory; vectors are plain numbers without padding.
                unsafe { to.cast::<Register<Self, S>>().write_unaligned(value) }
            }

            #[inline(always)]
            unsafe fn store_first<S: Simd>(
                simd: S,
                to: *mut Self,
                lanes: usize,
                value: Register<Self, S>,
            ) {
                // SAFETY: as the caller vouches.
                unsafe { <Self as Vectors>::store_first(simd, to, lanes, value) }
            }

            #[inline(always)]
            unsafe fn store_term<S: Simd>(
                simd: S,
                to: *mut Self,
                _: usize,
                value: Register<Self, S>,
            ) {
                // SAFETY: as the caller vouches.
                unsafe { <Self as Stored>::store(simd, to, value) }
            }

            #[inline(always)]
            unsafe fn add_step<
                S: Simd,
                const VECTORS: usize,
                const ROWS: usize,
                const WHOLE: bool,
            >(
                simd: S,
                sums: &mut [[Register<Self, S>; VECTORS]; ROWS],
                left: impl Fn(usize) -> *const Self,
                panel: *const Self,
            ) {
                let lanes = lanes::<S, Self>();
                let mut vectors = [Self::splat(simd, 0.0); VECTORS];
                // SAFETY: as the caller vouches.
                unsafe {
                    for (vector, slot) in vectors.iter_mut().enumerate() {
                        *slot = <Self as Stored>::load(simd, panel.add(vector * lanes));
                    }
                    for row in 0..ROWS {
                        let value = Self::splat(simd, *left(row));
                        for vector in 0..VECTORS {
                            sums[row][vector] = <Self as Vectors>::mul_add(
                                simd,
                                value,
                                vectors[vector],
                                sums[row][vector],
                            );
                        }
                    }
                }
            }
        }
    };
}

stored_as_computed!(f32, single);
stored_as_computed!(f64, double);

/// Runs a block of code for each of `ROWS` rows, at most twelve. Unrolled by hand: the compiler keeps sums in registers only where it
/// knows all indices.
macro_rules! for_each_row {
    ($rows:ident, $row:ident, $work:block) => {
        for_each_row!(@$rows, $row, $work, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@$rows:ident, $row:ident, $work:block, $($index:literal)*) => {{
        const { assert!($rows <= 12) };
        $(if $index < $rows {
            let $row = $index;
            $work
        })*
    }};
}
pub(super) use for_each_row;

/// Lanes of a register.
#[inline(always)]
pub(crate) const fn lanes<S: Simd, E: Storage>() -> usize {
    size_of::<Register<E, S>>() / size_of::<E::Compute>()
}

/// Zero in all lanes.
#[inline(always)]
pub(crate) fn zero<S: Simd, E: Storage>(simd: S) -> Register<E, S> {
    E::Compute::splat(simd, E::Compute::ZERO)
}

/// The places where registers begin in a slice of `length` values.
#[inline(always)]
pub(crate) fn registers<S: Simd, E: Storage>(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(lanes::<S, E>())
}

/// Loads a whole register.
///
/// # Safety
/// `from` must be valid for reading [`lanes`] numbers.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernels address memory by pointer")]
pub(crate) unsafe fn load<S: Simd, E: Storage>(simd: S, from: *const E) -> Register<E, S> {
    // SAFETY: as the caller vouches.
    unsafe { E::load(simd, from) }
}

/// Stores a whole register.
///
/// # Safety
/// `to` must be valid for writing [`lanes`] numbers.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernels address memory by pointer")]
pub(crate) unsafe fn store<S: Simd, E: Storage>(simd: S, to: *mut E, value: Register<E, S>) {
    // SAFETY: as the caller vouches.
    unsafe { E::store(simd, to, value) }
}

/// Loads `count` lanes.
///
/// # Safety
/// `from` must be valid for reading `count` numbers; `count` is at most a register's.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernels address memory by pointer")]
pub(crate) unsafe fn load_some<S: Simd, E: Storage>(
    simd: S,
    from: *const E,
    count: usize,
) -> Register<E, S> {
    // SAFETY: as the caller vouches.
    unsafe {
        if count == lanes::<S, E>() {
            E::load(simd, from)
        } else {
            <E as Stored>::load_first(simd, from, count)
        }
    }
}

/// Stores `count` lanes.
///
/// # Safety
/// `to` must be valid for writing `count` numbers; `count` is at most a register's.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernels address memory by pointer")]
pub(crate) unsafe fn store_some<S: Simd, E: Storage>(
    simd: S,
    to: *mut E,
    count: usize,
    value: Register<E, S>,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        if count == lanes::<S, E>() {
            E::store(simd, to, value);
        } else {
            <E as Stored>::store_first(simd, to, count, value);
        }
    }
}

/// The values of a slice that begin at `place`, as many as a register holds, or as are left; the other lanes are 0.
#[inline(always)]
pub(crate) fn load_from<S: Simd, E: Storage>(simd: S, from: &[E], place: usize) -> Register<E, S> {
    let from = &from[place..];
    let count = from.len().min(lanes::<S, E>());
    #[expect(unsafe_code, reason = "masked loads are raw")]
    // SAFETY: `count` values are there.
    unsafe {
        load_some(simd, from.as_ptr(), count)
    }
}

/// Stores a register in a slice from `place` on, as many lanes as there is room for.
#[inline(always)]
pub(crate) fn store_to<S: Simd, E: Storage>(
    simd: S,
    to: &mut [E],
    place: usize,
    value: Register<E, S>,
) {
    let to = &mut to[place..];
    let count = to.len().min(lanes::<S, E>());
    #[expect(unsafe_code, reason = "masked stores are raw")]
    // SAFETY: there is room for `count` values.
    unsafe {
        store_some(simd, to.as_mut_ptr(), count, value);
    }
}
