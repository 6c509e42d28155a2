//! The size and place of every buffer that a sweep uses, worked out before anything runs.
//!
//! The engine allocates from these numbers and the peak is computed from the same ones, so
//! that what is promised and what is done cannot drift apart.

use std::ops::Range;

use crate::arena::{Placement, aligned, place};
use crate::geometry::{Block, Geometry, Tile};
use crate::lifetimes::{backward_lifetimes, first_touches, forward_lifetimes, residuals};
use crate::saved::{BlockBuffers, Storage, border_segment, channels, elements, saturating};
use crate::templates::Templates;

/// What the backward sweep does with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// Its activation is not needed.
    Unused,
    /// Its activation is computed again (for the image: read again).
    Recomputed,
    /// Its activation is stored from the forward sweep.
    Stored,
}

/// Which of the two kinds of forward sweep runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Saves halos and stored nodes for the backward sweep.
    Saving,
    /// Only carries, and saves the strips at the borders of segments.
    Carrying,
}

/// Where a strip or a left halo lives while it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the slab of what is saved for the backward sweep, at this element offset.
    Saved(u64),
    /// Among the strips at the borders of segments, at this element offset.
    Border(u64),
    /// In the slab that only carries from band to band, at this element offset.
    Transient(u64),
}

/// Element counts and offsets of all buffers of a [`Geometry`].
///
/// A length of `u64::MAX` stands for more than can be addressed; the planner refuses such a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffers {
    storage: Storage,
    residuals: Vec<Residual>,
    first_touch: Vec<usize>,
    saving: Placement,
    carrying: Placement,
    backward_activations: Vec<u64>,
    backward_cotangents: Vec<u64>,
    backward_length: u64,
    blocks: Vec<BlockBuffers>,
    transient_strips: Vec<[u64; 2]>,
    transient_lefts: Vec<[u64; 2]>,
    transient_length: u64,
    cotangent_strips: Vec<[u64; 2]>,
    cotangent_lefts: Vec<[u64; 2]>,
    cotangent_length: u64,
    held: Vec<u64>,
    forward_templates: Option<Templates>,
    backward_templates: Option<Templates>,
}

impl Buffers {
    /// Lays out all buffers, with what is saved in memory.
    pub fn new(geometry: &Geometry) -> Self {
        Self::with_storage(geometry, Storage::Memory)
    }

    /// Lays out all buffers, with what is saved wherever `storage` says.
    pub fn with_storage(geometry: &Geometry, storage: Storage) -> Self {
        let graph = geometry.sized().graph();
        let nodes = graph.nodes().len();
        let residuals = residuals(geometry);
        let held: Vec<u64> = (0..nodes)
            .map(|node| {
                largest_over_blocks(geometry, |block| largest_held(block, node))
                    .saturating_mul(channels(geometry, node))
            })
            .collect();
        let saving = place(&forward_lifetimes(geometry, &held, Sweep::Saving));
        let carrying = place(&forward_lifetimes(geometry, &held, Sweep::Carrying));
        let first_touch = first_touches(geometry);
        let mut backward = place(&backward_lifetimes(
            geometry,
            &held,
            &residuals,
            &first_touch,
        ));
        let backward_cotangents = backward.offsets.split_off(nodes);

        let mut transient = Slab::default();
        let carries = |node: usize| geometry.segments() > 1 || geometry.is_stored(node);
        let (transient_strips, transient_lefts) = transient.carries(geometry, carries);
        let mut cotangent = Slab::default();
        let has_cotangent = |node: usize| graph.nodes()[node].has_cotangent;
        let (cotangent_strips, cotangent_lefts) = cotangent.carries(geometry, has_cotangent);
        Self {
            storage,
            first_touch,
            saving,
            carrying,
            backward_activations: backward.offsets,
            backward_cotangents,
            backward_length: backward.length,
            blocks: geometry
                .iter_blocks()
                .map(|block| BlockBuffers::new(geometry, block, storage))
                .collect(),
            transient_strips,
            transient_lefts,
            transient_length: transient.length,
            cotangent_strips,
            cotangent_lefts,
            cotangent_length: cotangent.length,
            residuals,
            held,
            forward_templates: Templates::forward(geometry),
            backward_templates: Templates::backward(geometry),
        }
    }

    /// Where what is saved waits for the backward sweep.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// What the backward sweep does with each node's activation.
    pub fn residual(&self, node: usize) -> Residual {
        self.residuals[node]
    }

    /// Whether anything is computed of a node after the forward sweep: in the backward sweep itself, or where a segment is swept
    /// again before it.
    pub fn computes_again(&self, geometry: &Geometry, node: usize) -> bool {
        geometry.segments() > 1 || self.residuals[node] == Residual::Recomputed
    }

    /// The node at whose VJP the cotangent of `node` is first written: its last consumer that has one,
    /// or the node itself.
    pub fn first_touch(&self, node: usize) -> usize {
        self.first_touch[node]
    }

    /// Largest number of elements that a tile holds of a node.
    pub fn held(&self, node: usize) -> u64 {
        self.held[node]
    }

    /// Offset of a node's activation in the arena of a forward sweep. A stored node has none in a saving sweep.
    pub fn forward_activation(&self, sweep: Sweep, node: usize) -> u64 {
        self.forward(sweep).offsets[node]
    }

    /// Length of the arena of a forward sweep.
    pub fn forward_length(&self, sweep: Sweep) -> u64 {
        self.forward(sweep).length
    }

    fn forward(&self, sweep: Sweep) -> &Placement {
        match sweep {
            Sweep::Saving => &self.saving,
            Sweep::Carrying => &self.carrying,
        }
    }

    /// Offset of a recomputed activation in the arena of the backward sweep.
    pub fn backward_activation(&self, node: usize) -> u64 {
        self.backward_activations[node]
    }

    /// Offset of a cotangent in the arena of the backward sweep.
    pub fn backward_cotangent(&self, node: usize) -> u64 {
        self.backward_cotangents[node]
    }

    /// Length of the arena of the backward sweep.
    pub fn backward_length(&self) -> u64 {
        self.backward_length
    }

    /// Length of the slab of saved halos and stored activations of a block. With [`Storage::File`] it holds those at hand, and
    /// blocks can take turns in one slab.
    pub fn saved_length(&self, block: usize) -> u64 {
        self.blocks[block].memory_length()
    }

    /// Elements of a block that are in a file at one time.
    pub fn file_length(&self, block: usize) -> u64 {
        self.blocks[block].file_length()
    }

    /// Elements of a block that are written to a file and read again.
    pub fn file_traffic(&self, block: usize) -> u64 {
        match self.storage {
            Storage::Memory => 0,
            Storage::File => self.blocks[block].total_length,
        }
    }

    /// The part of the saved slab with the strips that a band reads. A file takes it when the band's forward sweep is done.
    pub fn saved_strips(&self, block: usize, band: usize) -> Range<u64> {
        self.blocks[block].strip(band)
    }

    /// The part of the saved slab with the left halos and stored activations of a tile. A file takes it when the tile's
    /// forward computation is done.
    pub fn saved_tile(&self, geometry: &Geometry, block: usize, tile: Tile) -> Range<u64> {
        self.blocks[block].tile(geometry.block(block), tile)
    }

    /// Length of the strips at the segment borders of a block.
    pub fn border_length(&self, block: usize) -> u64 {
        self.blocks[block].border_length
    }

    /// Which tiles of the forward sweep may be computed for others, if any.
    pub fn forward_templates(&self) -> Option<&Templates> {
        self.forward_templates.as_ref()
    }

    /// Which tiles of the backward sweep may be.
    pub fn backward_templates(&self) -> Option<&Templates> {
        self.backward_templates.as_ref()
    }

    /// Length of the slab that carries strips and left halos that are not saved.
    pub fn transient_length(&self) -> u64 {
        self.transient_length
    }

    /// Length of the slab that carries cotangents.
    pub fn cotangent_length(&self) -> u64 {
        self.cotangent_length
    }

    /// Where the strip of `node` that bands from `band` on read is put.
    pub fn strip(
        &self,
        geometry: &Geometry,
        index: usize,
        band: usize,
        node: usize,
        sweep: Sweep,
    ) -> Place {
        let block = geometry.block(index);
        let buffers = &self.blocks[index];
        let before = |count: usize, include: &dyn Fn(usize) -> bool| -> u64 {
            (0..count)
                .filter(|&other| include(other))
                .map(|other| aligned(elements(geometry, block.strip(band, other), other)))
                .sum()
        };
        if let Some(segment) = border_segment(geometry, block, band) {
            return Place::Border(buffers.borders[segment] + before(node, &|_| true));
        }
        if sweep == Sweep::Saving && !geometry.is_stored(node) {
            let offset = before(node, &|other| !geometry.is_stored(other));
            return Place::Saved(buffers.strip(band).start + offset);
        }
        Place::Transient(self.transient_strips[node][band % 2])
    }

    /// Where the left halo of `node` that the tiles from `tile` on read is put.
    pub fn left(
        &self,
        geometry: &Geometry,
        index: usize,
        tile: Tile,
        node: usize,
        sweep: Sweep,
    ) -> Place {
        if sweep == Sweep::Saving && !geometry.is_stored(node) {
            let block = geometry.block(index);
            let offset: u64 = (0..node)
                .filter(|&other| !geometry.is_stored(other))
                .map(|other| aligned(elements(geometry, block.left(tile, other), other)))
                .sum();
            return Place::Saved(self.blocks[index].tile(block, tile).start + offset);
        }
        Place::Transient(self.transient_lefts[node][tile.column % 2])
    }

    /// Offset of a stored node's activation of one tile in the saved slab.
    pub fn stored(&self, geometry: &Geometry, index: usize, tile: Tile, node: usize) -> u64 {
        let block = geometry.block(index);
        let lefts: u64 = (0..geometry.sized().graph().nodes().len())
            .filter(|&other| !geometry.is_stored(other))
            .map(|other| aligned(elements(geometry, block.left(tile, other), other)))
            .sum();
        let stored: u64 = (0..node)
            .filter(|&other| geometry.is_stored(other))
            .map(|other| aligned(elements(geometry, block.held(tile, other), other)))
            .sum();
        self.blocks[index].tile(block, tile).start + lefts + stored
    }

    /// Offset, in the cotangent slab, of the strip that band `band` hands to the bands above it.
    pub fn cotangent_strip(&self, node: usize, band: usize) -> u64 {
        self.cotangent_strips[node][band % 2]
    }

    /// Offset, in the cotangent slab, of the halo that column `column` hands to the tiles on its left.
    pub fn cotangent_left(&self, node: usize, column: usize) -> u64 {
        self.cotangent_lefts[node][column % 2]
    }
}

/// A slab that grows by aligned pieces.
#[derive(Default)]
struct Slab {
    length: u64,
}

impl Slab {
    fn take(&mut self, size: u64) -> u64 {
        let offset = self.length;
        self.length = saturating(self.length, aligned(size));
        offset
    }

    /// Two strips and two left halos, old and new, for each node that carries.
    fn carries(
        &mut self,
        geometry: &Geometry,
        carries: impl Fn(usize) -> bool,
    ) -> (Vec<[u64; 2]>, Vec<[u64; 2]>) {
        let nodes = geometry.sized().graph().nodes().len();
        let mut pairs = |size: &dyn Fn(Block<'_>, usize) -> u64| -> Vec<[u64; 2]> {
            (0..nodes)
                .map(|node| {
                    if !carries(node) {
                        return [0, 0];
                    }
                    let size = largest_over_blocks(geometry, |block| size(block, node))
                        .saturating_mul(channels(geometry, node));
                    [self.take(size), self.take(size)]
                })
                .collect()
        };
        let strips = pairs(&|block, node| {
            let columns = block.columns.needed(node).len();
            block.rows.largest_halo(node).saturating_mul(columns)
        });
        let lefts = pairs(&|block, node| {
            let columns = block.columns.largest_halo(node);
            block.rows.largest_owned(node).saturating_mul(columns)
        });
        (strips, lefts)
    }
}

fn largest_held(block: Block<'_>, node: usize) -> u64 {
    let columns = block.columns.largest_held(node);
    block.rows.largest_held(node).saturating_mul(columns)
}

fn largest_over_blocks(geometry: &Geometry, size: impl Fn(Block<'_>) -> u64) -> u64 {
    geometry.iter_blocks().map(size).max().unwrap_or(0)
}
