//! What a plan hands to the sweeps, and where the rectangles of a tile lie in their memory.

use std::path::Path;

use stream_grad_kernels::Existing;
use stream_grad_tiling::{Block, Buffers, Geometry, PerAxis, Place, Sweep, Tile};

use crate::backend::{Buffer, Rect, Slab, Transposed, offset};
use crate::network::Node;
use crate::observer::Observer;
use crate::operator::step::Operands;

/// What a plan hands to the sweeps; nothing here changes while they run.
#[derive(Clone, Copy)]
pub(crate) struct Schedule<'p> {
    pub(crate) geometry: &'p Geometry,
    pub(crate) buffers: &'p Buffers,
    pub(crate) nodes: &'p [Node],
    /// Of each parameter, whether its gradient is wanted.
    pub(crate) trainable: &'p [bool],
    pub(crate) outputs: &'p [(String, usize)],
    /// Nodes that are shown to a caller.
    pub(crate) taps: &'p [usize],
    pub(crate) poison: Option<f64>,
    /// The folder for a file, and how much it will hold.
    pub(crate) offload: Option<(&'p Path, u64)>,
    pub(crate) observer: &'p dyn Observer,
}

/// Which tile of which block of which image is being computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TilePlace {
    pub(crate) image: usize,
    pub(crate) block: usize,
    pub(crate) tile: Tile,
}

/// Which computation a buffer belongs to: the arena is laid out for each on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Forward(Sweep),
    Backward,
}

impl Phase {
    /// The sweep whose saved halos the phase reads.
    pub(super) const fn sweep(self) -> Sweep {
        match self {
            Self::Forward(sweep) => sweep,
            Self::Backward => Sweep::Saving,
        }
    }
}

impl<'p> Schedule<'p> {
    pub(super) fn block(&self, place: TilePlace) -> Block<'p> {
        self.geometry.block(place.block)
    }

    pub(super) fn owned(&self, place: TilePlace, node: usize) -> Rect {
        self.block(place).owned(place.tile, node)
    }

    /// Where a tile's activation of a node lies.
    pub(super) fn activation(&self, place: TilePlace, node: usize, phase: Phase) -> Buffer {
        let Self {
            geometry, buffers, ..
        } = *self;
        let stored = geometry.is_stored(node) && phase.sweep() == Sweep::Saving;
        let (slab, start) = if stored {
            let start = buffers.stored(geometry, place.block, place.tile, node);
            (Slab::Saved, start)
        } else {
            let start = match phase {
                Phase::Forward(sweep) => buffers.forward_activation(sweep, node),
                Phase::Backward => buffers.backward_activation(node),
            };
            (Slab::Arena, start)
        };
        self.buffer(place, node, slab, start)
    }

    /// Where a tile's cotangent of a node lies.
    pub(super) fn cotangent(&self, place: TilePlace, node: usize) -> Buffer {
        let start = self.buffers.backward_cotangent(node);
        self.buffer(place, node, Slab::Arena, start)
    }

    fn buffer(&self, place: TilePlace, node: usize, slab: Slab, start: u64) -> Buffer {
        self.buffer_of(node, slab, start, self.block(place).held(place.tile, node))
    }

    /// A rectangle of a node's plane that begins at `start` of a slab.
    pub(super) fn buffer_of(&self, node: usize, slab: Slab, start: u64, rect: Rect) -> Buffer {
        Buffer {
            slab,
            offset: offset(start),
            rect,
            channels: self.nodes[node].channels,
        }
    }

    /// Where the strip above a band lies.
    pub(super) fn strip(&self, place: TilePlace, band: usize, node: usize, phase: Phase) -> Buffer {
        let Self {
            geometry, buffers, ..
        } = *self;
        let strip = buffers.strip(geometry, place.block, band, node, phase.sweep());
        let rect = geometry.block(place.block).strip(band, node);
        self.halo(node, strip, rect, phase)
    }

    /// Where the halo to the left of a tile lies.
    pub(super) fn left(&self, place: TilePlace, tile: Tile, node: usize, phase: Phase) -> Buffer {
        let Self {
            geometry, buffers, ..
        } = *self;
        let left = buffers.left(geometry, place.block, tile, node, phase.sweep());
        let rect = geometry.block(place.block).left(tile, node);
        self.halo(node, left, rect, phase)
    }

    /// A halo's buffer. A stored node's activation is in the saved slab, so that its halos travel through others.
    fn halo(&self, node: usize, place: Place, rect: Rect, phase: Phase) -> Buffer {
        let stored = self.geometry.is_stored(node) && phase.sweep() == Sweep::Saving;
        let (slab, start) = match place {
            Place::Transient(start) => (Slab::Transient, start),
            Place::Border(start) => (Slab::Border, start),
            Place::Saved(start) if stored => (Slab::Border, start),
            Place::Saved(start) => (Slab::Saved, start),
        };
        self.buffer_of(node, slab, start, rect)
    }

    /// Whether the VJP of a node writes the cotangent of `source`, an input, in place of what is there, instead of adding to it:
    /// it is the first that does, and of a kind that can.
    pub(super) fn replaces(&self, place: TilePlace, node: usize, source: usize) -> bool {
        let one = &self.nodes[node];
        let mut outputs = self.outputs.iter();
        one.operator.replaces_cotangent()
            && self.has_cotangent(source)
            && one.inputs.contains(&source)
            && self.buffers.first_touch(source) == node
            && !self.owned(place, node).is_empty()
            && !outputs.any(|(_, output)| *output == source)
    }

    /// Whether the backward sweep computes a cotangent of a node.
    pub(super) fn has_cotangent(&self, node: usize) -> bool {
        self.geometry.sized().graph().nodes()[node].has_cotangent
    }

    /// Where the operands of a node's operator lie.
    pub(super) fn operands(&self, place: TilePlace, node: usize, phase: Phase) -> TileOperands<'p> {
        TileOperands {
            schedule: *self,
            place,
            node,
            phase,
        }
    }
}

/// The operands of one operator on one tile.
pub(super) struct TileOperands<'p> {
    schedule: Schedule<'p>,
    place: TilePlace,
    node: usize,
    phase: Phase,
}

impl TileOperands<'_> {
    fn sources(&self) -> &[usize] {
        &self.schedule.nodes[self.node].inputs
    }
}

impl Operands for TileOperands<'_> {
    fn inputs(&self) -> usize {
        self.sources().len()
    }

    fn input(&self, index: usize) -> Buffer {
        let source = self.sources()[index];
        self.schedule.activation(self.place, source, self.phase)
    }

    fn output(&self) -> Buffer {
        self.schedule.activation(self.place, self.node, self.phase)
    }

    fn outputs(&self) -> Rect {
        self.schedule.owned(self.place, self.node)
    }

    fn plane(&self) -> PerAxis<i64> {
        self.schedule.geometry.sized().size(self.sources()[0])
    }

    fn cotangent(&self) -> Buffer {
        self.schedule.cotangent(self.place, self.node)
    }

    fn wants_input(&self, index: usize) -> bool {
        self.schedule.has_cotangent(self.sources()[index])
    }

    fn transposed(&self, index: usize) -> Transposed {
        let sources = self.sources();
        let source = sources[index];
        let is_first = !sources[index + 1..].contains(&source);
        let replaces = is_first && self.schedule.replaces(self.place, self.node, source);
        Transposed {
            cotangent: self.cotangent(),
            target: self.schedule.cotangent(self.place, source),
            outputs: self.outputs(),
            existing: if replaces {
                Existing::Replace
            } else {
                Existing::Add
            },
        }
    }
}
