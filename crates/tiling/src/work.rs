//! What a recipe has each node do, in visits, output positions and copied values.

use crate::buffers::Residual;
use crate::lifetimes::{has_vjp, residuals};
use crate::recipe::Geometry;
use crate::schedule::AxisSchedule;
use crate::span::Axis;

/// What one sweep over some bands of tiles does at one node. Sums saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    /// Tiles that own any of the node.
    pub(crate) visits: u128,
    /// Positions that they own.
    pub(crate) positions: u128,
    /// Positions of their halos.
    pub(crate) halo: u128,
}

/// What the tiles and segments of a geometry come to, whatever is kept.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Number of tiles of all blocks.
    pub(crate) tiles: u128,
    /// Of each node, a sweep over everything.
    pub(crate) sweep: Vec<Amount>,
    /// Of each node, a sweep over all segments but the last of each block.
    pub(crate) again: Vec<Amount>,
}

/// The computations of one node, besides the first forward sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duties {
    /// It is computed again in the backward sweep.
    pub(crate) recompute: bool,
    /// Its VJP runs.
    pub(crate) vjp: bool,
}

impl Work {
    pub(crate) fn of(geometry: &Geometry) -> Self {
        let (rows, columns) = (
            geometry.schedules(Axis::Rows),
            geometry.schedules(Axis::Columns),
        );
        let nodes = 0..geometry.sized().graph().nodes().len();
        let columns_of: Vec<AxisSums> = nodes
            .clone()
            .map(|node| AxisSums::of(columns, node, AxisSchedule::bands))
            .collect();
        let over = |bands: &dyn Fn(&AxisSchedule) -> usize| {
            let sums = nodes.clone().map(|node| AxisSums::of(rows, node, bands));
            let pairs = sums.zip(&columns_of);
            pairs.map(|(rows, columns)| rows.by(columns)).collect()
        };
        let bands = |schedules: &[AxisSchedule]| -> u128 {
            schedules.iter().map(|axis| axis.bands() as u128).sum()
        };
        Self {
            tiles: bands(rows) * bands(columns),
            sweep: over(&AxisSchedule::bands),
            again: match geometry.segments() {
                1 => vec![Amount::default(); nodes.len()],
                segments => {
                    over(&|schedule| geometry.segment_bands(schedule.bands(), segments - 1).start)
                }
            },
        }
    }
}

/// Sums over the bands of one axis, at one node.
#[derive(Debug, Clone, Copy, Default)]
struct AxisSums {
    visited: u128,
    owned: u128,
    halo: u128,
}

impl AxisSums {
    /// Over the first `bands` bands of each schedule.
    fn of(schedules: &[AxisSchedule], node: usize, bands: impl Fn(&AxisSchedule) -> usize) -> Self {
        let mut sums = Self::default();
        for schedule in schedules {
            for band in 0..bands(schedule) {
                let owned = schedule.owned(band, node).len();
                sums.visited += u128::from(owned > 0);
                sums.owned += u128::from(owned);
                sums.halo += u128::from(schedule.halo(band, node).len());
            }
        }
        sums
    }

    /// The tiles of these rows and those columns.
    fn by(self, columns: &Self) -> Amount {
        // Above a tile lies all that it holds of the columns; to its left, its own rows.
        let above = self
            .halo
            .saturating_mul(columns.owned.saturating_add(columns.halo));
        Amount {
            visits: self.visited.saturating_mul(columns.visited),
            positions: self.owned.saturating_mul(columns.owned),
            halo: above.saturating_add(self.owned.saturating_mul(columns.halo)),
        }
    }
}

/// What each node does besides the first forward sweep.
pub(crate) fn duties(geometry: &Geometry) -> impl Iterator<Item = Duties> {
    let residuals = residuals(geometry);
    let duties = residuals.into_iter().enumerate();
    duties.map(|(node, residual)| Duties {
        recompute: residual == Residual::Recomputed,
        vjp: has_vjp(geometry, node),
    })
}
