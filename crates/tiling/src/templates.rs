//! Templates: what is held of a tile that is computed for all tiles of its class.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::arena::aligned;
use crate::geometry::{Block, Geometry, Tile};
use crate::recipe::Reuse;
use crate::rect::Rect;
use crate::saved::{elements, saturating};
use crate::span::PerAxis;
use crate::tile_classes::TileClasses;

/// The most templates of a sweep.
pub const MOST_TEMPLATES: usize = 32;

/// A rectangle of a node's plane in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Piece {
    /// What it holds, in the plane of the tile that it is taken from or given to.
    pub rect: Rect,
    /// Elements before it.
    pub offset: u64,
}

/// What a template of the forward sweep holds of one node: what later tiles, the backward sweep and the caller take from the tile. Of a
/// node that is stored it is one piece, all that the tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForwardPieces {
    /// Holds the part of the strip that the tile hands to the band below.
    pub below: Piece,
    /// Holds the halo that it hands to the tile on its right.
    pub right: Piece,
    /// Holds what it owns of an output, or of a node that is stored; of others nothing.
    pub owned: Piece,
}

impl ForwardPieces {
    /// The pieces that hold anything, each once.
    pub fn distinct(&self) -> impl Iterator<Item = Piece> + use<> {
        let Self {
            below,
            right,
            owned,
        } = *self;
        let others = [right, owned]
            .into_iter()
            .filter(move |&piece| piece != below);
        std::iter::once(below)
            .chain(others)
            .filter(|piece| !piece.rect.is_empty())
    }
}

/// Of each node, where the pieces of a tile's template lie. Tiles of one class have them in the same places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForwardTemplate {
    /// By node.
    pub nodes: Vec<ForwardPieces>,
    /// Elements of the whole.
    pub length: u64,
}

impl ForwardTemplate {
    /// The template of a tile.
    pub fn of(geometry: &Geometry, block: Block<'_>, tile: Tile) -> Self {
        let outputs = geometry.sized().graph().outputs();
        let mut pieces = Pieces::new(geometry);
        let nodes = 0..geometry.sized().graph().nodes().len();
        let nodes = nodes.map(|node| {
            if geometry.is_stored(node) {
                let all = pieces.next(block.held(tile, node), node);
                return ForwardPieces {
                    below: all,
                    right: all,
                    owned: all,
                };
            }
            let is_output = outputs.iter().any(|output| output.0 == node);
            ForwardPieces {
                below: pieces.next(block.below(tile, node), node),
                right: pieces.next(block.right(tile, node), node),
                owned: pieces.next_if(is_output, block.owned(tile, node), node),
            }
        });
        let nodes = nodes.collect();
        let length = pieces.length;
        Self { nodes, length }
    }
}

/// Lays pieces one after another.
struct Pieces<'g> {
    geometry: &'g Geometry,
    length: u64,
}

impl<'g> Pieces<'g> {
    const fn new(geometry: &'g Geometry) -> Self {
        Self {
            geometry,
            length: 0,
        }
    }

    /// Room for a rectangle of a node's plane.
    fn next(&mut self, rect: Rect, node: usize) -> Piece {
        let offset = self.length;
        let values = elements(self.geometry, rect, node);
        self.length = saturating(offset, aligned(values));
        Piece { rect, offset }
    }

    /// The same where it is held, and otherwise an empty piece.
    fn next_if(&mut self, is_held: bool, rect: Rect, node: usize) -> Piece {
        self.next(if is_held { rect } else { Rect::default() }, node)
    }
}

/// What a template of the backward sweep holds of one node: what the tile itself adds to the cotangents of positions that other tiles
/// own, without what it passes on for tiles on its right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackwardPieces {
    /// For the bands above.
    pub above: Piece,
    /// For the tiles on its left.
    pub left: Piece,
    /// Of the image, the complete cotangent of what the tile owns; of other nodes nothing.
    pub owned: Piece,
}

/// Of each node, where the pieces of a tile's template lie. Nodes without a cotangent have none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackwardTemplate {
    /// By node.
    pub nodes: Vec<BackwardPieces>,
    /// Elements of the whole.
    pub length: u64,
}

impl BackwardTemplate {
    /// The template of a tile.
    pub fn of(geometry: &Geometry, block: Block<'_>, tile: Tile) -> Self {
        let mut pieces = Pieces::new(geometry);
        let nodes = geometry.sized().graph().nodes().iter().enumerate();
        let nodes = nodes.map(|(node, value)| {
            if !value.has_cotangent {
                return BackwardPieces::default();
            }
            BackwardPieces {
                above: pieces.next(block.above(tile, node), node),
                left: pieces.next(block.left(tile, node), node),
                owned: pieces.next_if(node == 0, block.owned(tile, node), node),
            }
        });
        let nodes = nodes.collect();
        let length = pieces.length;
        Self { nodes, length }
    }
}

/// Which tiles of a recipe may be computed for others, and how much memory their templates take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    classes: Arc<TileClasses>,
    /// The number of each key that has a template.
    numbers: HashMap<PerAxis<usize>, usize>,
    /// Elements of each template.
    lengths: Vec<u64>,
}

impl Templates {
    /// Those of the forward sweep, where the recipe reuses anything: of the keys of most tiles.
    pub(crate) fn forward(geometry: &Geometry) -> Option<Self> {
        let length = |block: Block<'_>, tile| ForwardTemplate::of(geometry, block, tile).length;
        (geometry.recipe().reuse == Reuse::OneColor)
            .then(|| Self::new(geometry, &geometry.classes()[0], &length))
    }

    /// Those of the backward sweep.
    pub(crate) fn backward(geometry: &Geometry) -> Option<Self> {
        let length = |block: Block<'_>, tile| BackwardTemplate::of(geometry, block, tile).length;
        (geometry.recipe().reuse == Reuse::OneColor)
            .then(|| Self::new(geometry, &geometry.classes()[1], &length))
    }

    fn new(
        geometry: &Geometry,
        classes: &Arc<TileClasses>,
        length: &dyn Fn(Block<'_>, Tile) -> u64,
    ) -> Self {
        let mut numbers = HashMap::new();
        let mut lengths = Vec::new();
        for (index, tile) in classes.frequent(MOST_TEMPLATES) {
            numbers.insert(classes.of(index, tile).key, lengths.len());
            lengths.push(length(geometry.block(index), tile));
        }
        Self {
            classes: Arc::clone(classes),
            numbers,
            lengths,
        }
    }

    /// The positions of output `output` of the graph on whose cotangents a tile's depend.
    pub fn outputs(&self, block: usize, tile: Tile, output: usize) -> Rect {
        self.classes.outputs(block, tile, output)
    }

    /// The number of the key of a tile that may share a template, and the part of the image that then has to be of one colour.
    pub fn of(&self, block: usize, tile: Tile) -> Option<(usize, Rect)> {
        let class = self.classes.of(block, tile);
        let number = self.numbers.get(&class.key)?;
        (!class.field.is_empty()).then_some((*number, class.field))
    }

    /// Number of keys.
    pub fn keys(&self) -> usize {
        self.lengths.len()
    }

    /// Elements of the template of a key.
    pub fn length(&self, key: usize) -> u64 {
        self.lengths[key]
    }

    /// Elements of all templates that are held at one time: one for each key. Where an image has several colours, those of fewer
    /// tiles have none.
    pub fn room(&self) -> u64 {
        self.lengths.iter().copied().fold(0, saturating)
    }
}

impl TileClasses {
    /// Of the keys that at least two tiles have, the most frequent ones: the first tile of each.
    pub(crate) fn frequent(&self, most: usize) -> Vec<(usize, Tile)> {
        let [rows, columns] = self.most_frequent(most);
        let mut pairs: Vec<(u64, usize, Tile)> = Vec::new();
        for row in &rows {
            for column in &columns {
                let tile = Tile {
                    band: row.band,
                    column: column.band,
                };
                let tiles = row.count.saturating_mul(column.count);
                pairs.push((tiles, self.block_at(row.line, column.line), tile));
            }
        }
        pairs.retain(|pair| pair.0 > 1);
        // Of keys that are as frequent, those of the first tiles.
        pairs.sort_by_key(|(tiles, block, tile)| (Reverse(*tiles), *block, tile.band, tile.column));
        pairs.truncate(most);
        pairs
            .into_iter()
            .map(|(_, block, tile)| (block, tile))
            .collect()
    }
}
