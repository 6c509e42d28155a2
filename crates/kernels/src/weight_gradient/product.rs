//! The inner loop of dense weight gradients: a sum of outer products.

use std::ops::Range;

use pulp::Simd;

use crate::Element;
use crate::bounds::holds;
use crate::element::sealed::{lanes, load, store, widest_panel};

/// Values of one side of the products, some for each position.
#[derive(Clone, Copy)]
pub(crate) struct Rows<T> {
    pub(crate) first: *const T,
    /// From one row of positions to the next.
    pub(crate) row_pitch: usize,
    /// From one position of a row to the next.
    pub(crate) pitch: usize,
}

impl<T> Rows<T> {
    /// Whether `count` values of the first and of the last of some positions are part of `slice`.
    pub(crate) fn are_in(
        &self,
        slice: &[T],
        [rows, columns]: [&Range<usize>; 2],
        count: usize,
    ) -> bool {
        let last = (rows.len() - 1) * self.row_pitch + (columns.len() - 1) * self.pitch;
        holds(slice, self.first, count) && holds(slice, self.first.wrapping_add(last), count)
    }
}

/// Rows and columns of a rectangle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Extent {
    #[inline(always)]
    pub(crate) const fn product(self) -> usize {
        self.rows * self.columns
    }
}

/// Where sums of products lie, one row for each value of the left side.
#[derive(Clone, Copy)]
pub(crate) struct Sums<T> {
    pub(crate) first: *mut T,
    pub(crate) pitch: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Whether the sums that are there are replaced or added to.
    pub(crate) replace: bool,
}

/// Sums, over `positions`, the products of each value of `left` with each of `right`.
///
/// # Safety
/// `left` must be valid for reading `sums.rows` values of each position; `right` for reading, and `sums` for reading and writing,
/// `sums.columns` values of each row, filled up to whole registers.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
pub(crate) unsafe fn multiply<S: Simd, T: Element>(
    simd: S,
    left: Rows<T>,
    right: Rows<T>,
    positions: Extent,
    sums: Sums<T>,
) {
    let lanes = lanes::<S, T>();
    let vectors = sums.columns.div_ceil(lanes);
    let panels = vectors.div_ceil(widest_panel::<S>());
    for panel in 0..panels {
        let first = panel * vectors / panels;
        let count = (panel + 1) * vectors / panels - first;
        let right = Rows {
            first: right.first.wrapping_add(first * lanes),
            ..right
        };
        let sums = Sums {
            first: sums.first.wrapping_add(first * lanes),
            ..sums
        };
        // SAFETY: as the caller vouches. As many sums as the registers hold.
        unsafe {
            if S::REGISTER_COUNT >= 32 {
                match count {
                    1 => by_rows::<S, T, 1, 12>(simd, left, right, positions, sums),
                    2 => by_rows::<S, T, 2, 10>(simd, left, right, positions, sums),
                    3 => by_rows::<S, T, 3, 8>(simd, left, right, positions, sums),
                    _ => by_rows::<S, T, 4, 6>(simd, left, right, positions, sums),
                }
            } else {
                match count {
                    1 => by_rows::<S, T, 1, 12>(simd, left, right, positions, sums),
                    _ => by_rows::<S, T, 2, 6>(simd, left, right, positions, sums),
                }
            }
        }
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
unsafe fn by_rows<S: Simd, T: Element, const VECTORS: usize, const MOST: usize>(
    simd: S,
    left: Rows<T>,
    right: Rows<T>,
    positions: Extent,
    sums: Sums<T>,
) {
    let mut row = 0;
    // SAFETY: as the caller of `multiply` vouches.
    unsafe {
        while row + MOST <= sums.rows {
            block::<S, T, VECTORS, MOST>(simd, left, right, positions, sums, row);
            row += MOST;
        }
        while row + 4 <= sums.rows {
            block::<S, T, VECTORS, 4>(simd, left, right, positions, sums, row);
            row += 4;
        }
        while row + 2 <= sums.rows {
            block::<S, T, VECTORS, 2>(simd, left, right, positions, sums, row);
            row += 2;
        }
        if row < sums.rows {
            block::<S, T, VECTORS, 1>(simd, left, right, positions, sums, row);
        }
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
unsafe fn block<S: Simd, T: Element, const VECTORS: usize, const ROWS: usize>(
    simd: S,
    left: Rows<T>,
    right: Rows<T>,
    positions: Extent,
    to: Sums<T>,
    row: usize,
) {
    let lanes = lanes::<S, T>();
    let mut sums = [[T::splat(simd, T::ZERO); VECTORS]; ROWS];
    // SAFETY: as the caller of `multiply` vouches.
    unsafe {
        for position in 0..positions.rows {
            let mut value = left.first.wrapping_add(position * left.row_pitch + row);
            let mut panel = right.first.wrapping_add(position * right.row_pitch);
            for _ in 0..positions.columns {
                let mut vectors = [T::splat(simd, T::ZERO); VECTORS];
                for (vector, slot) in vectors.iter_mut().enumerate() {
                    *slot = load::<S, T>(simd, panel.add(vector * lanes));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = T::splat(simd, *value.add(row));
                    for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                        *sum = T::mul_add(simd, value, vector, *sum);
                    }
                }
                value = value.wrapping_add(left.pitch);
                panel = panel.wrapping_add(right.pitch);
            }
        }
        for (index, sums) in sums.iter().enumerate() {
            for (vector, &sum) in sums.iter().enumerate() {
                let place = to.first.add((row + index) * to.pitch + vector * lanes);
                let sum = if to.replace {
                    sum
                } else {
                    T::vector_add(simd, load::<S, T>(simd, place), sum)
                };
                store::<S, T>(simd, place, sum);
            }
        }
    }
}
