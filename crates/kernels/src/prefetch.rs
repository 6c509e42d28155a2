//! Fetching what comes next while a task computes.

use std::ops::Range;

use crate::View;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Some channels of a rectangle of pixels, fetched line by line into the second-level cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead<T> {
    /// The first channel of the first pixel of the row.
    first: *const T,
    /// From one row to the next, and from one pixel to the next, in values.
    pitches: [usize; 2],
    rows: usize,
    columns: usize,
    bytes: usize,
    column: usize,
    byte: usize,
}

impl<T: Copy> Ahead<T> {
    /// `channels` of each of `rows` x `columns` pixels from `first` on, with rows and pixels `pitches` apart.
    #[inline(always)]
    pub(crate) fn new(
        first: *const T,
        pitches: [usize; 2],
        [rows, columns]: [usize; 2],
        channels: usize,
    ) -> Self {
        Self {
            first,
            pitches,
            rows,
            columns,
            bytes: channels * size_of::<T>(),
            column: 0,
            byte: 0,
        }
    }

    /// So many values that lie side by side.
    #[inline(always)]
    pub(crate) fn values(first: *const T, count: usize) -> Self {
        Self::new(first, [0, 0], [1, 1], count)
    }

    /// No pixels.
    #[inline(always)]
    pub(crate) fn nothing() -> Self {
        Self::new(std::ptr::null(), [0, 0], [0, 0], 0)
    }

    /// The `channels` of `extent` pixels of a view, from a row and column on, counted from the first that it holds.
    #[inline(always)]
    pub(crate) fn of(
        view: View<'_, T>,
        [row, column]: [usize; 2],
        extent: [usize; 2],
        channels: &Range<usize>,
    ) -> Self {
        let pitches = [view.pitch() * view.channels(), view.channels()];
        let first = row * pitches[0] + column * pitches[1] + channels.start;
        let first = view.data().as_ptr().wrapping_add(first);
        Self::new(first, pitches, extent, channels.len())
    }

    /// Lines in all.
    #[inline(always)]
    pub(crate) fn lines(&self) -> usize {
        self.rows * self.columns * self.bytes.div_ceil(LINE)
    }

    /// Fetches the next lines, while there are any. Nothing is read: memory need not exist.
    #[inline(always)]
    pub(crate) fn fetch(&mut self, lines: usize) {
        for _ in 0..lines {
            if self.rows == 0 {
                return;
            }
            let pixel = self.first.wrapping_add(self.column * self.pitches[1]);
            fetch(pixel.wrapping_byte_add(self.byte));
            self.byte += LINE;
            if self.byte >= self.bytes {
                (self.byte, self.column) = (0, self.column + 1);
            }
            if self.column == self.columns {
                (self.column, self.rows) = (0, self.rows - 1);
                self.first = self.first.wrapping_add(self.pitches[0]);
            }
        }
    }
}

/// Fetches a line, where the processor can be told.
#[inline(always)]
fn fetch<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "an instruction of the processor")]
    // SAFETY: a hint, which no program can see.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
