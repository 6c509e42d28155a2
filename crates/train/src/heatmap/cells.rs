//! Means over equal cells of an image.

use crate::error::{Result, TrainError};

/// Sums over the cells of a plane: an axis of `length` pixels is cut into `length / cell` parts, rounded up, that differ by at most
/// one pixel.
pub(super) struct CellSums {
    rows: Axis,
    columns: Axis,
    sums: Vec<f64>,
}

#[derive(Clone, Copy)]
struct Axis {
    length: u64,
    cells: u64,
}

impl Axis {
    fn cell_of(self, index: u64) -> u64 {
        let place = u128::from(index) * u128::from(self.cells) / u128::from(self.length.max(1));
        u64::try_from(place).unwrap_or(u64::MAX)
    }

    /// Pixels of a cell.
    fn pixels(self, cell: u64) -> u64 {
        let first = |cell: u64| {
            (u128::from(cell) * u128::from(self.length)).div_ceil(u128::from(self.cells.max(1)))
        };
        u64::try_from(first(cell + 1) - first(cell)).unwrap_or(u64::MAX)
    }
}

impl CellSums {
    /// Zeros, for cells of about `cell x cell` pixels.
    pub(super) fn new((height, width): (u64, u64), cell: u64) -> Result<Self> {
        let axis = |length: u64| Axis {
            length,
            cells: length.div_ceil(cell.max(1)),
        };
        let (rows, columns) = (axis(height), axis(width));
        let cells = rows
            .cells
            .checked_mul(columns.cells)
            .and_then(|cells| usize::try_from(cells).ok());
        let mut sums = Vec::new();
        let has_room = cells.is_some_and(|cells| sums.try_reserve_exact(cells).is_ok());
        let Some(cells) = cells.filter(|_| has_room) else {
            return Err(TrainError::setting(
                "cell",
                "cells that are few enough to be held",
                format!("{} x {} cells", rows.cells, columns.cells),
            ));
        };
        sums.resize(cells, 0.0);
        Ok(Self {
            rows,
            columns,
            sums,
        })
    }

    /// Rows and columns of cells.
    pub(super) const fn extent(&self) -> (u64, u64) {
        (self.rows.cells, self.columns.cells)
    }

    /// Adds the value of one pixel.
    pub(super) fn add(&mut self, row: u64, column: u64, value: f64) {
        let cell = self.rows.cell_of(row) * self.columns.cells + self.columns.cell_of(column);
        let sum = usize::try_from(cell)
            .ok()
            .and_then(|cell| self.sums.get_mut(cell));
        if let Some(sum) = sum {
            *sum += value;
        }
    }

    /// The mean of each cell.
    pub(super) fn means(&self) -> impl Iterator<Item = f64> + '_ {
        let places = (0..self.rows.cells)
            .flat_map(move |row| (0..self.columns.cells).map(move |column| (row, column)));
        places.zip(&self.sums).map(move |((row, column), sum)| {
            let pixels = self.rows.pixels(row) * self.columns.pixels(column);
            sum / pixels as f64
        })
    }
}
