//! The sweeps: one tile after another, forward and backward.
//!
//! The order of the computation is that of `carry_prototype` in the design: raster order forward, reverse raster order
//! backward. All geometry comes from `stream_grad_tiling`; here is only the arithmetic and the movement
//! of halos.

pub(crate) mod backward;
mod buffer;
pub(crate) mod forward;
mod memory;
pub(crate) mod operations;
mod tap;
pub(crate) mod timing;
mod working;

use std::ops::Range;
use std::path::Path;

use stream_grad_tiling::{
    Block, Buffers, Geometry, PerAxis, Place, Residual, Span, Storage, Sweep, Tile,
};

use crate::error::{ExternalError, Result, StreamError};
use crate::exchange::TileSource;
use crate::observer::Observer;
use crate::operation::{Kind, Operation};
use crate::prepared::{Prepared, scalar};
use crate::scalar::Scalar;
use crate::spill::Spill;
use crate::tile::PixelRegion;
use crate::workspace::Held;
use buffer::{Buffer, Slab, Stored, combine_rows, offset};
pub(crate) use memory::Memory;

/// What a plan hands to the sweeps; nothing here changes while they run.
pub(crate) struct Schedule<'p> {
    pub(crate) geometry: &'p Geometry,
    pub(crate) buffers: &'p Buffers,
    pub(crate) operations: &'p [Operation],
    pub(crate) outputs: &'p [(String, usize)],
    /// Nodes that are shown to a caller.
    pub(crate) taps: &'p [usize],
    pub(crate) poison: Option<f64>,
    /// The folder for a file, and how much it will hold.
    pub(crate) spill: Option<(&'p Path, u64)>,
    pub(crate) observer: &'p dyn Observer,
}

/// What the backward sweep of one block of one image needs besides the image. If the rest is in a file, `saved` is what of it
/// is at hand while the block is swept.
pub(crate) struct BlockStore<T> {
    pub(crate) saved: Memory<T>,
    pub(crate) border: Memory<T>,
}

impl<T> Default for BlockStore<T> {
    fn default() -> Self {
        Self {
            saved: Memory::default(),
            border: Memory::default(),
        }
    }
}

/// What the forward sweep leaves to the backward sweep.
pub(crate) struct Saved<T> {
    /// Of every block of every image.
    blocks: Vec<BlockStore<T>>,
    /// What is not in memory, last block on top.
    spill: Option<Spill>,
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
enum Phase {
    Forward(Sweep),
    Backward,
}

impl Phase {
    /// The sweep whose saved halos the phase reads.
    const fn sweep(self) -> Sweep {
        match self {
            Self::Forward(sweep) => sweep,
            Self::Backward => Sweep::Saving,
        }
    }
}

/// The memory of the sweeps and the arithmetic of single tiles.
pub(crate) struct Engine<'p, T> {
    pub(crate) schedule: Schedule<'p>,
    pub(crate) prepared: &'p Prepared<T>,
    pub(crate) source: &'p dyn TileSource,
    arena: &'p mut [T],
    transient: &'p mut [T],
    spill: Option<Spill>,
    /// For the kernels; nothing in it outlives one of them.
    scratch: &'p mut [T],
}

impl Schedule<'_> {
    /// Frees what memory is held that the backward sweep cannot use.
    pub(crate) fn fit_backward<T: Scalar>(&self, held: &mut Held<T>) {
        if held.working.len() != working::held_length::<T>(self) {
            held.working = Memory::default();
        }
        held.blocks = Vec::new();
    }

    /// Frees what memory is held that the forward sweep of these images cannot use.
    pub(crate) fn fit_forward<T: Scalar>(&self, held: &mut Held<T>, images: usize) {
        let blocks = std::mem::take(&mut held.blocks);
        self.fit_backward(held);
        let indices = (0..images).flat_map(|_| 0..self.geometry.blocks());
        held.blocks = blocks
            .into_iter()
            .zip(indices)
            .filter(|(store, block)| {
                let lengths = [
                    self.buffers.saved_length(*block),
                    self.buffers.border_length(*block),
                ];
                lengths.map(offset) == [store.saved.len(), store.border.len()]
            })
            .map(|(store, _)| store)
            .collect();
    }
}

/// Elements of scratch that the kernels need, one after another.
pub(crate) fn scratch_length<T: Scalar>(operations: &[Operation]) -> usize {
    let lengths = operations.iter().map(|operation| match &operation.kind {
        Kind::Convolution(convolution) => convolution.shape.scratch_len::<T>().unwrap_or(0),
        _ => 0,
    });
    lengths.max().unwrap_or(0)
}

impl<'p, T: Scalar> Engine<'p, T> {
    fn block(&self, place: TilePlace) -> Block<'p> {
        self.schedule.geometry.block(place.block)
    }

    fn owned(&self, place: TilePlace, node: usize) -> PerAxis<Span> {
        self.block(place).owned(place.tile, node)
    }

    /// Where a tile's activation of a node lies.
    fn activation(&self, place: TilePlace, node: usize, phase: Phase) -> Buffer {
        let Schedule {
            geometry, buffers, ..
        } = self.schedule;
        let kept = geometry.is_kept(node) && phase.sweep() == Sweep::Saving;
        let (slab, start) = if kept {
            let start = buffers.kept(geometry, place.block, place.tile, node);
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
    fn cotangent(&self, place: TilePlace, node: usize) -> Buffer {
        let start = self.schedule.buffers.backward_cotangent(node);
        self.buffer(place, node, Slab::Arena, start)
    }

    fn buffer(&self, place: TilePlace, node: usize, slab: Slab, start: u64) -> Buffer {
        Buffer {
            slab,
            offset: offset(start),
            rect: self.block(place).held(place.tile, node),
            channels: self.schedule.operations[node].channels,
        }
    }

    fn strip_place(
        &self,
        place: TilePlace,
        band: usize,
        node: usize,
        sweep: Sweep,
    ) -> (Place, PerAxis<Span>) {
        let Schedule {
            geometry, buffers, ..
        } = self.schedule;
        (
            buffers.strip(geometry, place.block, band, node, sweep),
            geometry.block(place.block).strip(band, node),
        )
    }

    fn left_place(
        &self,
        place: TilePlace,
        tile: Tile,
        node: usize,
        sweep: Sweep,
    ) -> (Place, PerAxis<Span>) {
        let Schedule {
            geometry, buffers, ..
        } = self.schedule;
        (
            buffers.left(geometry, place.block, tile, node, sweep),
            geometry.block(place.block).left(tile, node),
        )
    }

    /// Fills the parts of a buffer that earlier tiles own: the block above, and the block to the left.
    fn restore_halos(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &mut BlockStore<T>,
    ) {
        let buffer = self.activation(place, node, phase);
        let block = self.block(place);
        let above = PerAxis::new(block.rows.halo(place.tile.band, node), buffer.rect.columns);
        let (strip, strip_rect) = self.strip_place(place, place.tile.band, node, phase.sweep());
        self.copy_in(buffer, above, strip, strip_rect, store);
        let (left, left_rect) = self.left_place(place, place.tile, node, phase.sweep());
        self.copy_in(buffer, left_rect, left, left_rect, store);
    }

    /// Hands on what later tiles read: the strip below and the halo to the right.
    fn save_halos(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &mut BlockStore<T>,
    ) {
        let buffer = self.activation(place, node, phase);
        let block = self.block(place);
        let Tile { band, column } = place.tile;
        if band + 1 < block.rows.bands() {
            let columns = block.columns.owned(column, node);
            let below = PerAxis::new(block.rows.halo(band + 1, node), columns);
            let (strip, rect) = self.strip_place(place, band + 1, node, phase.sweep());
            self.copy_out(buffer, below, strip, rect, store);
        }
        if column + 1 < block.columns.bands() {
            let next = Tile {
                band,
                column: column + 1,
            };
            let (left, rect) = self.left_place(place, next, node, phase.sweep());
            self.copy_out(buffer, rect, left, rect, store);
        }
    }

    fn copy_in(
        &mut self,
        buffer: Buffer,
        region: PerAxis<Span>,
        from: Place,
        from_rect: PerAxis<Span>,
        store: &mut BlockStore<T>,
    ) {
        if region.is_empty() {
            return;
        }
        let to = Stored {
            offset: buffer.offset,
            rect: buffer.rect,
        };
        let at = |start: u64| Stored {
            offset: offset(start),
            rect: from_rect,
        };
        // A kept node's buffer is in the saved slab and its halos travel through the transient one.
        let (target, source, from) = match (buffer.slab, from) {
            (Slab::Arena, Place::Saved(start)) => (&mut *self.arena, &*store.saved, at(start)),
            (Slab::Arena, Place::Border(start)) => (&mut *self.arena, &*store.border, at(start)),
            (Slab::Arena, Place::Transient(start)) => {
                (&mut *self.arena, &*self.transient, at(start))
            }
            (Slab::Saved, Place::Transient(start)) => {
                (&mut *store.saved, &*self.transient, at(start))
            }
            (Slab::Saved, Place::Saved(start) | Place::Border(start)) => {
                (&mut *store.saved, &*store.border, at(start))
            }
        };
        combine_rows(
            target,
            to,
            source,
            from,
            region,
            buffer.channels,
            |to, from| {
                to.copy_from_slice(from);
            },
        );
    }

    fn copy_out(
        &mut self,
        buffer: Buffer,
        region: PerAxis<Span>,
        to: Place,
        to_rect: PerAxis<Span>,
        store: &mut BlockStore<T>,
    ) {
        if region.is_empty() {
            return;
        }
        let from = Stored {
            offset: buffer.offset,
            rect: buffer.rect,
        };
        let at = |start: u64| Stored {
            offset: offset(start),
            rect: to_rect,
        };
        let (target, source, to) = match (buffer.slab, to) {
            (Slab::Arena, Place::Saved(start)) => (&mut *store.saved, &*self.arena, at(start)),
            (Slab::Arena, Place::Border(start)) => (&mut *store.border, &*self.arena, at(start)),
            (Slab::Arena, Place::Transient(start)) => {
                (&mut *self.transient, &*self.arena, at(start))
            }
            (Slab::Saved, Place::Transient(start)) => {
                (&mut *self.transient, &*store.saved, at(start))
            }
            (Slab::Saved, Place::Saved(start) | Place::Border(start)) => {
                (&mut *store.border, &*store.saved, at(start))
            }
        };
        combine_rows(
            target,
            to,
            source,
            from,
            region,
            buffer.channels,
            |to, from| {
                to.copy_from_slice(from);
            },
        );
    }

    /// Computes, for one node, what the tile owns; inputs are complete.
    fn compute_owned(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &mut BlockStore<T>,
    ) -> Result<()> {
        if self.owned(place, node).is_empty() {
            return Ok(());
        }
        if node == 0 {
            return self.read_image(place, phase, store);
        }
        self.compute(place, node, phase, store)
    }

    fn read_image(
        &mut self,
        place: TilePlace,
        phase: Phase,
        store: &mut BlockStore<T>,
    ) -> Result<()> {
        let buffer = self.activation(place, 0, phase);
        let owned = self.owned(place, 0);
        let slab = match buffer.slab {
            Slab::Arena => &mut *self.arena,
            Slab::Saved => &mut *store.saved,
        };
        let tile = buffer::strided_mut(slab, buffer, owned).ok_or_else(|| internal("image"))?;
        let region = pixel_region(owned);
        self.source
            .read(place.image, &region, T::tile_mut(tile))
            .map_err(|source| StreamError::Source {
                image: place.image,
                rows: region.rows,
                columns: region.columns,
                source,
            })
    }

    /// Moves what a tile or a band saved to the file, if there is one.
    fn spill(&mut self, part: Range<u64>, store: &mut BlockStore<T>) -> Result<()> {
        let Some(spill) = &mut self.spill else {
            return Ok(());
        };
        let values = &mut store.saved[offset(part.start)..offset(part.end)];
        spill.push(values)?;
        if let Some(value) = self.schedule.poison {
            values.fill(scalar(value));
        }
        Ok(())
    }

    /// Moves what a tile or a band saved back from the file, if there is one.
    fn unspill(&mut self, part: Range<u64>, store: &mut BlockStore<T>) -> Result<()> {
        match &mut self.spill {
            Some(spill) => spill.pop(&mut store.saved[offset(part.start)..offset(part.end)]),
            None => Ok(()),
        }
    }

    /// In tests: fills memory that holds no value that may be read.
    fn poison_arena(&mut self) {
        if let Some(value) = self.schedule.poison {
            self.arena.fill(scalar(value));
        }
    }

    /// Whether a residual of the backward sweep is computed again.
    fn is_recomputed(&self, node: usize) -> bool {
        self.schedule.buffers.residual(node) == Residual::Recomputed
    }
}

impl Schedule<'_> {
    /// The file that the plan asks for, empty.
    fn file(&self) -> Result<Option<Spill>> {
        match (self.buffers.storage(), self.spill) {
            (Storage::File, Some((folder, bytes))) => Spill::create(folder, bytes).map(Some),
            (Storage::Memory, _) | (Storage::File, None) => Ok(None),
        }
    }

    /// Makes `memory` one of `length` elements that holds anything, or poison; the first `used` will be written.
    fn make<T: Scalar>(&self, memory: &mut Memory<T>, length: usize, used: usize) {
        memory.make(length, used);
        if let Some(value) = self.poison {
            memory.fill(scalar(value));
        }
    }

    /// Makes the memory for what is saved of a block.
    fn make_block<T: Scalar>(&self, store: &mut BlockStore<T>, block: usize) {
        let lengths = [
            (&mut store.saved, self.buffers.saved_length(block)),
            (&mut store.border, self.buffers.border_length(block)),
        ];
        for (memory, length) in lengths {
            self.make(memory, offset(length), offset(length));
        }
    }
}

fn internal(layer: &str) -> StreamError {
    StreamError::Internal {
        layer: layer.to_owned(),
        what: "a region lies outside its buffer",
    }
}

/// What a sink or a cotangent source says of a region that it was given.
pub(crate) fn exchange_failed(
    what: &'static str,
    image: usize,
    region: PixelRegion,
) -> impl FnOnce(ExternalError) -> StreamError {
    move |source| StreamError::Exchange {
        what,
        image,
        rows: region.rows,
        columns: region.columns,
        source,
    }
}

pub(crate) fn pixel_region(rect: PerAxis<Span>) -> PixelRegion {
    let range = |span: Span| span.lo.max(0).unsigned_abs()..span.hi.max(0).unsigned_abs();
    PixelRegion {
        rows: range(rect.rows),
        columns: range(rect.columns),
    }
}
