//! What a recipe has each node do, in visits, output positions and copied values.

use crate::buffers::Residual;
use crate::geometry::{Geometry, Tile};
use crate::lifetimes::{has_vjp, residuals};
use crate::recipe::Reuse;
use crate::schedule::AxisSchedule;
use crate::span::{Axis, PerAxis, Span};
use crate::templates::MOST_TEMPLATES;

/// What one sweep over some bands of tiles does at one node. Sums saturate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    /// How many tiles own how many positions, those that own none left out.
    pub(crate) tiles: Vec<Alike>,
    /// Positions that they own.
    pub(crate) positions: u128,
    /// Positions of their halos.
    pub(crate) halo: u128,
}

/// Tiles that own as many positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alike {
    /// Positions of each.
    pub(crate) positions: u128,
    /// Number of tiles.
    pub(crate) count: u128,
}

/// What the tiles and segments of a geometry come to, whatever is stored.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Number of tiles of all blocks.
    pub(crate) tiles: u128,
    /// Of each node, a sweep over everything.
    pub(crate) sweep: Vec<Amount>,
    /// Of each node, a sweep over all segments but the last of each block.
    pub(crate) again: Vec<Amount>,
    /// Forward and backward, where tiles are computed for others.
    pub(crate) alike: Option<[AlikeTiles; 2]>,
}

/// Tiles that lie alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AlikeTiles {
    /// Rows and columns of the field of most of them.
    pub(crate) field: PerAxis<u64>,
    /// Number of those that have a template, if they are of one colour.
    pub(crate) tiles: u128,
    /// Number of templates.
    pub(crate) templates: u128,
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
            alike: match geometry.recipe().reuse {
                Reuse::Nothing => None,
                Reuse::OneColor => alike_tiles(geometry),
            },
        }
    }
}

/// The tiles that lie alike; none if no two do, forward or backward.
fn alike_tiles(geometry: &Geometry) -> Option<[AlikeTiles; 2]> {
    let [forward, backward] = geometry.classes().each_ref().map(|classes| {
        let frequent = classes.frequent(MOST_TEMPLATES);
        let of = |&(block, tile): &(usize, Tile)| classes.of(block, tile);
        let tiles = frequent
            .iter()
            .map(|first| u128::from(classes.tiles(of(first).key)));
        Some(AlikeTiles {
            field: of(frequent.first()?).field.map(Span::len),
            tiles: tiles.sum(),
            templates: frequent.len() as u128,
        })
    });
    Some([forward?, backward?])
}

/// Sums over the bands of one axis, at one node.
#[derive(Debug, Clone, Default)]
struct AxisSums {
    /// How many bands own how many positions, those that own none left out.
    bands: Vec<Alike>,
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
                sums.count(owned.into());
                sums.owned += u128::from(owned);
                sums.halo += u128::from(schedule.halo(band, node).len());
            }
        }
        sums
    }

    fn count(&mut self, positions: u128) {
        if positions == 0 {
            return;
        }
        // All but the first and the last bands are mostly alike.
        let mut bands = self.bands.iter_mut().rev();
        match bands.find(|alike| alike.positions == positions) {
            Some(alike) => alike.count += 1,
            None => self.bands.push(Alike {
                positions,
                count: 1,
            }),
        }
    }

    /// The tiles of these rows and those columns.
    fn by(self, columns: &Self) -> Amount {
        let pairs = self.bands.iter().flat_map(|rows| {
            columns.bands.iter().map(|columns| Alike {
                positions: rows.positions.saturating_mul(columns.positions),
                count: rows.count.saturating_mul(columns.count),
            })
        });
        // Above a tile lies all that it holds of the columns; to its left, its own rows.
        let above = self
            .halo
            .saturating_mul(columns.owned.saturating_add(columns.halo));
        Amount {
            tiles: pairs.collect(),
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
