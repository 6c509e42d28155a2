//! The tiles and segments that are worth trying.

use std::cmp::Reverse;

use crate::geometry::Geometry;
use crate::receptive_field::tile_granule;
use crate::schedule::AxisSchedule;
use crate::span::{Axis, PerAxis};

/// The most pieces into which the planner cuts an axis; smaller tiles are left to the user.
const MOST_PIECES: u64 = 4096;

/// Edges of balanced square tiles and of full-width bands, roughly from large to small.
pub(crate) fn tile_edges(whole: &Geometry) -> Vec<PerAxis<u64>> {
    let extent = |axis| {
        let schedules = whole.schedules(axis).iter();
        schedules
            .map(|schedule: &AxisSchedule| schedule.needed(0).len())
            .max()
            .unwrap_or(1)
    };
    let granule = |axis| tile_granule(whole.sized(), axis);
    let (rows, columns) = (extent(Axis::Rows), extent(Axis::Columns));
    let longest = rows.max(columns);
    let mut edges = Vec::new();
    for pieces in piece_counts(longest / granule(Axis::Rows).min(granule(Axis::Columns))) {
        let square = longest.div_ceil(pieces);
        let tile = PerAxis::new(
            balanced(rows, square, granule(Axis::Rows)),
            balanced(columns, square, granule(Axis::Columns)),
        );
        for tile in [PerAxis::new(tile.rows, columns), tile] {
            if !edges.contains(&tile) {
                edges.push(tile);
            }
        }
    }
    edges
}

/// Numbers of segments: powers of two up to one a band.
pub(crate) fn segment_counts(bands: u64) -> Vec<u64> {
    (0..63)
        .map(|power| 1_u64 << power)
        .take_while(|&count| count <= bands)
        .collect()
}

/// How many of `most` nodes to store: nine numbers draw the curve from all to none, and `besides`.
pub(crate) fn stored_counts(most: usize, besides: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (0..=8).map(|eighth| most * eighth / 8).collect();
    counts.push(besides.min(most));
    counts.sort_unstable_by_key(|&count| Reverse(count));
    counts.dedup();
    counts
}

/// 1, 2, 3, 4, 6, 8, 12, 16, 24, … up to `most`, and `most` itself; nearly in order.
fn piece_counts(most: u64) -> impl Iterator<Item = u64> {
    let most = most.clamp(1, MOST_PIECES);
    (0..63)
        .flat_map(|power| [1_u64 << power, 3 << power])
        // Three times a power of two comes before the next power, so the end is passed by up to a half.
        .take_while(move |&count| count <= 2 * most)
        .filter(move |&count| count <= most)
        .chain([most])
}

/// The edge near `edge` that cuts `extent` into pieces as equal as whole granules allow.
fn balanced(extent: u64, edge: u64, granule: u64) -> u64 {
    let pieces = extent.div_ceil(edge);
    (extent.div_ceil(pieces).div_ceil(granule) * granule).min(extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piece_counts_rise_by_a_half_or_a_third() {
        let mut counts: Vec<u64> = piece_counts(20).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 3, 4, 6, 8, 12, 16, 20]);
    }

    #[test]
    fn stored_counts_fall_from_all_to_none() {
        assert_eq!(stored_counts(3, 3), [3, 2, 1, 0]);
        assert_eq!(stored_counts(0, 5), [0]);
        assert_eq!(stored_counts(16, 5), [16, 14, 12, 10, 8, 6, 5, 4, 2, 0]);
    }

    #[test]
    fn balanced_edges_leave_no_sliver() {
        assert_eq!(balanced(1000, 334, 32), 352);
        assert_eq!(balanced(1000, 5000, 32), 1000);
    }
}
