//! The sweeps: one tile after another, forward and backward.
//!
//! Tiles come in raster order forward, in reverse raster order backward. All geometry comes from `stream_grad_tiling`, all
//! arithmetic from a [`Backend`]; here is only what is computed when, and the movement of halos.

pub(crate) mod backward;
mod color_grid;
pub(crate) mod forward;
pub(crate) mod roles;
mod schedule;
pub(crate) mod sums;
mod tap;
mod template;
pub(crate) mod timing;
mod working;

use std::ops::Range;

use stream_grad_tiling::{PerAxis, Residual, Storage, Tile};

use crate::backend::{Backend, Buffer, Combine, Rect, Slabs, WorkingLayout, offset};
use crate::error::{ExternalError, OUTSIDE, Result, StreamError};
use crate::exchange::TileSource;
use crate::network::Node;
use crate::offload::Offload;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operators::AnyTransposed;
use crate::prepared::Prepared;
use crate::tile::TileMut;
use crate::workspace::{BlockStore, Held};
use roles::Roles;
use schedule::Phase;
use sums::BlockSums;

pub(crate) use schedule::{Schedule, TilePlace};

/// What the VJPs read and write besides the tile.
pub(crate) struct Gradients<'a, B: Backend> {
    pub(crate) transposed: Vec<AnyTransposed<B>>,
    pub(crate) sums: &'a mut BlockSums<B>,
    /// Of each node, whether it trains.
    pub(crate) trains: Vec<bool>,
}

/// What the forward sweep leaves to the backward sweep.
pub(crate) struct Saved<B: Backend> {
    /// The blocks that were swept, counted over all images.
    pub(crate) range: Range<usize>,
    /// Of each of them.
    blocks: Vec<BlockStore<B>>,
    /// What is not in memory, last block on top.
    offload: Option<Offload>,
}

/// The memory of the sweeps and the arithmetic of single tiles.
pub(crate) struct Engine<'p, B: Backend> {
    pub(crate) backend: &'p B,
    pub(crate) schedule: Schedule<'p>,
    pub(crate) prepared: &'p Prepared<B>,
    pub(crate) source: &'p dyn TileSource,
    working: &'p mut B::Memory,
    layout: WorkingLayout,
    offload: Option<Offload>,
    /// What becomes of the tiles of forward sweeps.
    roles: Roles,
    /// What is held of tiles that are computed for others.
    templates: Vec<B::Memory>,
    /// The one that is at hand.
    template: Option<usize>,
}

impl Schedule<'_> {
    /// Frees what memory is held that the backward sweep cannot use.
    pub(crate) fn fit_backward<B: Backend>(&self, backend: &B, held: &mut Held<B>) {
        if backend.len(&held.working) != working::held_length(self, backend) {
            held.working = B::Memory::default();
        }
        held.blocks = Vec::new();
    }

    /// Frees what memory is held that the forward sweep of these blocks, counted over all images, cannot use.
    pub(crate) fn fit_forward<B: Backend>(
        &self,
        backend: &B,
        held: &mut Held<B>,
        range: Range<usize>,
    ) {
        let blocks = std::mem::take(&mut held.blocks);
        self.fit_backward(backend, held);
        let indices = range.map(|place| place % self.geometry.blocks());
        held.blocks = blocks
            .into_iter()
            .zip(indices)
            .filter(|(store, block)| {
                let lengths = [
                    self.buffers.saved_length(*block),
                    self.buffers.border_length(*block),
                ];
                let found = [&store.saved, &store.border].map(|memory| backend.len(memory));
                lengths.map(offset) == found
            })
            .map(|(store, _)| store)
            .collect();
    }

    /// The file that the plan asks for, empty.
    fn file(&self) -> Result<Option<Offload>> {
        match (self.buffers.storage(), self.offload) {
            (Storage::File, Some((folder, bytes))) => Offload::create(folder, bytes).map(Some),
            (Storage::Memory, _) | (Storage::File, None) => Ok(None),
        }
    }

    /// Makes `memory` one of `length` elements that holds anything, or poison; the first `used` will be written.
    fn make<B: Backend>(&self, backend: &B, memory: &mut B::Memory, length: usize, used: usize) {
        backend.make(memory, length, used);
        if let Some(value) = self.poison {
            backend.fill(memory, 0..length, value);
        }
    }

    /// Makes the memory for what is saved of a block.
    fn make_block<B: Backend>(&self, backend: &B, store: &mut BlockStore<B>, block: usize) {
        let lengths = [
            (&mut store.saved, self.buffers.saved_length(block)),
            (&mut store.border, self.buffers.border_length(block)),
        ];
        for (memory, length) in lengths {
            self.make(backend, memory, offset(length), offset(length));
        }
    }
}

/// Elements of scratch that the kernels need, one after another.
pub(crate) fn scratch_length<B: Backend>(backend: &B, nodes: &[Node]) -> usize {
    let lengths = nodes.iter().map(|node| node.operator.scratch(backend));
    lengths.max().unwrap_or(0)
}

impl<'p, B: Backend> Engine<'p, B> {
    /// The backend, and the memory that its kernels see.
    fn slabs<'s>(&'s mut self, store: &'s mut BlockStore<B>) -> (&'p B, Slabs<'s, B>) {
        let slabs = Slabs {
            working: &mut *self.working,
            layout: &self.layout,
            saved: &mut store.saved,
            border: &mut store.border,
            shown: None,
            template: match self.template {
                None => None,
                Some(template) => self.templates.get_mut(template),
            },
        };
        (self.backend, slabs)
    }

    /// Fills the parts of a buffer that earlier tiles own: the block above, and the block to the left.
    fn restore_halos(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &mut BlockStore<B>,
    ) {
        let buffer = self.schedule.activation(place, node, phase);
        let block = self.schedule.block(place);
        let above = PerAxis::new(block.rows.halo(place.tile.band, node), buffer.rect.columns);
        let strip = self.schedule.strip(place, place.tile.band, node, phase);
        self.copy(buffer, strip, above, store);
        let left = self.schedule.left(place, place.tile, node, phase);
        self.copy(buffer, left, left.rect, store);
    }

    /// Hands on what later tiles read, the strip below and the halo to the right, from the buffers that hold them.
    fn save_halos(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        [below, right]: [Buffer; 2],
        store: &mut BlockStore<B>,
    ) {
        let block = self.schedule.block(place);
        let Tile { band, column } = place.tile;
        if band + 1 < block.rows.bands() {
            let strip = self.schedule.strip(place, band + 1, node, phase);
            self.copy(strip, below, block.below(place.tile, node), store);
        }
        if column + 1 < block.columns.bands() {
            let next = Tile {
                band,
                column: column + 1,
            };
            let left = self.schedule.left(place, next, node, phase);
            self.copy(left, right, left.rect, store);
        }
    }

    fn copy(&mut self, to: Buffer, from: Buffer, region: Rect, store: &mut BlockStore<B>) {
        if region.is_empty() {
            return;
        }
        let (backend, mut slabs) = self.slabs(store);
        backend.combine(&mut slabs, to, from, region, Combine::Copy);
    }

    /// Computes, for one node, what the tile owns; inputs are complete.
    fn compute_owned(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &mut BlockStore<B>,
    ) -> Result<()> {
        if self.schedule.owned(place, node).is_empty() {
            return Ok(());
        }
        if node == 0 {
            return self.read_image(place, phase, store);
        }
        let one = &self.schedule.nodes[node];
        let prepared = self.prepared.forward_of(self.backend, node, one)?;
        let operands = self.schedule.operands(place, node, phase);
        let (backend, slabs) = self.slabs(store);
        let step = ForwardStep {
            layer: &one.name,
            backend,
            slabs,
            operands: &operands,
        };
        one.operator.forward(&prepared, step)
    }

    /// Runs the VJP of a node over what the tile owns; the cotangent there is complete. Adds to the cotangents
    /// of the inputs and to the parameters' gradients.
    fn vjp(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<B>,
        gradients: &mut Gradients<'_, B>,
    ) -> Result<()> {
        let (one, prepared) = (&self.schedule.nodes[node], self.prepared);
        let needs = one.needs(
            self.schedule.trainable,
            self.schedule.geometry.sized().graph(),
        );
        let transposed = &gradients.transposed[node];
        let transposed = prepared.transposed_of(self.backend, one, &needs, transposed)?;
        let operands = self.schedule.operands(place, node, Phase::Backward);
        let (backend, slabs) = self.slabs(store);
        let step = VjpStep {
            on: ForwardStep {
                layer: &one.name,
                backend,
                slabs,
                operands: &operands,
            },
            trains: gradients.trains[node],
            sums: &mut gradients.sums.block[node],
        };
        one.operator
            .vjp((&prepared.operators[node], &transposed), step)
    }

    fn read_image(
        &mut self,
        place: TilePlace,
        phase: Phase,
        store: &mut BlockStore<B>,
    ) -> Result<()> {
        let buffer = self.schedule.activation(place, 0, phase);
        let owned = self.schedule.owned(place, 0);
        let source = self.source;
        let (backend, mut slabs) = self.slabs(store);
        let read = |tile: TileMut<'_>| source.read(place.image, owned, tile);
        backend
            .write(&mut slabs, buffer, owned, read)
            .ok_or_else(|| internal("image"))?
            .map_err(|source| StreamError::Source {
                image: place.image,
                region: owned,
                source,
            })
    }

    /// Moves what a tile or a band saved to the file, if there is one.
    fn offload(&mut self, part: Range<u64>, store: &mut BlockStore<B>) -> Result<()> {
        let Some(offload) = &mut self.offload else {
            return Ok(());
        };
        let part = offset(part.start)..offset(part.end);
        let push = |values: &[B::Stored]| offload.push(values);
        self.backend.download(&store.saved, part.clone(), push)?;
        if let Some(value) = self.schedule.poison {
            self.backend.fill(&mut store.saved, part, value);
        }
        Ok(())
    }

    /// Moves what a tile or a band saved back from the file, if there is one.
    fn take_back(&mut self, part: Range<u64>, store: &mut BlockStore<B>) -> Result<()> {
        let Some(offload) = &mut self.offload else {
            return Ok(());
        };
        let part = offset(part.start)..offset(part.end);
        let pop = |values: &mut [B::Stored]| offload.pop(values);
        self.backend.upload(&mut store.saved, part, pop)
    }

    /// In tests: fills memory that holds no value that may be read.
    fn poison_arena(&mut self) {
        if let Some(value) = self.schedule.poison {
            self.backend
                .fill(self.working, self.layout.arena.clone(), value);
        }
    }

    /// Whether a residual of the backward sweep is computed again.
    fn is_recomputed(&self, node: usize) -> bool {
        self.schedule.buffers.residual(node) == Residual::Recomputed
    }
}

fn internal(layer: &str) -> StreamError {
    StreamError::Internal {
        layer: layer.to_owned(),
        what: OUTSIDE,
    }
}

/// What a sink or a cotangent source says of a region that it was given.
fn exchange_failed(
    what: &'static str,
    image: usize,
    region: Rect,
) -> impl FnOnce(ExternalError) -> StreamError {
    move |source| StreamError::Exchange {
        what,
        image,
        region,
        source,
    }
}
