//! A recipe applied to a graph: blocks, tiles and their spans.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::error::TilingError;
use crate::graph::{NodeId, SizedGraph};
use crate::recipe::{Recipe, Weights};
use crate::rect::Rect;
use crate::schedule::{AxisSchedule, MAX_BANDS};
use crate::span::{Axis, PerAxis, Span};
use crate::tile_classes::TileClasses;

/// The largest number of blocks.
pub const MAX_BLOCKS: usize = 1 << 16;

/// Position of a tile in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Index of its band of rows.
    pub band: usize,
    /// Index of its band of columns.
    pub column: usize,
}

/// One block: a carry of its own over the part of the image that its outputs need.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Bands of rows.
    pub rows: &'a AxisSchedule,
    /// Bands of columns.
    pub columns: &'a AxisSchedule,
}

impl Block<'_> {
    /// What a tile owns of a node.
    pub fn owned(&self, tile: Tile, node: usize) -> Rect {
        PerAxis::new(
            self.rows.owned(tile.band, node),
            self.columns.owned(tile.column, node),
        )
    }

    /// What a tile may read of a node: what it owns, and its halos above and to the left.
    pub fn held(&self, tile: Tile, node: usize) -> Rect {
        PerAxis::new(
            self.rows.held(tile.band, node),
            self.columns.held(tile.column, node),
        )
    }

    /// The strip of a node that bands from `band` on read of the bands above: all columns.
    pub fn strip(&self, band: usize, node: usize) -> Rect {
        PerAxis::new(self.rows.halo(band, node), self.columns.needed(node))
    }

    /// The part of the strip above a tile that it holds of a node.
    pub fn above(&self, tile: Tile, node: usize) -> Rect {
        PerAxis::new(
            self.rows.halo(tile.band, node),
            self.columns.held(tile.column, node),
        )
    }

    /// The halo of a node to the left of a tile: its own rows only.
    pub fn left(&self, tile: Tile, node: usize) -> Rect {
        PerAxis::new(
            self.rows.owned(tile.band, node),
            self.columns.halo(tile.column, node),
        )
    }

    /// The part of the strip of a node that a tile hands to the band below.
    pub fn below(&self, tile: Tile, node: usize) -> Rect {
        PerAxis::new(
            self.rows.halo(tile.band + 1, node),
            self.columns.owned(tile.column, node),
        )
    }

    /// The halo of a node that a tile hands to the tile on its right.
    pub fn right(&self, tile: Tile, node: usize) -> Rect {
        PerAxis::new(
            self.rows.owned(tile.band, node),
            self.columns.halo(tile.column + 1, node),
        )
    }

    /// The tiles of some bands, in raster order.
    pub fn raster(self, bands: Range<usize>) -> impl DoubleEndedIterator<Item = Tile> + use<> {
        let columns = self.columns.bands();
        bands.flat_map(move |band| (0..columns).map(move |column| Tile { band, column }))
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.rows.bands() * self.columns.bands()
    }
}

/// A recipe applied to a graph: every span of every tile can be asked for, and no query fails.
#[derive(Debug, Clone)]
pub struct Geometry {
    sized: SizedGraph,
    recipe: Recipe,
    rows: Arc<[AxisSchedule]>,
    columns: Arc<[AxisSchedule]>,
    /// Forward and backward, once anybody has asked.
    classes: Arc<OnceLock<[Arc<TileClasses>; 2]>>,
}

impl Geometry {
    /// Checks a recipe and works out its schedule.
    ///
    /// # Errors
    /// A tile, block or segment count of zero or beyond the image, several outputs with more than one block, or
    /// a stored node that does not exist.
    pub fn new(sized: SizedGraph, recipe: Recipe) -> Result<Self, TilingError> {
        let rows = schedules(&sized, &recipe, Axis::Rows)?.into();
        let columns = schedules(&sized, &recipe, Axis::Columns)?.into();
        Self {
            sized,
            recipe,
            rows,
            columns,
            classes: Arc::default(),
        }
        .checked()
    }

    /// The same tiles and blocks with other segments and stored nodes; the schedule is shared.
    ///
    /// # Errors
    /// As [`Geometry::new`], for the number of segments and the stored nodes.
    pub fn with(&self, segments: u64, stored: Vec<NodeId>) -> Result<Self, TilingError> {
        let mut geometry = self.clone();
        geometry.recipe.segments = segments;
        geometry.recipe.stored = stored;
        geometry.checked()
    }

    /// The same with weights that are packed at other times; the schedule is shared.
    pub(crate) fn with_weights(&self, weights: Weights) -> Self {
        let mut geometry = self.clone();
        geometry.recipe.weights = weights;
        geometry
    }

    fn checked(self) -> Result<Self, TilingError> {
        let nodes = self.sized.graph().nodes().len();
        for pair in self.recipe.stored.windows(2) {
            if pair[0] >= pair[1] {
                return Err(TilingError::Stored {
                    node: pair[1].0,
                    reason: "stored nodes must be listed once, in rising order",
                });
            }
        }
        if let Some(node) = self.recipe.stored.iter().find(|node| node.0 >= nodes) {
            return Err(TilingError::Stored {
                node: node.0,
                reason: "the graph has no such node",
            });
        }
        let outputs = self.sized.graph().outputs().len();
        if self.blocks() > 1 && outputs > 1 {
            return Err(TilingError::BlocksNeedOneOutput { outputs });
        }
        if self.blocks() > MAX_BLOCKS {
            return Err(TilingError::TooManyPieces {
                what: "blocks",
                found: self.blocks() as u128,
                maximum: MAX_BLOCKS as u64,
            });
        }
        let fewest_bands = self.fewest_bands();
        if self.recipe.segments == 0 || self.recipe.segments > fewest_bands {
            return Err(TilingError::Cut {
                what: "the number of segments",
                axis: Axis::Rows,
                found: self.recipe.segments,
                maximum: fewest_bands,
            });
        }
        Ok(self)
    }

    /// The smallest number of bands of rows of any block: the most segments that there can be.
    pub fn fewest_bands(&self) -> u64 {
        self.rows.iter().map(AxisSchedule::bands).min().unwrap_or(1) as u64
    }

    /// The schedules of one axis, one for each row (or column) of blocks.
    pub fn schedules(&self, axis: Axis) -> &[AxisSchedule] {
        match axis {
            Axis::Rows => &self.rows,
            Axis::Columns => &self.columns,
        }
    }

    /// Which tiles lie alike forward, and which backward.
    pub(crate) fn classes(&self) -> &[Arc<TileClasses>; 2] {
        self.classes
            .get_or_init(|| [TileClasses::forward(self), TileClasses::backward(self)].map(Arc::new))
    }

    /// The graph with its sizes.
    pub fn sized(&self) -> &SizedGraph {
        &self.sized
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Block `index` in raster order.
    pub fn block(&self, index: usize) -> Block<'_> {
        Block {
            rows: &self.rows[index / self.columns.len()],
            columns: &self.columns[index % self.columns.len()],
        }
    }

    /// All blocks in raster order.
    pub fn iter_blocks(&self) -> impl Iterator<Item = Block<'_>> {
        (0..self.blocks()).map(|index| self.block(index))
    }

    /// The bands of segment `segment` of a block with `bands` bands.
    pub fn segment_bands(&self, bands: usize, segment: usize) -> Range<usize> {
        let segments = usize::try_from(self.recipe.segments).unwrap_or(1);
        (segment * bands / segments)..((segment + 1) * bands / segments)
    }

    /// Number of segments of each block.
    pub fn segments(&self) -> usize {
        usize::try_from(self.recipe.segments).unwrap_or(1)
    }

    /// Whether a node is stored from the forward to the backward sweep.
    pub fn is_stored(&self, node: usize) -> bool {
        self.recipe.stored.binary_search(&NodeId(node)).is_ok()
    }
}

fn schedules(
    sized: &SizedGraph,
    recipe: &Recipe,
    axis: Axis,
) -> Result<Vec<AxisSchedule>, TilingError> {
    let output = sized.graph().outputs()[0];
    let output_size = sized.size(output.0)[axis];
    let block = edge("the block's edge", axis, recipe.output_block[axis])?;
    let tile = edge("the tile's edge", axis, recipe.tile[axis])?;
    if block >= output_size {
        let needed: Vec<Span> = (0..sized.graph().nodes().len())
            .map(|node| sized.plane(node)[axis])
            .collect();
        let cuts = cuts(axis, needed[0], tile)?;
        return Ok(vec![AxisSchedule::new(sized, axis, needed, &cuts)?]);
    }
    cuts(axis, Span::new(0, output_size), block)?
        .windows(2)
        .map(|pair| {
            let mut needed = sized.dependencies(axis, output, Span::new(pair[0], pair[1]));
            if needed[0].is_empty() {
                // A block of nothing but padding still has a tile.
                needed[0] = Span::new(0, 1);
            }
            let cuts = cuts(axis, needed[0], tile)?;
            AxisSchedule::new(sized, axis, needed, &cuts)
        })
        .collect()
}

fn edge(what: &'static str, axis: Axis, found: u64) -> Result<i64, TilingError> {
    i64::try_from(found)
        .ok()
        .filter(|&edge| edge > 0)
        .ok_or(TilingError::Cut {
            what,
            axis,
            found,
            maximum: i64::MAX.unsigned_abs(),
        })
}

/// Cut positions every `edge` indices from `span.lo`; the last piece takes the remainder.
fn cuts(axis: Axis, span: Span, edge: i64) -> Result<Vec<i64>, TilingError> {
    let pieces = (span.hi - span.lo - 1).div_euclid(edge) + 1;
    if pieces.unsigned_abs() > MAX_BANDS {
        return Err(TilingError::TooManyPieces {
            what: match axis {
                Axis::Rows => "bands of rows",
                Axis::Columns => "bands of columns",
            },
            found: u128::from(pieces.unsigned_abs()),
            maximum: MAX_BANDS,
        });
    }
    Ok((0..pieces)
        .map(|piece| span.lo + piece * edge)
        .chain([span.hi])
        .collect())
}
