//! Which parts of an image are of one colour.

use std::collections::BTreeSet;

use stream_grad_tiling::{PerAxis, Rect, Span};

/// An image cut where rectangles begin and end, with the colour of each cell. So of many rectangles that overlap it is known which are
/// of one colour, and each pixel is looked at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ColorGrid {
    /// Where cells begin, and where the last one ends.
    cuts: PerAxis<Vec<i64>>,
    /// By rows.
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Cell {
    /// One more than the colour, or 0.
    color: u16,
    /// Number of cells of this colour from here to the right.
    run: u32,
}

impl ColorGrid {
    /// The grid of these rectangles, whose cells have the colours that `color` says, by number. It is asked only for cells that lie in
    /// a rectangle.
    ///
    /// # Errors
    /// Those of `color`.
    pub(super) fn new<E>(
        rects: impl Iterator<Item = Rect>,
        mut color: impl FnMut(Rect) -> Result<Option<usize>, E>,
    ) -> Result<Self, E> {
        let mut cuts = PerAxis::new(BTreeSet::new(), BTreeSet::new());
        let rects: Vec<Rect> = rects.collect();
        for rect in &rects {
            cuts.rows.extend([rect.rows.lo, rect.rows.hi]);
            cuts.columns.extend([rect.columns.lo, rect.columns.hi]);
        }
        let cuts = cuts.map(|cuts| cuts.into_iter().collect::<Vec<_>>());
        let spans = |cuts: &[i64]| -> Vec<Span> {
            let pairs = cuts.windows(2);
            pairs.map(|pair| Span::new(pair[0], pair[1])).collect()
        };
        let columns = spans(&cuts.columns);
        let covered = covered(&cuts, &rects);
        let mut cells = Vec::with_capacity(covered.len());
        for rows in spans(&cuts.rows) {
            let start = cells.len();
            for &columns in &columns {
                let color = match covered.get(cells.len()) {
                    Some(true) => color(PerAxis::new(rows, columns))?,
                    _ => None,
                };
                let color = color.and_then(|color| u16::try_from(color + 1).ok());
                cells.push(Cell {
                    color: color.unwrap_or(0),
                    run: 1,
                });
            }
            for index in (start + 1..cells.len()).rev() {
                if cells[index - 1].color == cells[index].color {
                    cells[index - 1].run += cells[index].run;
                }
            }
        }
        Ok(Self { cuts, cells })
    }

    /// The colour of one of the rectangles, if it has one.
    pub(super) fn color(&self, rect: Rect) -> Option<usize> {
        let place = |cuts: &[i64], at: i64| cuts.binary_search(&at).ok();
        let [top, bottom] = [rect.rows.lo, rect.rows.hi].map(|at| place(&self.cuts.rows, at));
        let [left, right] =
            [rect.columns.lo, rect.columns.hi].map(|at| place(&self.cuts.columns, at));
        let (left, columns) = (left?, right?.checked_sub(left?)?);
        let pitch = self.cuts.columns.len().saturating_sub(1);
        let mut first = (top?..bottom?).map(|row| self.cells.get(row * pitch + left));
        let corner = first.next().flatten()?;
        let wide = |cell: &Cell| cell.run as usize >= columns && cell.color == corner.color;
        let same = wide(corner) && first.all(|cell| cell.is_some_and(wide));
        (same && columns > 0)
            .then(|| usize::from(corner.color).checked_sub(1))
            .flatten()
    }
}

/// Of each cell, whether it lies in one of the rectangles.
fn covered(cuts: &PerAxis<Vec<i64>>, rects: &[Rect]) -> Vec<bool> {
    let [height, width] = [&cuts.rows, &cuts.columns].map(|cuts| cuts.len().saturating_sub(1));
    // Where along each line of cells rectangles begin, less where they end.
    let mut begins = vec![0_i32; height * (width + 1)];
    for rect in rects {
        let place = |cuts: &[i64], at: i64| cuts.partition_point(|&cut| cut < at);
        let [top, bottom] = [rect.rows.lo, rect.rows.hi].map(|at| place(&cuts.rows, at));
        let [left, right] = [rect.columns.lo, rect.columns.hi].map(|at| place(&cuts.columns, at));
        for row in top..bottom {
            begins[row * (width + 1) + left] += 1;
            begins[row * (width + 1) + right] -= 1;
        }
    }
    let lines = begins.chunks_exact(width + 1);
    let covered = lines.flat_map(|line| {
        let mut open = 0;
        line[..width].iter().map(move |begins| {
            open += begins;
            open > 0
        })
    });
    covered.collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn rects() -> impl Strategy<Value = Vec<Rect>> {
        let span = || (0_i64..30, 1_i64..20).prop_map(|(lo, length)| Span::new(lo, lo + length));
        let rect = (span(), span()).prop_map(|(rows, columns)| PerAxis::new(rows, columns));
        prop::collection::vec(rect, 0..12)
    }

    proptest! {
        #[test]
        fn rectangles_are_of_the_colour_of_all_their_pixels(
            rects in rects(),
            spots in prop::collection::vec((0_i64..50, 0_i64..50), 0..4),
            half in 0_i64..50,
        ) {
            let pixel = |row: i64, column: i64| {
                let spot = spots.iter().position(|&spot| spot == (row, column));
                spot.map_or(usize::from(column >= half), |spot| spot + 2)
            };
            let color = |rect: Rect| {
                let rows = rect.rows.lo..rect.rows.hi;
                let mut pixels = rows.flat_map(|row| {
                    (rect.columns.lo..rect.columns.hi).map(move |column| pixel(row, column))
                });
                let first = pixels.next();
                first.filter(|&first| pixels.all(|pixel| pixel == first))
            };
            let mut looked_at = std::collections::HashSet::new();
            let (mut twice, mut unneeded) = (false, false);
            let grid = ColorGrid::new(rects.iter().copied(), |cell| {
                unneeded |= !rects.iter().any(|rect| rect.covers(cell));
                for row in cell.rows.lo..cell.rows.hi {
                    for column in cell.columns.lo..cell.columns.hi {
                        twice |= !looked_at.insert((row, column));
                    }
                }
                Ok::<_, Infallible>(color(cell))
            });
            let grid = grid.unwrap_or_default();
            prop_assert!(!twice && !unneeded);
            for &rect in &rects {
                prop_assert_eq!(grid.color(rect), color(rect), "{}", rect);
            }
        }
    }
}
