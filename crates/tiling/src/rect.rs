//! Rectangles of planes.

use std::fmt;

use crate::span::{PerAxis, Span};

/// A half-open rectangle of a plane, in that plane's own pixels: a span of rows and a span of columns. A rectangle without rows or
/// without columns is empty.
///
/// An alias, because all that is done by axis, and rules are, is done with the spans of a rectangle.
///
/// ```
/// use stream_grad_tiling::{Rect, Span};
/// let image = Rect::whole(4, 6);
/// let halo = Rect::new(Span::new(-1, 3), Span::new(2, 8));
/// assert!(!image.covers(halo));
/// assert_eq!(image.intersect(halo), Rect::new(Span::new(0, 3), Span::new(2, 6)));
/// assert_eq!(halo.to_string(), "rows [-1, 3), columns [2, 8)");
/// ```
pub type Rect = PerAxis<Span>;

impl Rect {
    /// `height` x `width` positions from (0, 0) on; ends at the largest index if there are more.
    pub const fn whole(height: u64, width: u64) -> Self {
        Self::new(Span::first(height), Span::first(width))
    }

    /// Number of rows; no memory holds more than `usize::MAX`.
    pub fn height(self) -> usize {
        usize::try_from(self.rows.len()).unwrap_or(usize::MAX)
    }

    /// Number of columns, likewise.
    pub fn width(self) -> usize {
        usize::try_from(self.columns.len()).unwrap_or(usize::MAX)
    }

    /// Number of positions, in u128 so that no area overflows.
    pub fn area(self) -> u128 {
        u128::from(self.rows.len()) * u128::from(self.columns.len())
    }

    /// Whether it holds no position.
    pub const fn is_empty(self) -> bool {
        self.rows.is_empty() || self.columns.is_empty()
    }

    /// The positions in both rectangles.
    pub fn intersect(self, other: Self) -> Self {
        Self::new(
            self.rows.intersect(other.rows),
            self.columns.intersect(other.columns),
        )
    }

    /// Whether every position of `other` lies in `self`.
    pub fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.rows.covers(other.rows) && self.columns.covers(other.columns))
    }

    /// The rectangle moved by so many rows and columns; `None` if a bound overflows.
    pub fn translate(self, by: PerAxis<i64>) -> Option<Self> {
        Some(Self::new(
            self.rows.translate(by.rows)?,
            self.columns.translate(by.columns)?,
        ))
    }
}

impl fmt::Display for Rect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rows {}, columns {}", self.rows, self.columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_covered_and_covers_nothing() {
        let (some, empty) = (
            Rect::whole(2, 3),
            Rect::new(Span::new(7, 9), Span::new(5, 5)),
        );
        assert!(some.covers(empty) && !empty.covers(some) && empty.covers(empty));
        assert!(empty.is_empty() && empty.area() == 0);
        // Inside on one axis alone.
        assert!(!some.covers(Rect::new(Span::new(0, 2), Span::new(0, 4))));
        assert!(!some.covers(Rect::new(Span::new(1, 3), Span::new(0, 3))));
    }

    #[test]
    fn bounds_are_checked() {
        let one = Rect::whole(2, 3);
        let moved = Rect::new(Span::new(-1, 1), Span::new(5, 8));
        assert_eq!(one.translate(PerAxis::new(-1, 5)), Some(moved));
        assert_eq!(one.translate(PerAxis::new(i64::MAX, 0)), None);
        assert_eq!(moved.translate(PerAxis::new(i64::MIN, 0)), None);
        assert_eq!(Rect::whole(u64::MAX, 1).rows, Span::new(0, i64::MAX));
        assert_eq!(
            Rect::whole(u64::MAX, u64::MAX).area(),
            u128::from(i64::MAX.unsigned_abs()).pow(2)
        );
    }
}
