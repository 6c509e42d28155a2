//! Strided views of tiles in height x width x channels order, as sources and sinks see them.

use rayon::prelude::*;
use stream_grad_kernels::{bf16, parallel_for};

use crate::element::Stored;

/// Rows of a tile to read; each row is contiguous, columns x channels.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a, T> {
    data: &'a [T],
    row_stride: usize,
    row_length: usize,
    rows: usize,
}

impl<'a, T> Strided<'a, T> {
    /// Views `rows` rows of `row_length` values, `row_stride` apart, or `None` if `data` is too short.
    pub fn new(data: &'a [T], rows: usize, row_length: usize, row_stride: usize) -> Option<Self> {
        fits(data.len(), rows, row_length, row_stride).then_some(Self {
            data,
            row_stride,
            row_length,
            rows,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Row `row`: columns x channels values; empty beyond the last row.
    pub fn row(&self, row: usize) -> &'a [T] {
        if row >= self.rows {
            return &[];
        }
        let start = row * self.row_stride;
        &self.data[start..start + self.row_length]
    }
}

/// Rows of a tile to write; each row is contiguous, columns x channels.
#[derive(Debug)]
pub struct StridedMut<'a, T> {
    data: &'a mut [T],
    row_stride: usize,
    row_length: usize,
    rows: usize,
}

impl<'a, T> StridedMut<'a, T> {
    /// Views `rows` rows of `row_length` values, `row_stride` apart, or `None` if `data` is too short.
    pub fn new(
        data: &'a mut [T],
        rows: usize,
        row_length: usize,
        row_stride: usize,
    ) -> Option<Self> {
        fits(data.len(), rows, row_length, row_stride).then_some(Self {
            data,
            row_stride,
            row_length,
            rows,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Row `row`: columns x channels values; empty beyond the last row.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        if row >= self.rows {
            return &mut [];
        }
        let start = row * self.row_stride;
        &mut self.data[start..start + self.row_length]
    }

    /// The same rows for a shorter time: a view is handed on by value.
    pub fn reborrow(&mut self) -> StridedMut<'_, T> {
        StridedMut {
            data: self.data,
            row_stride: self.row_stride,
            row_length: self.row_length,
            rows: self.rows,
        }
    }

    /// The first `row` rows, at most all, and the others.
    ///
    /// ```
    /// use stream_grad_engine::StridedMut;
    /// let mut values = [0, 1, 2, 3, 4, 5, 6, 7];
    /// // Three rows of two values; what lies between them belongs to nobody.
    /// let rows = StridedMut::new(&mut values, 3, 2, 3).ok_or("too short")?;
    /// let (mut first, mut others) = rows.split_at_row(1);
    /// assert_eq!((first.rows(), others.rows()), (1, 2));
    /// assert_eq!(first.row(0), [0, 1]);
    /// assert_eq!(others.row(1), [6, 7]);
    /// # Ok::<(), &str>(())
    /// ```
    pub fn split_at_row(self, row: usize) -> (Self, Self) {
        let row = row.min(self.rows);
        let start = (row * self.row_stride).min(self.data.len());
        let (before, after) = self.data.split_at_mut(start);
        let part = |data, rows| Self {
            data,
            row_stride: self.row_stride,
            row_length: self.row_length,
            rows,
        };
        (part(before, row), part(after, self.rows - row))
    }

    /// All rows, for the caller's rayon pool.
    pub fn par_rows(&mut self) -> impl IndexedParallelIterator<Item = &mut [T]>
    where
        T: Send,
    {
        let length = self.row_length;
        self.data
            .par_chunks_mut(self.row_stride.max(1))
            .take(self.rows)
            .map(move |row| &mut row[..length])
    }

    /// Bands of `height` rows, the last one of what is left, for the caller's rayon pool. A height of 0 counts as 1.
    ///
    /// ```
    /// use rayon::prelude::*;
    /// use stream_grad_engine::StridedMut;
    /// let mut values = [0; 6];
    /// let mut rows = StridedMut::new(&mut values, 3, 2, 2).ok_or("too short")?;
    /// let bands = rows.par_bands(2).enumerate();
    /// bands.for_each(|(band, mut rows)| (0..rows.rows()).for_each(|row| rows.row(row).fill(band)));
    /// assert_eq!(values, [0, 0, 0, 0, 1, 1]);
    /// # Ok::<(), &str>(())
    /// ```
    pub fn par_bands(
        &mut self,
        height: usize,
    ) -> impl IndexedParallelIterator<Item = StridedMut<'_, T>>
    where
        T: Send,
    {
        let (height, all) = (height.max(1), self.rows);
        let (row_length, row_stride) = (self.row_length, self.row_stride);
        self.data
            .par_chunks_mut(row_stride.saturating_mul(height).max(1))
            .take(all.div_ceil(height))
            .enumerate()
            .map(move |(band, data)| StridedMut {
                data,
                row_stride,
                row_length,
                rows: height.min(all - band * height),
            })
    }
}

fn fits(length: usize, rows: usize, row_length: usize, row_stride: usize) -> bool {
    rows == 0
        || (rows - 1)
            .checked_mul(row_stride)
            .and_then(|start| start.checked_add(row_length))
            .is_some_and(|end| end <= length && row_length <= row_stride)
}

/// A tile to read, in the plan's dtype.
#[derive(Debug, Clone, Copy)]
pub enum TileRef<'a> {
    /// Single precision.
    F32(Strided<'a, f32>),
    /// Double precision.
    F64(Strided<'a, f64>),
    /// Two bytes.
    BF16(Strided<'a, bf16>),
}

/// A tile to write, in the plan's dtype.
#[derive(Debug)]
pub enum TileMut<'a> {
    /// Single precision.
    F32(StridedMut<'a, f32>),
    /// Double precision.
    F64(StridedMut<'a, f64>),
    /// Two bytes.
    BF16(StridedMut<'a, bf16>),
}

impl TileMut<'_> {
    /// Sets every value to the nearest of this type.
    pub fn fill(self, value: f64) {
        fn fill<E: Stored>(mut tile: StridedMut<'_, E>, value: f64) {
            let value = E::rounded(value);
            parallel_for(tile.par_rows(), |row| row.fill(value));
        }
        match self {
            Self::F32(tile) => fill(tile, value),
            Self::F64(tile) => fill(tile, value),
            Self::BF16(tile) => fill(tile, value),
        }
    }
}
