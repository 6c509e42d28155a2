//! Which block gives which positions of a node, where blocks overlap.

use crate::geometry::Geometry;
use crate::rect::Rect;
use crate::saved::channels;
use crate::span::{Axis, PerAxis, Span};

/// A node's plane cut into shares, one for each block, and what waits of sums over blocks.
///
/// Blocks overlap by the receptive field. A position belongs to the first block, in raster order, that needs it, which the
/// backward sweep visits last: then the sum of the cotangents over all blocks is complete there. Until then the sums of the
/// rows that the blocks of one row need are held, over all columns.
///
/// The shares partition what the outputs depend on. With one block that is the whole plane; with several, positions that no
/// output depends on are in no block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockOverlap {
    shares: PerAxis<Vec<Span>>,
    windows: Vec<Span>,
    columns: Span,
    channels: u64,
}

impl BlockOverlap {
    /// The shares of `node`.
    pub fn of(geometry: &Geometry, node: usize) -> Self {
        let needed = |axis: Axis| -> Vec<Span> {
            let schedules = geometry.schedules(axis).iter();
            schedules.map(|schedule| schedule.needed(node)).collect()
        };
        let [rows, columns] = Axis::BOTH.map(needed);
        Self {
            windows: windows(&rows),
            columns: columns
                .iter()
                .fold(Span::default(), |all, span| all.hull(*span)),
            shares: PerAxis::new(shares(&rows), shares(&columns)),
            channels: channels(geometry, node),
        }
    }

    /// The positions that block `index` gives.
    pub fn share(&self, index: usize) -> Rect {
        let row = self.row(index);
        PerAxis::new(
            self.shares.rows[row],
            self.shares.columns[index % self.shares.columns.len()],
        )
    }

    /// The row of blocks that block `index` lies in.
    pub fn row(&self, index: usize) -> usize {
        index / self.shares.columns.len()
    }

    /// The positions whose sums are held while the blocks of row `row` are swept.
    pub fn window(&self, row: usize) -> Rect {
        PerAxis::new(self.windows[row], self.columns)
    }

    /// Values that the largest window holds; none with one block, where there is nothing to sum.
    pub fn values(&self) -> u64 {
        if self.shares.rows.len() * self.shares.columns.len() == 1 {
            return 0;
        }
        let rows = self.windows.iter().map(|window| window.len()).max();
        let positions = rows.unwrap_or(0).saturating_mul(self.columns.len());
        positions.saturating_mul(self.channels)
    }
}

/// Of each span, what no span before it holds.
fn shares(needed: &[Span]) -> Vec<Span> {
    let mut end = i64::MIN;
    let share = |span: &Span| {
        let share = Span::new(span.lo.max(end), span.hi);
        if !span.is_empty() {
            end = end.max(span.hi);
        }
        share
    };
    needed.iter().map(share).collect()
}

/// Of each span, what it and the later ones hold that is not in the shares of the later ones.
fn windows(needed: &[Span]) -> Vec<Span> {
    let ends = needed.iter().scan(i64::MIN, |end, span| {
        if !span.is_empty() {
            *end = span.hi.max(*end);
        }
        Some(*end)
    });
    let ends: Vec<i64> = ends.collect();
    let mut windows = needed.to_vec();
    for index in (0..needed.len().saturating_sub(1)).rev() {
        let later = windows[index + 1];
        windows[index] = needed[index].hull(Span::new(later.lo, later.hi.min(ends[index])));
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_belongs_to_the_first_span_that_holds_it() {
        let spans = [(0, 6), (4, 9), (5, 5), (3, 12), (14, 15)];
        let needed = spans.map(|(lo, hi)| Span::new(lo, hi));
        let shares = shares(&needed);
        for position in -2..20 {
            let inside = |span: &Span| span.lo <= position && position < span.hi;
            let first = needed.iter().position(inside);
            let owners: Vec<usize> = (0..shares.len())
                .filter(|&at| inside(&shares[at]))
                .collect();
            assert_eq!(owners, first.into_iter().collect::<Vec<_>>(), "{position}");
        }
    }

    #[test]
    fn a_window_holds_its_span_and_what_earlier_ones_still_add_to() {
        let spans = [(0, 6), (4, 9), (0, 0), (3, 12)];
        let needed = spans.map(|(lo, hi)| Span::new(lo, hi));
        // The third span holds nothing, but what the last one gave to the first two waits.
        let expected = [(0, 6), (3, 9), (3, 9), (3, 12)];
        assert_eq!(windows(&needed), expected.map(|(lo, hi)| Span::new(lo, hi)));
    }
}
