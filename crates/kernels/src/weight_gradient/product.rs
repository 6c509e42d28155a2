//! The inner loop of dense weight gradients: a sum of outer products.

use std::ops::Range;

use pulp::Simd;

use crate::Storage;
use crate::bounds::holds;
use crate::element::sealed::{Vectors, lanes, load, store, widest_panel, zero};

/// Values of one side of the products, some for each step. The positions of a row that make a step lie side by side, term by term; if
/// the last step of a row lacks positions, zeros stand for them on the right.
#[derive(Clone, Copy)]
pub(crate) struct Rows<E> {
    pub(crate) first: *const E,
    /// From one row of positions to the next.
    pub(crate) row_pitch: usize,
    /// From one step of a row to the next.
    pub(crate) pitch: usize,
}

impl<E> Rows<E> {
    /// Whether `count` values of the first and of the last of some positions are part of `slice`.
    pub(crate) fn are_in(
        &self,
        slice: &[E],
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
/// `sums.columns` values of each step or row, filled up to whole registers.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
pub(crate) unsafe fn multiply<S: Simd, E: Storage>(
    simd: S,
    left: Rows<E>,
    right: Rows<E>,
    positions: Extent,
    sums: Sums<E::Compute>,
) {
    let lanes = lanes::<S, E>();
    let vectors = sums.columns.div_ceil(lanes);
    let panels = vectors.div_ceil(widest_panel::<S>());
    for panel in 0..panels {
        let first = panel * vectors / panels;
        let count = (panel + 1) * vectors / panels - first;
        let right = Rows {
            first: right.first.wrapping_add(first * lanes * E::TERMS),
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
                    1 => by_rows::<S, E, 1, 12>(simd, left, right, positions, sums),
                    2 => by_rows::<S, E, 2, 10>(simd, left, right, positions, sums),
                    3 => by_rows::<S, E, 3, 8>(simd, left, right, positions, sums),
                    _ => by_rows::<S, E, 4, 6>(simd, left, right, positions, sums),
                }
            } else {
                match count {
                    1 => by_rows::<S, E, 1, 12>(simd, left, right, positions, sums),
                    _ => by_rows::<S, E, 2, 6>(simd, left, right, positions, sums),
                }
            }
        }
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
unsafe fn by_rows<S: Simd, E: Storage, const VECTORS: usize, const MOST: usize>(
    simd: S,
    left: Rows<E>,
    right: Rows<E>,
    positions: Extent,
    sums: Sums<E::Compute>,
) {
    let mut row = 0;
    // SAFETY: as the caller of `multiply` vouches.
    unsafe {
        while row + MOST <= sums.rows {
            block::<S, E, VECTORS, MOST>(simd, left, right, positions, sums, row);
            row += MOST;
        }
        while row + 4 <= sums.rows {
            block::<S, E, VECTORS, 4>(simd, left, right, positions, sums, row);
            row += 4;
        }
        while row + 2 <= sums.rows {
            block::<S, E, VECTORS, 2>(simd, left, right, positions, sums, row);
            row += 2;
        }
        if row < sums.rows {
            block::<S, E, VECTORS, 1>(simd, left, right, positions, sums, row);
        }
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
unsafe fn block<S: Simd, E: Storage, const VECTORS: usize, const ROWS: usize>(
    simd: S,
    left: Rows<E>,
    right: Rows<E>,
    positions: Extent,
    to: Sums<E::Compute>,
    row: usize,
) {
    let lanes = lanes::<S, E>();
    let mut sums = [[zero::<S, E>(simd); VECTORS]; ROWS];
    // SAFETY: as the caller of `multiply` vouches.
    unsafe {
        for position in 0..positions.rows {
            let first = position * left.row_pitch + row * E::TERMS;
            let mut value = left.first.wrapping_add(first);
            let mut panel = right.first.wrapping_add(position * right.row_pitch);
            for _ in 0..positions.columns / E::TERMS {
                E::add_step::<S, VECTORS, ROWS, true>(
                    simd,
                    &mut sums,
                    #[inline(always)]
                    |row| value.add(row * E::TERMS),
                    panel,
                );
                value = value.wrapping_add(left.pitch);
                panel = panel.wrapping_add(right.pitch);
            }
            if !positions.columns.is_multiple_of(E::TERMS) {
                E::add_step::<S, VECTORS, ROWS, false>(
                    simd,
                    &mut sums,
                    #[inline(always)]
                    |row| value.add(row * E::TERMS),
                    panel,
                );
            }
        }
        for (index, sums) in sums.iter().enumerate() {
            for (vector, &sum) in sums.iter().enumerate() {
                let place = to.first.add((row + index) * to.pitch + vector * lanes);
                let sum = if to.replace {
                    sum
                } else {
                    E::Compute::vector_add(simd, load::<S, E::Compute>(simd, place), sum)
                };
                store::<S, E::Compute>(simd, place, sum);
            }
        }
    }
}
