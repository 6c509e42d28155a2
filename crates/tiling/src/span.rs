//! Half-open index spans and pairs of per-axis values.

use std::fmt;
use std::ops::{Index, IndexMut};

/// A half-open span `[lo, hi)` of indices along one axis of one node.
///
/// Bounds are signed, because a window may begin in the padding before index 0.
/// A span with `hi <= lo` is empty.
///
/// ```
/// use stream_grad_tiling::Span;
/// let halo = Span::new(-1, 3);
/// assert_eq!(halo.intersect(Span::new(0, 8)), Span::new(0, 3));
/// assert_eq!(halo.len(), 4);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Span {
    /// First index.
    pub lo: i64,
    /// One past the last index.
    pub hi: i64,
}

impl Span {
    /// The span `[lo, hi)`.
    pub const fn new(lo: i64, hi: i64) -> Self {
        Self { lo, hi }
    }

    /// The first `count` indices from 0 on; ends at the largest index if there are more.
    pub const fn first(count: u64) -> Self {
        let hi = if count > i64::MAX as u64 {
            i64::MAX
        } else {
            count.cast_signed()
        };
        Self { lo: 0, hi }
    }

    /// Number of indices; zero for an empty span.
    pub const fn len(self) -> u64 {
        if self.hi > self.lo {
            self.hi.abs_diff(self.lo)
        } else {
            0
        }
    }

    /// Whether the span holds no index.
    pub const fn is_empty(self) -> bool {
        self.hi <= self.lo
    }

    /// The indices in both spans.
    pub fn intersect(self, other: Self) -> Self {
        Self::new(self.lo.max(other.lo), self.hi.min(other.hi))
    }

    /// The smallest span that covers both; an empty span adds nothing.
    pub fn hull(self, other: Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other,
            (_, true) => self,
            _ => Self::new(self.lo.min(other.lo), self.hi.max(other.hi)),
        }
    }

    /// Whether every index of `other` lies in `self`.
    pub fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.lo <= other.lo && other.hi <= self.hi)
    }

    /// The span moved by so many indices; `None` if a bound overflows.
    pub const fn translate(self, by: i64) -> Option<Self> {
        match (self.lo.checked_add(by), self.hi.checked_add(by)) {
            (Some(lo), Some(hi)) => Some(Self { lo, hi }),
            _ => None,
        }
    }

    /// The first index of the span at which a condition holds that, once true, stays true; its end if there is none.
    pub(crate) fn first_where(self, condition: impl Fn(i64) -> bool) -> i64 {
        let (mut lo, mut hi) = (self.lo, self.hi.max(self.lo));
        while lo < hi {
            let middle = lo + (hi - lo) / 2;
            if condition(middle) {
                hi = middle;
            } else {
                lo = middle + 1;
            }
        }
        lo
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.lo, self.hi)
    }
}

/// One of the two spatial axes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Axis {
    /// The vertical axis: its indices count rows.
    Rows,
    /// The horizontal axis: its indices count columns.
    Columns,
}

impl Axis {
    /// Both axes, rows first.
    pub const BOTH: [Self; 2] = [Self::Rows, Self::Columns];
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rows => "rows",
            Self::Columns => "columns",
        })
    }
}

/// One value for each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PerAxis<T> {
    /// The value for the vertical axis.
    pub rows: T,
    /// The value for the horizontal axis.
    pub columns: T,
}

impl<T> PerAxis<T> {
    /// The pair of a vertical and a horizontal value.
    pub const fn new(rows: T, columns: T) -> Self {
        Self { rows, columns }
    }

    /// The same value on both axes.
    pub fn both(value: T) -> Self
    where
        T: Clone,
    {
        Self {
            rows: value.clone(),
            columns: value,
        }
    }

    /// Applies a function to the value of each axis.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> PerAxis<U> {
        PerAxis {
            rows: f(self.rows),
            columns: f(self.columns),
        }
    }
}

impl<T> Index<Axis> for PerAxis<T> {
    type Output = T;

    fn index(&self, axis: Axis) -> &T {
        match axis {
            Axis::Rows => &self.rows,
            Axis::Columns => &self.columns,
        }
    }
}

impl<T> IndexMut<Axis> for PerAxis<T> {
    fn index_mut(&mut self, axis: Axis) -> &mut T {
        match axis {
            Axis::Rows => &mut self.rows,
            Axis::Columns => &mut self.columns,
        }
    }
}
