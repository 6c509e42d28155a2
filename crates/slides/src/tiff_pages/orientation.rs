//! Which way a page is to be turned before it is shown: TIFF's tag Orientation.

use std::ops::Range;

use crate::geometry::{Extent, Region};

/// How stored rows and columns lie in the picture that is shown. The names say where row 0 and column 0 are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Orientation {
    #[default]
    TopLeft,
    TopRight,
    BottomRight,
    BottomLeft,
    LeftTop,
    RightTop,
    RightBottom,
    LeftBottom,
}

impl Orientation {
    /// Of the tag's value; what no specification knows is not turned.
    pub(crate) const fn from_tag(value: Option<u64>) -> Self {
        match value {
            Some(2) => Self::TopRight,
            Some(3) => Self::BottomRight,
            Some(4) => Self::BottomLeft,
            Some(5) => Self::LeftTop,
            Some(6) => Self::RightTop,
            Some(7) => Self::RightBottom,
            Some(8) => Self::LeftBottom,
            _ => Self::TopLeft,
        }
    }

    /// Whether stored rows are shown as columns.
    pub(crate) const fn is_transposed(self) -> bool {
        matches!(
            self,
            Self::LeftTop | Self::RightTop | Self::RightBottom | Self::LeftBottom
        )
    }

    /// Whether stored rows run from the bottom up, or from right to left where they are columns.
    const fn flips_rows(self) -> bool {
        matches!(
            self,
            Self::BottomRight | Self::BottomLeft | Self::RightTop | Self::RightBottom
        )
    }

    /// Whether stored columns run from right to left, or from the bottom up where they are rows.
    const fn flips_columns(self) -> bool {
        matches!(
            self,
            Self::TopRight | Self::BottomRight | Self::RightBottom | Self::LeftBottom
        )
    }

    /// Size of the picture that is shown, from the stored one's; and the other way round.
    pub(crate) const fn turned(self, extent: Extent) -> Extent {
        if self.is_transposed() {
            Extent {
                height: extent.width,
                width: extent.height,
            }
        } else {
            extent
        }
    }

    /// The stored pixels that show as `region`; `stored` is the size of the stored picture.
    pub(crate) fn stored_region(self, stored: Extent, region: &Region) -> Region {
        let (rows, columns) = if self.is_transposed() {
            (region.columns.clone(), region.rows.clone())
        } else {
            (region.rows.clone(), region.columns.clone())
        };
        Region::new(
            self.stored_rows(stored, rows),
            self.stored_columns(stored, columns),
        )
    }

    /// Where a stored pixel shows: row and column.
    pub(crate) fn shown(self, stored: Extent, row: i64, column: i64) -> (i64, i64) {
        // Counting from the other end twice is counting as before.
        let row = self.stored_rows(stored, row..row + 1).start;
        let column = self.stored_columns(stored, column..column + 1).start;
        if self.is_transposed() {
            (column, row)
        } else {
            (row, column)
        }
    }

    fn stored_rows(self, stored: Extent, rows: Range<i64>) -> Range<i64> {
        if self.flips_rows() {
            flipped(stored.height, rows)
        } else {
            rows
        }
    }

    fn stored_columns(self, stored: Extent, columns: Range<i64>) -> Range<i64> {
        if self.flips_columns() {
            flipped(stored.width, columns)
        } else {
            columns
        }
    }
}

/// A span of an axis of `length` pixels, counted from the other end.
fn flipped(length: u64, span: Range<i64>) -> Range<i64> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    length - span.end..length - span.start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::to_usize;

    /// A stored picture of 2 x 3 as it shows, by the definitions of TIFF 6.0 (row 0 and column 0 of the stored picture are
    /// the sides named).
    const SHOWN: [(u64, &[&str]); 8] = [
        (1, &["abc", "def"]),
        (2, &["cba", "fed"]),
        (3, &["fed", "cba"]),
        (4, &["def", "abc"]),
        (5, &["ad", "be", "cf"]),
        (6, &["da", "eb", "fc"]),
        (7, &["fc", "eb", "da"]),
        (8, &["cf", "be", "ad"]),
    ];

    #[test]
    fn all_eight_ways() {
        let stored = Extent {
            height: 2,
            width: 3,
        };
        for (value, expected) in SHOWN {
            let orientation = Orientation::from_tag(Some(value));
            let extent = orientation.turned(stored);
            let mut found = vec![vec![' '; to_usize(extent.width)]; to_usize(extent.height)];
            for (index, letter) in (0..).zip("abcdef".chars()) {
                let (row, column) = (index / 3, index % 3);
                let (y, x) = orientation.shown(stored, row, column);
                found[usize::try_from(y).unwrap()][usize::try_from(x).unwrap()] = letter;
                let region = Region::new(y..y + 1, x..x + 1);
                assert_eq!(
                    orientation.stored_region(stored, &region),
                    Region::new(row..row + 1, column..column + 1)
                );
            }
            let found: Vec<String> = found.into_iter().map(String::from_iter).collect();
            assert_eq!(found, expected, "{value}");
        }
        assert_eq!(Orientation::from_tag(Some(9)), Orientation::TopLeft);
        assert_eq!(Orientation::from_tag(None), Orientation::TopLeft);
    }
}
