//! The products of a task's tiles with a panel of weights.

use std::ops::Range;

use pulp::Simd;

use super::PRODUCTS;
use crate::element::sealed::{lanes, load, store};
use crate::stack::Stack;
use crate::{Element, Existing};

/// Most tiles of a task.
pub(super) const TASK_TILES: usize = 48;

/// Bytes of the products with a panel of up to four registers.
pub(super) const PRODUCT_BYTES: usize = PRODUCTS * (4 * TASK_TILES + 1) * 64;

/// Where the products with a panel of `VECTORS` registers lie: `[product][tile][register]`, each product's a register more apart,
/// so that those of one tile do not all fall on the same set of the cache.
pub(super) struct Products<T, const VECTORS: usize> {
    first: *mut T,
}

#[expect(unsafe_code, reason = "products lie on the stack")]
impl<T: Element, const VECTORS: usize> Products<T, VECTORS> {
    #[inline(always)]
    pub(super) fn new(stack: &mut Stack<PRODUCT_BYTES>) -> Self {
        Self {
            first: stack.as_mut_ptr().cast(),
        }
    }

    #[inline(always)]
    fn place<S: Simd>(&self, product: usize, tile: usize, vector: usize) -> *mut T {
        debug_assert!(product < PRODUCTS && tile < TASK_TILES && vector < VECTORS);
        let registers = product * (TASK_TILES * VECTORS + 1) + tile * VECTORS + vector;
        self.first.wrapping_add(registers * lanes::<S, T>())
    }

    /// Puts sums of one product of some tiles there, or adds them to what is there.
    ///
    /// # Safety
    /// The stack must be there still, the tiles lie below `TASK_TILES`, and what is added to have been put there.
    #[inline(always)]
    pub(super) unsafe fn put<S: Simd, const GROUP: usize>(
        &self,
        simd: S,
        product: usize,
        tiles: Range<usize>,
        sums: &[[T::Vector<S>; VECTORS]; GROUP],
        existing: Existing,
    ) {
        for (tile, sums) in sums.iter().enumerate().take(tiles.len()) {
            for (vector, &sum) in sums.iter().enumerate() {
                let to = self.place::<S>(product, tiles.start + tile, vector);
                // SAFETY: as the caller vouches.
                unsafe {
                    let sum = match existing {
                        Existing::Replace => sum,
                        Existing::Add => T::vector_add(simd, load::<S, T>(simd, to), sum),
                    };
                    store::<S, T>(simd, to, sum);
                }
            }
        }
    }

    /// All products of one register of a tile.
    ///
    /// # Safety
    /// The stack must be there still, and all of them have been put there.
    #[inline(always)]
    pub(super) unsafe fn of_tile<S: Simd>(
        &self,
        simd: S,
        tile: usize,
        vector: usize,
    ) -> [T::Vector<S>; PRODUCTS] {
        let mut values = [T::splat(simd, T::ZERO); PRODUCTS];
        for (product, value) in values.iter_mut().enumerate() {
            // SAFETY: as the caller vouches.
            *value = unsafe { load::<S, T>(simd, self.place::<S>(product, tile, vector)) };
        }
        values
    }
}
