//! The size and place of every buffer that a sweep uses, worked out before anything runs.
//!
//! The engine allocates from these numbers and the peak is computed from the same ones, so
//! that what is promised and what is done cannot drift apart.

use crate::arena::{Lifetime, Placement, aligned, place};
use crate::recipe::{Block, Geometry, Tile};
use crate::span::PerAxis;

/// What the backward sweep does with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// Its activation is not needed.
    Unused,
    /// Its activation is computed again (for the image: read again).
    Recomputed,
    /// Its activation is kept from the forward sweep.
    Kept,
}

/// Which of the two kinds of forward sweep runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Saves halos and kept nodes for the backward sweep.
    Saving,
    /// Only carries, and saves the strips at the borders of segments.
    Carrying,
}

/// Where a strip or a left halo lives while it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the slab that lives until the backward sweep, at this element offset.
    Saved(u64),
    /// Among the strips at the borders of segments, at this element offset.
    Border(u64),
    /// In the slab that only carries from band to band, at this element offset.
    Transient(u64),
}

/// Element counts and offsets of all buffers of a [`Geometry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffers {
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BlockBuffers {
    /// First element of the saved strips that band `i` reads.
    strips: Vec<u64>,
    /// First element of the saved left halos (then kept activations) of each tile.
    tiles: Vec<u64>,
    saved_length: u64,
    /// First element of the border strips of each segment.
    borders: Vec<u64>,
    border_length: u64,
}

impl Buffers {
    /// Lays out all buffers.
    pub fn new(geometry: &Geometry) -> Self {
        let graph = geometry.sized().graph();
        let nodes = graph.nodes().len();
        let residuals = residuals(geometry);
        let held: Vec<u64> = (0..nodes)
            .map(|node| {
                largest_over_blocks(geometry, |block| largest_held(block, node))
                    * channels(geometry, node)
            })
            .collect();
        let saving = place(&forward_lifetimes(geometry, &held, Sweep::Saving));
        let carrying = place(&forward_lifetimes(geometry, &held, Sweep::Carrying));
        let first_touch = first_touches(geometry);
        let mut lifetimes = backward_lifetimes(geometry, &held, &residuals, &first_touch);
        let mut backward = place(&lifetimes);
        lifetimes.clear();
        let backward_cotangents = backward.offsets.split_off(nodes);

        let mut transient = Slab::default();
        let carries = |node: usize| geometry.segments() > 1 || geometry.is_kept(node);
        let (transient_strips, transient_lefts) = transient.carries(geometry, carries);
        let mut cotangent = Slab::default();
        let has_cotangent = |node: usize| graph.nodes()[node].has_cotangent;
        let (cotangent_strips, cotangent_lefts) = cotangent.carries(geometry, has_cotangent);
        Self {
            first_touch,
            saving,
            carrying,
            backward_activations: backward.offsets,
            backward_cotangents,
            backward_length: backward.length,
            blocks: geometry
                .iter_blocks()
                .map(|block| BlockBuffers::new(geometry, block))
                .collect(),
            transient_strips,
            transient_lefts,
            transient_length: transient.length,
            cotangent_strips,
            cotangent_lefts,
            cotangent_length: cotangent.length,
            residuals,
            held,
        }
    }

    /// What the backward sweep does with each node's activation.
    pub fn residual(&self, node: usize) -> Residual {
        self.residuals[node]
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

    /// Offset of a node's activation in the arena of a forward sweep. A kept node has none in a saving sweep.
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

    /// Length of the slab of saved halos and kept activations of a block.
    pub fn saved_length(&self, block: usize) -> u64 {
        self.blocks[block].saved_length
    }

    /// Length of the strips at the segment borders of a block.
    pub fn border_length(&self, block: usize) -> u64 {
        self.blocks[block].border_length
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
        if sweep == Sweep::Saving && !geometry.is_kept(node) {
            let offset = before(node, &|other| !geometry.is_kept(other));
            return Place::Saved(buffers.strips[band] + offset);
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
        if sweep == Sweep::Saving && !geometry.is_kept(node) {
            let block = geometry.block(index);
            let offset: u64 = (0..node)
                .filter(|&other| !geometry.is_kept(other))
                .map(|other| aligned(elements(geometry, block.left(tile, other), other)))
                .sum();
            return Place::Saved(self.tile_base(block, index, tile) + offset);
        }
        Place::Transient(self.transient_lefts[node][tile.column % 2])
    }

    /// Offset of a kept node's activation of one tile in the saved slab.
    pub fn kept(&self, geometry: &Geometry, index: usize, tile: Tile, node: usize) -> u64 {
        let block = geometry.block(index);
        let lefts: u64 = (0..geometry.sized().graph().nodes().len())
            .filter(|&other| !geometry.is_kept(other))
            .map(|other| aligned(elements(geometry, block.left(tile, other), other)))
            .sum();
        let kept: u64 = (0..node)
            .filter(|&other| geometry.is_kept(other))
            .map(|other| aligned(elements(geometry, block.held(tile, other), other)))
            .sum();
        self.tile_base(block, index, tile) + lefts + kept
    }

    fn tile_base(&self, block: Block<'_>, index: usize, tile: Tile) -> u64 {
        self.blocks[index].tiles[tile.band * block.columns.bands() + tile.column]
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

impl BlockBuffers {
    fn new(geometry: &Geometry, block: Block<'_>) -> Self {
        let nodes = geometry.sized().graph().nodes().len();
        let (bands, columns) = (block.rows.bands(), block.columns.bands());
        let mut strips = vec![0; bands];
        let mut tiles = vec![0; bands * columns];
        let mut borders = vec![0; geometry.segments()];
        let mut saved_length = 0;
        let mut border_length = 0;
        for (segment, border) in borders.iter_mut().enumerate() {
            let mut end = 0;
            for band in geometry.segment_bands(bands, segment) {
                if border_segment(geometry, block, band).is_some() {
                    *border = border_length;
                    border_length += (0..nodes)
                        .map(|node| aligned(elements(geometry, block.strip(band, node), node)))
                        .sum::<u64>();
                } else {
                    strips[band] = end;
                    end += (0..nodes)
                        .filter(|&node| !geometry.is_kept(node))
                        .map(|node| aligned(elements(geometry, block.strip(band, node), node)))
                        .sum::<u64>();
                }
                for column in 0..columns {
                    let tile = Tile { band, column };
                    tiles[band * columns + column] = end;
                    for node in 0..nodes {
                        let span = if geometry.is_kept(node) {
                            block.held(tile, node)
                        } else {
                            block.left(tile, node)
                        };
                        end += aligned(elements(geometry, span, node));
                    }
                }
            }
            saved_length = saved_length.max(end);
        }
        Self {
            strips,
            tiles,
            saved_length,
            borders,
            border_length,
        }
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
        self.length += aligned(size);
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
                        * channels(geometry, node);
                    [self.take(size), self.take(size)]
                })
                .collect()
        };
        let strips =
            pairs(&|block, node| block.rows.largest_halo(node) * block.columns.needed(node).len());
        let lefts =
            pairs(&|block, node| block.rows.largest_owned(node) * block.columns.largest_halo(node));
        (strips, lefts)
    }
}

/// The segment, beyond the first, that begins with `band`.
fn border_segment(geometry: &Geometry, block: Block<'_>, band: usize) -> Option<usize> {
    (1..geometry.segments())
        .find(|&segment| geometry.segment_bands(block.rows.bands(), segment).start == band)
}

fn channels(geometry: &Geometry, node: usize) -> u64 {
    geometry.sized().graph().nodes()[node].channels
}

fn elements(geometry: &Geometry, region: PerAxis<crate::span::Span>, node: usize) -> u64 {
    region.rows.len() * region.columns.len() * channels(geometry, node)
}

fn largest_held(block: Block<'_>, node: usize) -> u64 {
    block.rows.largest_held(node) * block.columns.largest_held(node)
}

fn largest_over_blocks(geometry: &Geometry, size: impl Fn(Block<'_>) -> u64) -> u64 {
    geometry.iter_blocks().map(size).max().unwrap_or(0)
}

/// Whether the backward sweep runs the node's VJP.
fn has_vjp(geometry: &Geometry, node: usize) -> bool {
    node > 0 && geometry.sized().graph().nodes()[node].has_cotangent
}

fn residuals(geometry: &Geometry) -> Vec<Residual> {
    let graph = geometry.sized().graph();
    let nodes = graph.nodes();
    let mut residuals = vec![Residual::Unused; nodes.len()];
    for node in (0..nodes.len()).rev() {
        let read_by_vjp = has_vjp(geometry, node) && nodes[node].vjp_reads.output
            || graph.outputs().iter().any(|output| output.0 == node)
            || graph.consumers(node).iter().any(|&(consumer, _)| {
                has_vjp(geometry, consumer.0) && nodes[consumer.0].vjp_reads.inputs
            });
        let read_by_recompute = graph
            .consumers(node)
            .iter()
            .any(|&(consumer, _)| residuals[consumer.0] == Residual::Recomputed);
        residuals[node] = if geometry.is_kept(node) {
            Residual::Kept
        } else if read_by_vjp || read_by_recompute {
            Residual::Recomputed
        } else {
            Residual::Unused
        };
    }
    residuals
}

fn first_touches(geometry: &Geometry) -> Vec<usize> {
    let graph = geometry.sized().graph();
    (0..graph.nodes().len())
        .map(|node| {
            graph
                .consumers(node)
                .iter()
                .map(|consumer| consumer.0.0)
                .filter(|&consumer| has_vjp(geometry, consumer))
                .max()
                .unwrap_or(node)
        })
        .collect()
}

fn forward_lifetimes(geometry: &Geometry, held: &[u64], sweep: Sweep) -> Vec<Lifetime> {
    let graph = geometry.sized().graph();
    (0..held.len())
        .map(|node| {
            let kept = sweep == Sweep::Saving && geometry.is_kept(node);
            let last_consumer = graph
                .consumers(node)
                .iter()
                .map(|consumer| consumer.0.0)
                .max();
            Lifetime {
                size: if kept { 0 } else { held[node] },
                first: node,
                last: last_consumer.unwrap_or(node),
            }
        })
        .collect()
}

/// Lifetimes of the activations, then of the cotangents, over recomputing (one step a node) and the VJPs
/// (one step a node, in reverse).
fn backward_lifetimes(
    geometry: &Geometry,
    held: &[u64],
    residuals: &[Residual],
    first_touch: &[usize],
) -> Vec<Lifetime> {
    let graph = geometry.sized().graph();
    let nodes = graph.nodes();
    let vjp_step = |node: usize| 2 * held.len() - 1 - node;
    let activations = (0..held.len()).map(|node| {
        let consumers = graph.consumers(node).iter().map(|consumer| consumer.0.0);
        let last_use = consumers
            .flat_map(|consumer| {
                let recomputed = residuals[consumer] == Residual::Recomputed;
                let read = has_vjp(geometry, consumer) && nodes[consumer].vjp_reads.inputs;
                [
                    recomputed.then_some(consumer),
                    read.then(|| vjp_step(consumer)),
                ]
            })
            .flatten()
            .max()
            .unwrap_or(node);
        let own =
            nodes[node].vjp_reads.output || graph.outputs().iter().any(|output| output.0 == node);
        Lifetime {
            size: if residuals[node] == Residual::Recomputed {
                held[node]
            } else {
                0
            },
            first: node,
            last: if own {
                vjp_step(node).max(last_use)
            } else {
                last_use
            },
        }
    });
    let cotangents = (0..held.len()).map(|node| Lifetime {
        size: if nodes[node].has_cotangent {
            held[node]
        } else {
            0
        },
        first: vjp_step(first_touch[node]),
        last: vjp_step(node),
    });
    activations.chain(cotangents).collect()
}
